"""`python -m core`: one dataclass per command, one module per topic."""
