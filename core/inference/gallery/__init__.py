"""Gallery: real items, generated voices beside them, and their selection. Read in this order."""
