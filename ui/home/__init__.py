"""The page Home: status (example, running work, links), diagram (Fig. 3)."""
