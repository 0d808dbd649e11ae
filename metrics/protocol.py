"""All metrics for a batch of maps under one evaluation protocol."""

import torch
from torch import Tensor, nn

from common.protocols import WEIGHTINGS
from metrics.saliency import METRICS
from projection.sphere import latitudes, solid_angles


class Protocol(nn.Module):
    """Score maps of one size with every metric whose ground truth is given.

    name:
        "sphere"  pixels are weighted by their exact solid angles.
        "planar"  all pixels have the same weight, as in most published tables.
        "sin"     planar, after prediction, truth and prior are multiplied by the sine of the
                  colatitude, as by SST-Sal (Bernal-Berdun et al. 2022) and later authors.
                  NSS and AUC then score a prediction that is darkened towards the poles.
    height, width: size of the maps in pixels; their weights are buffers that move with the module.

    Raises ValueError for another name.
    """

    weights: Tensor | None
    factor: Tensor

    def __init__(self, name: str, height: int, width: int):
        super().__init__()
        if name not in WEIGHTINGS:
            raise ValueError(f"protocol must be one of {', '.join(WEIGHTINGS)}, got {name!r}")
        areas = solid_angles(height, width, torch.float64) if name == "sphere" else None
        factor = latitudes(height).cos()[:, None].float() if name == "sin" else torch.ones(1, 1)
        self.register_buffer("weights", areas, persistent=False)
        self.register_buffer("factor", factor, persistent=False)

    def forward(self, pred: Tensor, **truths: Tensor) -> dict[str, list[float]]:
        """Return the N values of each metric by name, NaN where a ground truth can't be scored.

        pred: (N, H, W). truths: target, fixations, others and prior, (N, H, W) each, as in
            metrics/saliency.py; a metric whose truth is absent is left out.
        Raises ValueError for maps that are negative, not finite or of another size.
        """
        pred = pred * self.factor
        for name in {"target", "prior"} & truths.keys():
            truths[name] = truths[name] * self.factor
        values = {}
        for name, metric in METRICS.items():
            if set(metric.needs) <= truths.keys():
                needed = [truths[need] for need in metric.needs]
                values[name] = metric.function(pred, *needed, weights=self.weights).tolist()
        return values
