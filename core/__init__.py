"""The paper, in the paper's order: media, data, models, conformal, evaluation, experiments, inference, cli."""
