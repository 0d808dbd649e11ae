"""Spherically weighted Kullback-Leibler divergence, the loss of SST-Sal.

Bernal-Berdun et al., Computers & Graphics 2022, section 4.
"""

import math

import torch
from torch import Tensor

from losses.base import MapLoss
from projection import solid_angles

EPSILON = 1e-8
PUBLISHED_PIXELS = 240 * 320


class SphericalKLDivergence(MapLoss):
    """Σ over pixels of weight · q · ln(q / (p + ε) + ε), summed over all maps, as published.

    p and q are prediction and target, each scaled to [0, 1] and divided by its sum. The weights are
    the published trapezoid approximation of solid angles, not normalised. So the value is inversely
    proportional to the number of pixels.
    """

    summed = True

    @staticmethod
    def areas_of(height: int, width: int) -> Tensor:
        """Return the trapezoid approximation: the exact angle times one factor for all rows."""
        half_row = math.pi / (2 * height)
        return solid_angles(height, width, torch.float64) * half_row / math.tan(half_row)

    def loss(self, pred: Tensor, target: Tensor, areas: Tensor) -> Tensor:
        p, q = distribution(pred), distribution(target)
        return (areas * q * (q / (p + EPSILON) + EPSILON).log()).sum(dim=(-2, -1)).sum()


class ScaledSphericalKLDivergence(SphericalKLDivergence):
    """The same at the scale of 240×320 pixels, so that one learning rate fits every size."""

    def loss(self, pred: Tensor, target: Tensor, areas: Tensor) -> Tensor:
        pixels = pred.shape[-2] * pred.shape[-1]
        return super().loss(pred, target, areas) * (pixels / PUBLISHED_PIXELS)


def distribution(maps: Tensor) -> Tensor:
    """Scale each map to [0, 1] and then to the sum 1; a constant map becomes 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    maps = (maps - low) / (high - low + EPSILON)
    return maps / (maps.sum((-2, -1), keepdim=True) + EPSILON)
