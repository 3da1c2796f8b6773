"""What a visit remembers: cached access to core, the address, the corpora that pages know."""
