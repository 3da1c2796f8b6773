"""The page Condition lab: sampling (inputs), point (one condition), interpolation, figures."""
