"""Inter-observer scores: how well observers predict each other, the usual reference for a model."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from metrics.protocol import Protocol
from metrics.saliency import area_shares, mean

ROUNDING = 1e-6  # share of the maximum; smaller differences of two blurred maps count as none
MAX_LEFT_OUT = 16  # largest number of observers of a frame to leave out in turn; drawn at random


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
    (Wilming et al., PLoS ONE 2011). CC is a ceiling, see `density_cc`. SIM and KLD are none: they
    compare the blurred fixations of two random halves of the observers, each half once as the
    prediction of the other, and the true density of fixations scores better.

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
    singles = torch.stack([image(blur, [left_out]) for left_out in order[:MAX_LEFT_OUT]])
    scores["cc"] = [density_cc(everyone, singles, np.bincount(observer), protocol)]
    for left_out, blurred in zip(order, singles):
        rest, fixations = everyone - blurred, image(count, [left_out])
        rest = torch.where(rest > ROUNDING * everyone.max(), rest, 0.0)
        single = protocol(rest[None], fixations=fixations[None], others=others[None])
        for metric, values in single.items():
            scores.setdefault(metric, []).extend(values)
    return {metric: mean_of_finite(values) for metric, values in scores.items()}


def density_cc(everyone: Tensor, singles: Tensor, counts: np.ndarray, protocol: Protocol) -> float:
    """Return an estimate of the CC of the true density of fixations, blurred, with their map.

    It is the square root of the map's reliability, of Cronbach's α (1951) where observers have as
    many fixations each: the share of its variance that other observers would repeat, 0 for none.
    From 16 observers on, its mean over frames is at most 0.08 too low, of fewer up to 0.3.

    everyone: (H, W) blurred fixations. singles: (n, H, W), of some observers. counts: of fixations
    of each observer.
    """
    maps = torch.cat([everyone[None], singles]).double() / everyone.max() * protocol.factor
    share = area_shares(protocol.weights, maps)
    total, *alone = mean((maps - mean(maps, share)).square(), share).flatten().tolist()
    if total < ROUNDING**2:
        return math.nan
    repeated = 1 - len(counts) * np.mean(alone) / total
    return math.sqrt(np.clip(repeated / (1 - (counts**2).sum() / counts.sum() ** 2), 0, 1))


def mean_of_finite(values: Iterable[float]) -> float:
    """Return the mean of the finite values, NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return float(sum(finite) / len(finite)) if finite else math.nan
