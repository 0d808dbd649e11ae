"""Scores of models and saved maps against ground truth, with baselines and observers."""
