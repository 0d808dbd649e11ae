"""Mean squared error, weighted on the sphere (Zhang et al. 2018, section 4) or planar."""

import torch
from torch import Tensor

from losses.base import MapLoss


class SMSE(MapLoss):
    """Σ over pixels of solid angle · (pred − target)², averaged over maps.

    The solid angles are exact and sum to 4π; the published code approximates them by the trapezoid
    rule and divides by the batch size only.

    >>> import torch
    >>> target = torch.rand(2, 1, 4, 8)
    >>> f"{SMSE()(target + 1, target):.4f}"  # an error of 1 everywhere: 4π
    '12.5664'
    """

    def loss(self, pred: Tensor, target: Tensor, areas: Tensor) -> Tensor:
        return (areas * (pred - target).square()).sum((-3, -2, -1)).mean()


class MSE(SMSE):
    """Mean over pixels of (pred − target)², as on a flat picture, averaged over maps.

    For the same error everywhere, it is 1/4π of the SMSE.
    """

    @staticmethod
    def areas_of(height: int, width: int) -> Tensor:
        """Return the share of a pixel in the picture for each row: (H, 1) float64."""
        return torch.full((height, 1), 1 / (height * width), dtype=torch.float64)
