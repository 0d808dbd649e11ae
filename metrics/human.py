"""The human ceiling: how well people predict where others look."""

import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from metrics.protocol import Protocol
from metrics.summary import mean_of_finite

HALVES, QUARTERS = ((0, 1), (2, 3)), ((0,), (1,), (2,), (3,))  # of the quarters of the people


class HumanCeiling:
    """What the fixations of n people score as a prediction of n others', from n people alone.

    In each frame the people are dealt at random to four quarters, and the fixations of some
    quarters, blurred, predict those of others: a half the other half, three quarters the
    fourth, and a quarter another one. What as many people as there are would reach follows
    from the means over frames:

        CC             of halves, by the Spearman-Brown formula.
        SIM            of halves and of quarters, by `sim_of_twice`.
        NSS, AUC, KLD  by three quarters and by a half: the first two as linear in one over
            the people who predict, the KLD as a power of them.
            NSS and AUC do not depend on how many are predicted. The KLD of all the truth,
            each part of it predicted by the rest, is the mean over the parts, by their size,
            of KLD(rest, part) − KLD(all, part).

    A map of few people says that nobody ever looks elsewhere, which the KLD punishes without
    bound. So to N fixations one is added, that looks as `prior` says; to a part of them, as
    large a part of it. Where observers are not told, each fixation is a person. Frames with
    fewer than four people are left out.

    count, blur: (longitudes, latitudes) → (H, W): fixations in each pixel, and their Gaussians.
    areas: solid angles (H, 1). prior: (H, W).
    """

    def __init__(
        self,
        protocol: Protocol,
        areas: Tensor,
        prior: Tensor,
        count: Callable[..., Tensor],
        blur: Callable[..., Tensor],
        seed: int,
    ):
        self.protocol, self.areas, self.count, self.blur = protocol, areas, count, blur
        self.prior = prior / (prior * areas).sum()
        self.generator = np.random.default_rng(seed)
        self.by_half: dict[str, list[float]] = defaultdict(list)
        self.by_rest: dict[str, list[float]] = defaultdict(list)  # of a quarter
        self.sim_of_quarters: list[float] = []

    def add(self, longitudes, latitudes, observers, others: Tensor) -> None:
        """One frame's fixations, (N,) each; observers −1 where not told; others as in `sauc`."""
        people = np.arange(len(observers)) if (observers < 0).any() else observers
        names, person = np.unique(people, return_inverse=True)
        if len(names) < len(QUARTERS):
            return
        quarter = self.generator.permutation(len(names))[person] * len(QUARTERS) // len(names)
        groups = [(longitudes[quarter == q], latitudes[quarter == q]) for (q,) in QUARTERS]
        counts = torch.stack([self.count(*group) for group in groups])
        maps = torch.stack([self.blur(*group) for group in groups])
        one = self.prior * (maps.sum(0) * self.areas).sum() / len(observers)
        share = torch.tensor([len(group[0]) / len(observers) for group in groups])
        predictions = maps + share[:, None, None] * one
        for parts, scores in ((HALVES, self.by_half), (QUARTERS, self.by_rest)):
            for metric, value in self._by_rest(parts, predictions, maps, counts, others).items():
                scores[metric].append(value)
        pairs = self.protocol(predictions.roll(1, 0), target=maps)
        self.sim_of_quarters.append(mean_of_finite(pairs["sim"]))

    def _by_rest(self, parts, predictions, maps, counts, others) -> dict[str, float]:
        """Metric → mean over the parts, by their fixations, each predicted by the others.

        parts: of the quarters, whose predictions, maps and counts, (4, H, W), they are made of.
        """
        rests = [[q for (q,) in QUARTERS if q not in part] for part in parts]
        pred = torch.stack([predictions[rest].sum(0) for rest in rests])
        truth, fixations = (
            torch.stack([of[list(part)].sum(0) for part in parts]) for of in (maps, counts)
        )
        values = self.protocol(pred, target=truth, fixations=fixations, others=others)
        own = self.protocol(maps.sum(0).expand_as(truth), target=truth)["kld"]
        values["kld"] = np.subtract(values["kld"], own)
        weights = fixations.sum((1, 2)).numpy()
        return {name: float(np.average(value, weights=weights)) for name, value in values.items()}

    def scores(self) -> dict[str, float]:
        """Metric → score of as many people as there are; {} without frames."""
        half, rest = (
            {metric: mean_of_finite(values) for metric, values in scores.items()}
            for scores in (self.by_half, self.by_rest)
        )
        scores = {m: rest[m] + (rest[m] - half[m]) / 2 for m in rest}  # from 2/n and 4/3n to 1/n
        if scores:
            scores["cc"] = spearman_brown(half["cc"])
            scores["sim"] = sim_of_twice(half["sim"], mean_of_finite(self.sim_of_quarters))
            if 0 < rest["kld"] < half["kld"]:
                scores["kld"] = rest["kld"] * (rest["kld"] / half["kld"]) ** math.log(4 / 3, 3 / 2)
            scores |= {m: min(scores[m], 1.0) for m in scores if "auc" in m}
        return scores


def spearman_brown(correlation: float) -> float:
    """Of two means of n people each, from that of two of n/2 (Spearman, Brown 1910)."""
    return 2 * correlation / (1 + correlation) if correlation > 0 else correlation


def sim_of_twice(half: float, quarter: float) -> float:
    """SIM of two maps of n people each, from those of n/2 and of n/4.

    Let m be how many people's Gaussians reach a place, on average. Two Poisson counts of mean m
    overlap by E min(X, Y) / m = 1 − exp(−2m) (I₀(2m) + I₁(2m)), since E|X − Y| is 2m times what
    is taken from 1 (Skellam 1946; Katti 1960): m where they are few, 1 − 1/√(πm) where many. In
    a map of many places with other m, doubling the people multiplies the m that explains the
    SIM by less than two: by as much as from n/4 to n/2, once more.
    """
    log_m = torch.linspace(-14, 14, 2801, dtype=torch.float64)
    twice = 2 * log_m.exp()
    overlap = 1 - torch.special.i0e(twice) - torch.special.i1e(twice)
    log_quarter, log_half = np.interp([quarter, half], overlap, log_m)
    step = np.clip(log_half - log_quarter, 0, math.log(2))
    return float(np.interp(log_half + step, log_m, overlap))
