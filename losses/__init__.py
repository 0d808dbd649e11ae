"""Losses on the sphere, chosen by name; (..., 1, H, W) predictions and targets → scalar."""

from losses.smse import SMSE

LOSSES = {"smse": SMSE}

__all__ = ["LOSSES", "SMSE"]
