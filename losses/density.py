"""A loss that combines saliency metrics."""

import math

from torch import Tensor

from losses.base import MapLoss

EPSILON = 1e-7  # in units of the mean density; a float32 sigmoid can reach zero


class DensityLoss(MapLoss):
    """KLD + (1 − CC) / 2 + SMSE on the sphere ("kldcc"): (..., 1, H, W) → scalar, mean over maps.

    KLD, in nats, is the divergence of the target from the prediction, both as densities with
    integral 1. CC is Pearson's correlation. Both are weighted with exact solid angles and do not
    depend on the scale of the prediction, which SMSE determines. Networks for flat pictures are
    trained on similar sums (S. Jia, N. Bruce: EML-NET, Image and Vision Computing 2020).

    Predictions and targets must be non-negative, and targets not constant.
    """

    def loss(self, pred: Tensor, target: Tensor, areas: Tensor) -> Tensor:
        share = areas / (4 * math.pi)

        def mean(maps: Tensor) -> Tensor:
            return (maps * share).sum((-2, -1), keepdim=True)

        smse = 4 * math.pi * mean((pred - target).square())
        p = pred / (mean(pred) + EPSILON)
        q = target / (mean(target) + EPSILON)
        kld = mean(q * ((q + EPSILON) / (p + EPSILON)).log())
        p, q = p - mean(p), q - mean(q)
        cc = mean(p * q) * (mean(p * p) * mean(q * q) + EPSILON).rsqrt()
        return (kld + (1 - cc) / 2 + smse).mean()
