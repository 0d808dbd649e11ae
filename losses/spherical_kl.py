"""Spherically weighted Kullback-Leibler divergence, the loss of SST-Sal.

Bernal-Berdun et al., Computers & Graphics 2022, section 4.
"""

import math

from torch import Tensor, nn

from projection import solid_angles

EPSILON = 1e-8


def spherical_kl(pred: Tensor, target: Tensor) -> Tensor:
    """Σ over pixels of weight · q · ln(q / (p + ε) + ε) for each map: (..., H, W) → (...).

    p and q are prediction and target, scaled to [0, 1] map by map and divided by their sum.
    The weights are the published trapezoid approximation of solid angles, not normalised.
    As p and q are probabilities of pixels, and the weight is a pixel's area, the value
    shrinks with the number of pixels: 100 times as many make it 100 times smaller.
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred {tuple(pred.shape)} and target {tuple(target.shape)} differ")
    pred, target = (t if t.dtype.itemsize > 4 else t.float() for t in (pred, target))
    height, width = pred.shape[-2:]
    half_row = math.pi / (2 * height)
    trapezoid = half_row / math.tan(half_row)  # over exact, the same in every row
    weight = solid_angles(height, width, pred.dtype).to(pred.device) * trapezoid
    p, q = distribution(pred), distribution(target)
    return (weight * q * (q / (p + EPSILON) + EPSILON).log()).sum(dim=(-2, -1))


def distribution(maps: Tensor) -> Tensor:
    """Scaled to [0, 1] and then to sum 1, map by map; a constant map becomes 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    maps = (maps - low) / (high - low + EPSILON)
    return maps / (maps.sum((-2, -1), keepdim=True) + EPSILON)


class SphericalKLDivergence(nn.Module):
    """`spherical_kl` summed over all maps, as published: (..., 1, H, W) → scalar.

    The published loss shrinks with the number of pixels (see spherical_kl) and grows with the
    frames of a clip. The published learning rate of 0.8 belongs to 240×320 pixels and one
    clip of 20 frames; the Spec of SSTSal scales it with the number of pixels.
    """

    summed = True  # over the maps, or their mean

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return spherical_kl(pred, target).sum()
