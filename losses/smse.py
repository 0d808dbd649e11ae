"""Mean squared error, weighted on the sphere (Zhang et al. 2018, section 4) or planar."""

import math

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
    """SMSE with pixels of equal area, as on a flat picture: 4π times the mean over pixels.

    For the same error everywhere, it equals the SMSE, with gradients of the same size.
    """

    @staticmethod
    def areas_of(height: int, width: int) -> Tensor:
        """Return the same share of 4π steradians for a pixel of each row: (H, 1) float64."""
        return torch.full((height, 1), 4 * math.pi / (height * width), dtype=torch.float64)
