"""Uses of a trained run: voices, conditions, examples, gallery, exports. Read generation first."""
