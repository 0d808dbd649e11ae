"""Mean squared error, weighted on the sphere (Zhang et al. 2018, section 4) or planar."""

import torch
from torch import Tensor

from losses.base import MapLoss


class SMSE(MapLoss):
    """Σ over pixels of solid angle · (pred − target)², averaged over maps.

    The published code takes the trapezoid approximation of the solid angles and divides by the
    batch only; here they are exact and sum to 4π.

    >>> import torch
    >>> target = torch.rand(2, 1, 4, 8)
    >>> f"{SMSE()(target + 1, target):.4f}"  # an error of 1 everywhere: 4π
    '12.5664'
    """

    def loss(self, pred: Tensor, target: Tensor, areas: Tensor) -> Tensor:
        return (areas * (pred - target).square()).sum((-3, -2, -1)).mean()


class MSE(SMSE):
    """Mean over pixels of (pred − target)², as on a flat picture, averaged over maps.

    It is 4π times smaller than an SMSE of equal errors everywhere.
    """

    @staticmethod
    def areas_of(height: int, width: int) -> Tensor:
        """Return the share of a pixel of each row in the picture: (H, 1) float64."""
        return torch.full((height, 1), 1 / (height * width), dtype=torch.float64)
