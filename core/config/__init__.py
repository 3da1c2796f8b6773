"""Every setting of an experiment: `settings` first, then `presets` and `serialisation`."""
