"""State of a visit: cached runs and corpora, choices in the URL, arrays as pictures and files."""
