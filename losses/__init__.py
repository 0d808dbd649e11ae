"""Losses on the sphere, chosen by name; (..., 1, H, W) predictions and targets → scalar."""

from losses.density import DensityLoss, FlatDensityLoss
from losses.smse import SMSE
from losses.spherical_kl import SphericalKLDivergence

LOSSES = {
    "smse": SMSE,
    "density": DensityLoss,
    "flat_density": FlatDensityLoss,
    "spherical_kl": SphericalKLDivergence,
}

__all__ = ["LOSSES", "SMSE", "DensityLoss", "FlatDensityLoss", "SphericalKLDivergence"]
