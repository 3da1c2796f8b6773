"""§4.5-4.6: a report of finished runs (`report`) and the figures in it (`figures`)."""
