"""Parts of the page Conformal."""
