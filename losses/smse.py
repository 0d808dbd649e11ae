"""Sphere-weighted mean squared error (Zhang et al. 2018, section 4)."""

from torch import Tensor, nn

from projection import solid_angles


class SMSE(nn.Module):
    """Σ over pixels of solid angle · (pred − target)², averaged over maps.

    The published code takes the trapezoid approximation of the solid angles and divides by
    the batch only; here they are exact and sum to 4π.

    pred, target: (..., 1, H, W) → scalar, at least float32. Raises ValueError where the
    shapes differ.
    """

    summed = False  # over the maps, or their mean

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        if pred.shape != target.shape:
            raise ValueError(f"pred {tuple(pred.shape)} and target {tuple(target.shape)} differ")
        pred, target = (t if t.dtype.itemsize > 4 else t.float() for t in (pred, target))
        weight = solid_angles(*pred.shape[-2:], pred.dtype).to(pred.device)
        return (weight * (pred - target).square()).sum((-3, -2, -1)).mean()
