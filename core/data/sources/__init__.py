"""§4.1: a folder, zip or table -> the index of its clips; two corpora -> surrogate pairs.

Read: media_files, indexing, own_data, surrogate_pairs.
"""
