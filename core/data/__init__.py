"""§4.1: corpora -> arrays -> S1-S4. Read: corpora, sources/, features, preparation, splits."""
