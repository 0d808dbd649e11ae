"""All metrics of a batch of maps by one protocol."""

import torch
from torch import Tensor

from metrics.saliency import METRICS
from projection.sphere import latitudes, solid_angles


class Protocol:
    """pred, target, fixations, others, each (N, H, W) → {metric: N values}.

    name:
        "sphere"  weighted with exact solid angles.
        "planar"  each pixel counts the same, as in most published tables.
        "sin"     planar, prediction and truth multiplied by the sine of the colatitude before, as
                  in SST-Sal's (Bernal-Berdun et al. 2022) and later authors' evaluation. NSS and
                  AUC then see a prediction that falls towards the poles.
    Metrics whose truth is not given are left out; NaN where a truth can't be scored.
    """

    NAMES = ("sphere", "planar", "sin")

    def __init__(self, name: str, height: int, width: int):
        if name not in self.NAMES:
            raise ValueError(f"a protocol is one of {', '.join(self.NAMES)}, not {name!r}")
        self.weights = solid_angles(height, width, torch.float64) if name == "sphere" else None
        self.factor = latitudes(height).cos()[:, None].float() if name == "sin" else None

    def __call__(self, pred: Tensor, **truths: Tensor | None) -> dict[str, list[float]]:
        """Raises ValueError for maps that are negative, not finite or of another size."""
        pred = self._seen(pred)
        known = {name: truth for name, truth in truths.items() if truth is not None}
        if "target" in known:
            known["target"] = self._seen(known["target"])
        return {
            name: metric.function(
                pred, *map(known.get, metric.needs), weights=self.weights
            ).tolist()
            for name, metric in METRICS.items()
            if all(need in known for need in metric.needs)
        }

    def _seen(self, maps: Tensor) -> Tensor:
        return maps if self.factor is None else maps * self.factor
