"""The invented corpus. Read: actors, voices, expressions, rendering, canvas, recordings."""
