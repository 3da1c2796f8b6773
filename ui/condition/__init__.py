"""Parts of the page Condition lab."""
