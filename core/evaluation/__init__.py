"""§4.2: what is measured, on whom, and how sure it is. Read: metrics, evaluator, augmentation, comparison."""
