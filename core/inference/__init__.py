"""What one may ask of a trained run: voices, conditions, examples, a copy to share. Read: generation."""
