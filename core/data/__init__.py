"""§4.1: corpora to arrays, and arrays to the four subject-disjoint sets. Read: corpora, features, preparation, splits."""
