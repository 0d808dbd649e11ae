"""Losses on the sphere, chosen by name; (..., 1, H, W) predictions and targets → scalar."""

from common.components import LOSSES
from losses.base import MapLoss
from losses.density import DensityLoss
from losses.smse import MSE, SMSE
from losses.spherical_kl import SphericalKLDivergence

__all__ = ["LOSSES", "MSE", "SMSE", "DensityLoss", "MapLoss", "SphericalKLDivergence"]
