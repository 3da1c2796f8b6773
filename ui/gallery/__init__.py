"""Parts of the page Gallery."""
