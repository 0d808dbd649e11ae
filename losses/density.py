"""A loss of what saliency maps are compared by: their distribution, their pattern, their values."""

import math

import torch
from torch import Tensor, nn

from projection import solid_angles

EPSILON = 1e-7  # of a mean density; a float32 sigmoid can reach zero


class DensityLoss(nn.Module):
    """KLD + (1 − CC) / 2 + SMSE on the sphere: (..., 1, H, W) → scalar, mean over maps.

    KLD, in nats, of the truth from the prediction, both as densities with integral 1, and CC,
    Pearson's correlation, are weighted with exact solid angles and blind to the prediction's
    scale, which SMSE pins down. Networks for flat pictures are trained on such sums, of what
    they are then scored by (for example S. Jia, N. Bruce: EML-NET, Image and Vision Computing
    2020).
    Prediction and target are not negative; a target is not constant.
    """

    summed = False

    @staticmethod
    def weights(height: int, width: int) -> Tensor:
        """Of the pixels of each row, as a share of 4π: (H, 1) float64."""
        return solid_angles(height, width, torch.float64) / (4 * math.pi)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        if pred.shape != target.shape:
            raise ValueError(f"pred {tuple(pred.shape)} and target {tuple(target.shape)} differ")
        pred, target = (t if t.dtype.itemsize > 4 else t.float() for t in (pred, target))
        share = self.weights(*pred.shape[-2:]).to(pred)

        def mean(maps: Tensor) -> Tensor:
            return (maps * share).sum((-2, -1), keepdim=True)

        smse = 4 * math.pi * mean((pred - target).square())
        p = pred / (mean(pred) + EPSILON)
        q = target / (mean(target) + EPSILON)
        kld = mean(q * ((q + EPSILON) / (p + EPSILON)).log())
        p, q = p - mean(p), q - mean(q)
        cc = mean(p * q) * (mean(p * p) * mean(q * q) + EPSILON).rsqrt()
        return (kld + (1 - cc) / 2 + smse).mean()


class FlatDensityLoss(DensityLoss):
    """The same for flat pictures, in which each pixel counts as much."""

    @staticmethod
    def weights(height: int, width: int) -> Tensor:
        return torch.full((height, 1), 1 / (height * width), dtype=torch.float64)
