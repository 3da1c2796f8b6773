"""Runs: `directory` reads one's files, `formats` and `checks` guard them, `store` indexes all."""
