"""The paper: `equations` maps its parts to functions, `published` holds the numbers it prints."""
