"""Losses on the sphere, chosen by name; (..., 1, H, W) predictions and targets → scalar."""

from typing import Any

from torch import nn

from common.options import LOSS_NAMES
from common.own_code import find_own
from losses.density import DensityLoss
from losses.smse import MSE, SMSE
from losses.spherical_kl import ScaledSphericalKLDivergence, SphericalKLDivergence

KINDS = (SMSE, MSE, DensityLoss, ScaledSphericalKLDivergence)
LOSSES: dict[str, Any] = dict(zip(LOSS_NAMES, KINDS, strict=True))

__all__ = ["LOSSES", "MSE", "SMSE", "DensityLoss", "SphericalKLDivergence", "find_loss"]


def find_loss(name: str) -> Any:
    """Return the loss of a name, or a user-defined "package.module:Class". Raises as find_own."""
    kind = LOSSES[name] = find_own(name, LOSSES, "loss", nn.Module, "a subclass of torch.nn.Module")
    for attribute in ("summed", "needs_fixations", "whole_clips"):  # as in MapLoss
        setattr(kind, attribute, getattr(kind, attribute, False))
    return kind
