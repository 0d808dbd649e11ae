"""Base class of all losses: quadrature on the sphere and checks of the arguments."""

import torch
from torch import Tensor, nn

from projection import solid_angles


class MapLoss(nn.Module):
    """A loss of saliency maps: (..., 1, H, W) prediction and target → scalar, at least float32.

    height, width: size of maps for which areas are computed in advance. Other sizes work, too.

    A subclass defines loss(pred, target, areas), with areas (H, 1), and sets class attributes:
        summed: the loss is a sum over maps, not their mean.
        needs_fixations: it also takes `fixations`, counts (N, 1, H, W), which may all be zero.
        whole_clips: it takes clips (B, T, 1, H, W) and `valid` (B, T), False without a truth.
    Raises ValueError if the shapes differ.
    """

    summed = needs_fixations = whole_clips = False
    areas: Tensor

    def __init__(self, height: int | None = None, width: int | None = None):
        super().__init__()
        self.size = (height, width)
        areas = self.areas_of(height, width) if height and width else None
        self.register_buffer("areas", areas, persistent=False)

    @staticmethod
    def areas_of(height: int, width: int) -> Tensor:
        """Return the solid angle of a pixel in each row in steradians: (H, 1) float64."""
        return solid_angles(height, width, torch.float64)

    def forward(self, pred: Tensor, target: Tensor, **truths: Tensor) -> Tensor:
        if pred.shape != target.shape:
            raise ValueError(f"pred {tuple(pred.shape)} and target {tuple(target.shape)} differ")
        pred, target = (t if t.dtype.itemsize > 4 else t.float() for t in (pred, target))
        size = tuple(pred.shape[-2:])
        areas = self.areas if size == self.size else self.areas_of(*size)
        return self.loss(pred, target, areas.to(pred), **truths)

    def loss(self, pred: Tensor, target: Tensor, areas: Tensor) -> Tensor:
        raise NotImplementedError
