"""Scores of models and saved maps against ground truth, beside baselines and observers."""
