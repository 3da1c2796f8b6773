"""§4.2: metrics, protocol, augmentation table, tests over subjects, comparison and reports."""
