"""§3.1: p-values, predictors, prediction sets, validity. Read: prediction, predictor, validity."""
