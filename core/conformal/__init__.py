"""§3.1: p-values, prediction sets and whether they keep their promise. Read: prediction, validity, analysis."""
