"""The paper, in the paper's order.

Media, data, models, conformal, evaluation, experiments, inference, cli.
"""
