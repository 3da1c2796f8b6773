"""`python -m core`: one dataclass a command, one module a topic."""
