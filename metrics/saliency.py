"""Saliency metrics: CC, SIM, KLD, NSS, two AUCs and information gain, planar or on the sphere.

Definitions: Bylinskii et al., "What do different evaluation metrics tell us about saliency
models?", PAMI 2019. Each docstring states where its function differs from the authors' code (the
MIT saliency benchmark).

pred, target: (..., H, W) saliency densities on any scale: value per area, not mass per pixel.
fixations: (..., H, W) number of fixations in each pixel.
weights: area of each pixel on any scale, broadcast to (..., H, W); on the sphere
    `projection.solid_angles(H, W, torch.float64)` of shape (H, 1). A weight of zero removes a
    pixel from means and from the negatives of the AUC, but not a fixation in it. None: every
    pixel counts the same (planar).
Returns: (...) float64, computed in float64.

All metrics treat degenerate maps alike:
    A constant prediction is scored; an all-zero prediction counts as constant.
    A ground truth that can't be scored gives NaN, which the caller leaves out of means.
    ValueError is raised if shapes differ, maps are not finite, or counts or weights negative.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.components import METRICS

EPSILON = 2.0**-52  # 2.2204e-16, Matlab's eps, as in the MIT benchmark
ROUNDING = 1e-12  # relative deviation below which a map counts as constant


def cc(pred: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Pearson's correlation coefficient with weighted mean, variance and covariance, in [−1, 1].

    Both maps may hold any real values; an offset and a positive factor change nothing.
    Constant prediction: 0. Constant ground truth, all-zero included: NaN.
    """
    check_maps(signed=("pred", "target"), pred=pred, target=target)
    share = area_shares(weights, pred)
    pred, target = deviation(pred, share), deviation(target, share)
    pred_variance, target_variance = variance(pred, share), variance(target, share)
    value = mean(pred * target, share) / (pred_variance * target_variance).sqrt()
    value = torch.where(pred_variance > 0, value, 0.0)
    return torch.where(target_variance > 0, value, math.nan).squeeze((-2, -1))


def sim(pred: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Histogram intersection Σ min(p, q) of the masses of prediction and truth, in [0, 1].

    The masses are p = pred·w / Σ pred·w. Unlike in the MIT code, the minimum of a map is not
    subtracted first.
    Constant prediction: by the formula. All-zero truth: NaN. ValueError for negative values.
    """
    check_maps(pred=pred, target=target)
    share = area_shares(weights, pred)
    p, q = relative_density(pred, share, 1.0), relative_density(target, share, math.nan)
    return mean(torch.minimum(p, q), share).squeeze((-2, -1))


def kld(pred: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the truth from the prediction in nats, 0 where they agree.

    Σ q ln(q̂ / (p̂ + ε) + ε) with the masses q of the truth, and densities p̂ and q̂ in units of
    the map's mean density. As ε = 2.2204e-16 is a density, the value does not depend on the
    resolution. The MIT code adds ε to the masses of N pixels instead, which equals ε/N here. The
    values differ only where the prediction is almost zero and the truth is not: there, a mass m of
    the truth adds m·ln N more than in the MIT code.
    Constant prediction: by the formula. All-zero truth: NaN. ValueError for negative values.
    """
    check_maps(pred=pred, target=target)
    share = area_shares(weights, pred)
    p, q = relative_density(pred, share, 1.0), relative_density(target, share, math.nan)
    return mean(q * (q / (p + EPSILON) + EPSILON).log(), share).squeeze((-2, -1))


def nss(pred: Tensor, fixations: Tensor, weights: Tensor | None = None) -> Tensor:
    """Normalized scanpath saliency: mean over fixations of the standardized prediction.

    Mean and standard deviation of the prediction are weighted (the deviation with divisor N, not
    N − 1 as in the MIT code); all fixations have the same weight. The prediction may hold any real
    values; an offset and a positive factor change nothing.
    Constant prediction: 0. No fixation: NaN.
    """
    check_maps(signed=("pred",), pred=pred, fixations=fixations)
    share = area_shares(weights, pred)
    pred = deviation(pred, share)
    spread = variance(pred, share).sqrt().squeeze((-2, -1))
    at_fixations = (pred * fixations).sum((-2, -1)) / fixations.sum((-2, -1), dtype=torch.float64)
    return torch.where((spread > 0) | at_fixations.isnan(), at_fixations / spread, 0.0)


def auc_judd(pred: Tensor, fixations: Tensor, weights: Tensor | None = None) -> Tensor:
    """Area under the ROC curve of fixations against the area without fixations, in [0, 1].

    This is the exact area over all thresholds: the probability that the prediction is larger at a
    fixation than at a point elsewhere, where a tie counts half (Mann-Whitney). It depends only on
    the order of the values, which may be any real numbers.
    The original (Judd et al., ICCV 2009; MIT code) integrates trapezoids between thresholds at the
    n fixations only, which adds up to 1/(2n), breaks ties by noise, and counts a pixel with two
    fixations once; here it counts twice.
    Constant prediction: 0.5. No fixation, or no area without fixations: NaN.
    """
    check_maps(signed=("pred",), pred=pred, fixations=fixations)
    elsewhere = area_shares(weights, pred) * (fixations == 0)
    return area_under_roc(pred, fixations, elsewhere)


def sauc(pred: Tensor, fixations: Tensor, others: Tensor, weights: Tensor | None = None) -> Tensor:
    """Shuffled AUC: fixations against fixations of other clips, which share its biases, in [0, 1].

    The probability that the prediction is larger at a fixation than at one of `others`, where a
    tie counts half. A prediction of only a general bias, such as that towards the equator, gets
    about 0.5 (Tatler et al., Vision Research 2005; Zhang et al., Journal of Vision 2008).
    All other fixations count, repeated places included, as in Kümmerer et al., ECCV 2018. The MIT
    code draws equally many of them 100 times and uses thresholds in steps of 0.1.

    others: counts, broadcast to (..., H, W).
    weights: ignored, as each fixation counts once; accepted so that all metrics have one signature.
    Constant prediction: 0.5. No fixation, or none in `others`: NaN.
    """
    others = broadcast("others", others, pred.shape)
    check_maps(signed=("pred",), pred=pred, fixations=fixations, others=others)
    return area_under_roc(pred, fixations, others)


def information_gain(
    pred: Tensor, fixations: Tensor, prior: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Information gain over a prior in bits a fixation: mean of log₂((p̂ + ε) / (b̂ + ε)) over them.

    p̂ and b̂ are the densities of prediction and prior in units of their means, ε = 2.2204e-16
    (Kümmerer et al., PNAS 2015; ε as in Bylinskii et al. 2019). Maps should be densities of
    fixations: a map on another scale can be worse than the prior and still rank places well, and a
    fixation where a map is zero costs up to 52 bits.

    prior: density of fixations without knowing the frame, broadcast to (..., H, W).
    Constant prediction: by the formula. No fixation, or an all-zero prior: NaN. ValueError for
    negative values.
    """
    prior = broadcast("prior", prior, pred.shape)
    check_maps(pred=pred, fixations=fixations, prior=prior)
    share = area_shares(weights, pred)
    p, b = relative_density(pred, share, 1.0), relative_density(prior, share, math.nan)
    bits = (p + EPSILON).log2() - (b + EPSILON).log2()
    return (bits * fixations).sum((-2, -1)) / fixations.sum((-2, -1), dtype=torch.float64)


@dataclass(frozen=True)
class Metric:
    """A metric function(pred, *truths, weights=…) and the names of its ground truths."""

    title: str
    function: Callable[..., Tensor]
    needs: tuple[str, ...]
    higher_is_better: bool = True

    def problem(self) -> str:
        """Return the problem of a user-defined metric, "" if nothing."""
        truths = sorted({need for metric in METRICS.values() for need in metric.needs})
        if self.needs and {*self.needs} <= {*truths}:
            return ""
        return f"needs {self.needs}; give it some of {', '.join(truths)}"


CC = Metric("CC", cc, ("target",))
SIM = Metric("SIM", sim, ("target",))
KLD = Metric("KLD", kld, ("target",), higher_is_better=False)
NSS = Metric("NSS", nss, ("fixations",))
AUC_JUDD = Metric("AUC-Judd", auc_judd, ("fixations",))
SAUC = Metric("sAUC", sauc, ("fixations", "others"))
INFORMATION_GAIN = Metric("IG", information_gain, ("fixations", "prior"))


def check_maps(signed: tuple[str, ...] = (), **maps: Tensor) -> None:
    """Raise ValueError unless all maps have one shape (..., H, W) and finite values.

    Maps that are not listed in `signed` must not be negative.
    """
    shapes = [tuple(tensor.shape) for tensor in maps.values()]
    if len(set(shapes)) > 1:
        raise ValueError(" and ".join(map("{} {}".format, maps, shapes)) + " differ")
    if len(shapes[0]) < 2 or 0 in shapes[0][-2:]:
        raise ValueError(f"expected maps (..., H, W) with pixels, got {shapes[0]}")
    for name, tensor in maps.items():
        low, high = tensor.amin((-2, -1)), tensor.amax((-2, -1))  # NaN where a map holds one
        if not (low.isfinite() & high.isfinite()).all():
            raise ValueError(f"{name} is not finite everywhere")
        if name not in signed and (low < 0).any():
            raise ValueError(f"{name} holds negative values; densities and counts have none")


def broadcast(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    try:
        return tensor.expand(shape)
    except RuntimeError as error:
        shapes = f"{tuple(tensor.shape)} can't be broadcast to {tuple(shape)}"
        raise ValueError(f"{name} {shapes}") from error


def area_shares(weights: Tensor | None, maps: Tensor) -> Tensor:
    """Return the share of each pixel in the area: float64, broadcasts to `maps`, sums to 1."""
    weights = torch.ones(1, 1) if weights is None else weights
    weights = weights.to(maps.device, torch.float64)
    total = broadcast("weights", weights, maps.shape).sum((-2, -1), keepdim=True)
    if not ((weights >= 0).all() and (total > 0).all() and total.isfinite().all()):
        raise ValueError("weights must be finite, not negative and not all zero")
    return weights / total


def mean(maps: Tensor, share: Tensor) -> Tensor:
    """Return the mean over the area of each map: (..., H, W) → (..., 1, 1) float64."""
    if share.shape[-1] == 1:  # sum over each row first, to avoid a product of full size
        maps = maps.sum(-1, keepdim=True, dtype=torch.float64)
    return (maps * share).sum((-2, -1), keepdim=True)


def deviation(maps: Tensor, share: Tensor) -> Tensor:
    """Return the deviation from the mean in units of the largest magnitude, to avoid overflow."""
    largest = maps.double().abs().amax((-2, -1), keepdim=True)
    maps = maps / torch.where(largest > 0, largest, 1.0)
    return maps - mean(maps, share)


def variance(deviations: Tensor, share: Tensor) -> Tensor:
    """Return the mean square of a `deviation`, exactly 0 for a constant map: (..., 1, 1)."""
    square = mean(deviations.square(), share)
    return torch.where(square > ROUNDING**2, square, 0.0)


def relative_density(maps: Tensor, share: Tensor, if_empty: float) -> Tensor:
    """Return the map in units of its mean density, `if_empty` for an all-zero map: float64."""
    average = mean(maps, share)
    empty = average == 0
    return torch.where(empty, if_empty, maps).div(torch.where(empty, 1.0, average))


def area_under_roc(pred: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the Mann-Whitney statistic of each map; all (..., H, W), the last two are weights."""
    pred = pred.to(torch.promote_types(pred.dtype, torch.float32)).contiguous()
    flat = (maps.reshape(-1, pred.shape[-2:].numel()) for maps in (pred, positives, negatives))
    areas = [mann_whitney(*one) for one in zip(*flat, strict=True)]
    return torch.tensor(areas, dtype=torch.float64, device=pred.device).reshape(pred.shape[:-2])


def mann_whitney(values: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return the share of pairs (positive, negative) won by the positive; a tie counts half.

    All (N,); positive and negative are weights of the values. NaN without a pair.
    """
    at = positive.nonzero().squeeze(-1)  # only the values of the positives are sorted
    value, group = values[at].unique(return_inverse=True)
    count = F.pad(torch.bincount(group, positive[at].double(), len(value)), (0, 1))
    at_least = count.flip(0).cumsum(0).flip(0)  # positives from the k-th value up
    nearest = torch.searchsorted(value, values)  # index of the smallest value that is not below
    tied = F.pad(value, (0, 1)).take(nearest) == values
    won = at_least.take(nearest) - tied * count.take(nearest) / 2
    return (negative * won).sum() / (at_least[0] * negative.sum())
