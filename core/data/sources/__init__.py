"""§4.1: a folder, zip or table -> the index of its clips. Read: media_files, indexing, own_data."""
