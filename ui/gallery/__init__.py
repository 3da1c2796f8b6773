"""The page Gallery: voices (cached data), item (one face in full), quiz."""
