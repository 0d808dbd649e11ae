"""Sphere-weighted mean squared error (Zhang et al. 2018, section 4)."""

from torch import Tensor

from losses.base import MapLoss


class SMSE(MapLoss):
    """Σ over pixels of solid angle · (pred − target)², averaged over maps.

    The published code takes the trapezoid approximation of the solid angles and divides by the
    batch only; here they are exact and sum to 4π.

    pred, target: (..., 1, H, W) → scalar, at least float32. Raises ValueError where the shapes
    differ.

    >>> import torch
    >>> target = torch.rand(2, 1, 4, 8)
    >>> f"{SMSE()(target + 1, target):.4f}"  # an error of 1 everywhere: 4π
    '12.5664'
    """

    def loss(self, pred: Tensor, target: Tensor, areas: Tensor) -> Tensor:
        return (areas * (pred - target).square()).sum((-3, -2, -1)).mean()
