"""Inter-observer agreement: how well observers predict where other observers look.

This is the usual upper reference for a model.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from metrics.protocol import Protocol

ROUNDING = 1e-6  # share of the maximum; smaller differences of two blurred maps count as none
LEFT_OUT = 16  # largest number of observers of a frame to leave out in turn; drawn at random


def inter_observer(
    longitudes: np.ndarray,
    latitudes: np.ndarray,
    observers: np.ndarray,
    others: Tensor,
    protocol: Protocol,
    count: Callable[..., Tensor],
    blur: Callable[..., Tensor],
    random: np.random.Generator,
) -> dict[str, float]:
    """Return the inter-observer score of one frame by metric; {} for fewer than two observers.

    NSS, AUC-Judd and shuffled AUC are leave-one-out: the fixations of each observer are scored
    against the blurred fixations of all others, and the scores averaged over the observers
    (Wilming et al., PLoS ONE 2011). CC, SIM and KLD compare the blurred fixations of two random
    halves of the observers, each half once as the prediction of the other. Both use fewer
    observers than there are, so the agreement of the whole group is slightly underestimated.

    longitudes, latitudes: (N,) fixations in radians. observers: (N,) integers; if any is negative,
        the observers are unknown and each fixation counts as one observer.
    others: (H, W) fixation counts of other clips.
    count, blur: map longitudes and latitudes to fixation counts and to sums of Gaussians, (H, W).
    """
    if (observers < 0).any():
        observers = np.arange(len(observers))
    names, observer = np.unique(observers, return_inverse=True)
    if len(names) < 2:
        return {}
    order = random.permutation(len(names))

    def image(make: Callable[..., Tensor], chosen: np.ndarray | list) -> Tensor:
        selected = np.isin(observer, chosen)
        return make(longitudes[selected], latitudes[selected])

    halves = torch.stack([image(blur, half) for half in np.array_split(order, 2)])
    scores = protocol(halves, target=halves.flip(0))
    everyone = halves.sum(0)
    for left_out in order[:LEFT_OUT]:
        rest, fixations = everyone - image(blur, [left_out]), image(count, [left_out])
        rest = torch.where(rest > ROUNDING * everyone.max(), rest, 0.0)
        single = protocol(rest[None], fixations=fixations[None], others=others[None])
        for metric, values in single.items():
            scores.setdefault(metric, []).extend(values)
    return {metric: mean_of_finite(values) for metric, values in scores.items()}


def mean_of_finite(values: Iterable[float]) -> float:
    """Return the mean of the finite values, NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return float(sum(finite) / len(finite)) if finite else math.nan
