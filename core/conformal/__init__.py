"""§3.1: p-values, prediction sets and their validity. Read: prediction, validity, analysis."""
