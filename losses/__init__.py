"""Losses on the sphere, chosen by name; (..., 1, H, W) predictions and targets → scalar."""

from losses.density import DensityLoss
from losses.smse import MSE, SMSE
from losses.spherical_kl import ScaledSphericalKLDivergence, SphericalKLDivergence

LOSSES = {
    "smse": SMSE,
    "mse": MSE,
    "density": DensityLoss,
    "spherical_kl": ScaledSphericalKLDivergence,
}

__all__ = ["LOSSES", "MSE", "SMSE", "DensityLoss", "SphericalKLDivergence"]
