"""How well a predicted saliency map says where people looked: CC, SIM, KLD, NSS, AUC.

Definitions: Bylinskii et al., "What do different evaluation metrics tell us about saliency
models?", PAMI 2019; the metrics below say where they differ from its code (the MIT benchmark's).

pred, target: (..., H, W) densities, any scale: value per area, not mass per pixel.
fixations: (..., H, W) counts, of the pixels that the fixations fall in.
weights: areas, broadcast to (..., H, W), e.g. `projection.solid_angles(H, W, torch.float64)` of
    shape (H, 1); any scale. Zero leaves a pixel out of means and negatives, not a fixation in
    it. None: planar, every pixel counts the same.
Returns: (...) float64, computed in float64.

In every metric
    a constant prediction is a legitimate one, and an all-zero one counts as constant;
    a truth that can't be scored gives NaN: the caller counts and leaves it out (nanmean);
    ValueError where shapes differ, maps are not finite, counts or weights are negative.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 2.0**-52  # 2.2204e-16, Matlab's eps, as in the MIT benchmark
ROUNDING = 1e-12  # of a map's largest magnitude: with a smaller deviation it counts as constant


def cc(pred: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Pearson's correlation coefficient with weighted mean, variance and covariance: [−1, 1].

    Both maps may hold any real values: an offset and a positive factor change nothing.
    Constant prediction: 0. Constant truth, all-zero included: NaN.
    """
    check_maps(pred=pred, target=target)
    share = area_shares(weights, pred)
    pred, target = deviation(pred, share), deviation(target, share)
    pred_variance, target_variance = variance(pred, share), variance(target, share)
    value = mean_product(pred, target, share) / (pred_variance * target_variance).sqrt()
    value = torch.where(pred_variance > 0, value, 0.0)
    return torch.where(target_variance > 0, value, math.nan).squeeze((-2, -1))


def sim(pred: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Histogram intersection Σ min(p, q) of the masses of prediction and truth: [0, 1].

    The masses are p = pred·w / Σ pred·w; unlike in the MIT code, no minimum is subtracted before.
    Constant prediction: by the formula. All-zero truth: NaN. ValueError for negative values.
    """
    check_maps(pred=pred, target=target)
    check_not_negative(pred=pred, target=target)
    share = area_shares(weights, pred)
    p, q = relative_density(pred, share), relative_density(target, share)
    value = mean(torch.minimum(p, q, out=p), share)
    return torch.where(mean(target, share) > 0, value, math.nan).squeeze((-2, -1))


def kld(pred: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the truth from the prediction in nats, 0 where they agree.

    Σ q ln(q̂ / (p̂ + ε) + ε) with the truth's masses q, and densities p̂ and q̂ in units of the
    map's mean density. So ε = 2.2204e-16 is a density and the value does not depend on the
    resolution. The MIT code adds ε to masses of N pixels; this is the same with ε/N there, and
    differs only as far as the prediction is almost zero where the truth is not: a mass of m
    there costs m·ln N more here.
    Constant prediction: by the formula. All-zero truth: NaN. ValueError for negative values.
    """
    check_maps(pred=pred, target=target)
    check_not_negative(pred=pred, target=target)
    share = area_shares(weights, pred)
    p, q = relative_density(pred, share), relative_density(target, share)
    ratio = torch.div(q, p.add_(EPSILON), out=p)
    value = mean(ratio.add_(EPSILON).log_().mul_(q), share)
    return torch.where(mean(target, share) > 0, value, math.nan).squeeze((-2, -1))


def nss(pred: Tensor, fixations: Tensor, weights: Tensor | None = None) -> Tensor:
    """Normalized scanpath saliency: mean over fixations of the standardized prediction.

    Mean and standard deviation of the prediction are weighted (the deviation divided by N, not
    N − 1 as in the MIT code); a fixation counts the same wherever it is. The prediction may
    hold any real values: an offset and a positive factor change nothing.
    Constant prediction: 0. No fixation: NaN.
    """
    check_maps(pred=pred, fixations=fixations)
    check_not_negative(fixations=fixations)
    share = area_shares(weights, pred)
    pred = deviation(pred, share)
    spread = variance(pred, share).sqrt().squeeze((-2, -1))
    at_fixations = (pred * fixations).sum((-2, -1)) / fixations.sum((-2, -1), dtype=torch.float64)
    return torch.where((spread > 0) | at_fixations.isnan(), at_fixations / spread, 0.0)


def auc_judd(pred: Tensor, fixations: Tensor, weights: Tensor | None = None) -> Tensor:
    """Area under the ROC curve, fixations against the area without a fixation: [0, 1].

    The exact area over all thresholds: the chance that the prediction is larger at a fixation
    than at a point elsewhere, a tie counting half (Mann-Whitney). Depends on the order of the
    values alone, which may be any real ones.
    The original (Judd et al., ICCV 2009; MIT code) draws trapezoids through thresholds at the n
    fixations only, which adds up to 1/(2n), breaks ties by noise, and counts a pixel fixated
    twice once; here it counts twice.
    Constant prediction: 0.5. No fixation, or no area without: NaN.
    """
    check_maps(pred=pred, fixations=fixations)
    check_not_negative(fixations=fixations)
    elsewhere = area_shares(weights, pred) * (fixations == 0)
    return area_under_roc(pred, fixations, elsewhere)


def sauc(pred: Tensor, fixations: Tensor, others: Tensor, weights: Tensor | None = None) -> Tensor:
    """Shuffled AUC: fixations against those of other clips, which share its biases: [0, 1].

    The chance that the prediction is larger at a fixation than at one of `others`, a tie
    counting half. So a prediction of nothing but where people look anyway, such as the equator,
    gets about 0.5. (Tatler et al., Vision Research 2005; Zhang et al., Journal of Vision 2008.)
    With all the other fixations, repeated places included, as Kümmerer et al., ECCV 2018; the
    MIT code draws as many as there are fixations 100 times and steps the threshold by 0.1.

    others: counts, broadcast to (..., H, W).
    weights: for the same call as the other metrics; changes nothing, a fixation counts one.
    Constant prediction: 0.5. No fixation, or none in `others`: NaN.
    """
    others = broadcast(others, "others", pred.shape)
    check_maps(pred=pred, fixations=fixations, others=others)
    check_not_negative(fixations=fixations, others=others)
    return area_under_roc(pred, fixations, others)


@dataclass(frozen=True)
class Metric:
    """function(pred, *truths, weights=…), and the names of the truths: its own arguments."""

    function: Callable[..., Tensor]
    needs: tuple[str, ...]
    higher_is_better: bool


METRICS = {
    "cc": Metric(cc, ("target",), True),
    "sim": Metric(sim, ("target",), True),
    "kld": Metric(kld, ("target",), False),
    "nss": Metric(nss, ("fixations",), True),
    "auc_judd": Metric(auc_judd, ("fixations",), True),
    "sauc": Metric(sauc, ("fixations", "others"), True),
}


def check_maps(**maps: Tensor) -> None:
    """Raises ValueError unless all have one shape (..., H, W) and are finite."""
    shapes = [tuple(tensor.shape) for tensor in maps.values()]
    if len(set(shapes)) > 1:
        raise ValueError(" and ".join(map("{} {}".format, maps, shapes)) + " differ")
    if len(shapes[0]) < 2 or 0 in shapes[0][-2:]:
        raise ValueError(f"expected maps (..., H, W) with pixels, got {shapes[0]}")
    for name, tensor in maps.items():
        if not all(extreme.isfinite().all() for extreme in extremes(tensor)):
            raise ValueError(f"{name} is not finite everywhere")


def check_not_negative(**maps: Tensor) -> None:
    for name, tensor in maps.items():
        if (extremes(tensor)[0] < 0).any():
            raise ValueError(f"{name} holds negative values, which are no densities or counts")


def extremes(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each map, (..., 1, 1); NaN where it holds one."""
    return maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)


def broadcast(tensor: Tensor, name: str, shape: torch.Size) -> Tensor:
    try:
        return tensor.expand(shape)
    except RuntimeError as error:
        shapes = f"{tuple(tensor.shape)} can't be broadcast to {tuple(shape)}"
        raise ValueError(f"{name} {shapes}") from error


def area_shares(weights: Tensor | None, maps: Tensor) -> Tensor:
    """Each pixel's share of the area: float64, broadcasts to `maps`, sums over an image to 1."""
    height, width = maps.shape[-2:]
    if weights is None:
        return torch.full((1, 1), 1 / (height * width), dtype=torch.float64, device=maps.device)
    weights = weights.to(maps.device, torch.float64)
    broadcast(weights, "weights", maps.shape)
    weights = weights.expand(torch.broadcast_shapes(weights.shape, (height, 1)))
    total = weights.sum((-2, -1), keepdim=True) * (width // weights.shape[-1])
    if not (weights >= 0).all() or not (total > 0).all() or not total.isfinite().all():
        raise ValueError("weights must be areas: finite, not negative, not all zero")
    return weights / total


def mean(maps: Tensor, share: Tensor) -> Tensor:
    """Over the area of each map, in float64: (..., H, W) → (..., 1, 1)."""
    if share.shape[-1] == 1:  # one weight a row: no product of the size of the maps
        maps = maps.sum(-1, keepdim=True, dtype=torch.float64)
    return (maps * share).sum((-2, -1), keepdim=True)


def mean_product(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Of two float64 maps, without one more of their size where there is one weight a row."""
    if share.shape[-1] > 1:
        return mean(a * b, share)
    return (torch.linalg.vecdot(a, b).unsqueeze(-1) * share).sum((-2, -1), keepdim=True)


def deviation(maps: Tensor, share: Tensor) -> Tensor:
    """From the mean, in units of the largest magnitude: float64.

    With that unit no square over- or underflows.
    """
    low, high = (extreme.double() for extreme in extremes(maps))
    largest = torch.maximum(-low, high)
    maps = maps / torch.where(largest > 0, largest, 1.0)
    return maps.sub_(mean(maps, share))


def variance(deviations: Tensor, share: Tensor) -> Tensor:
    """Of what `deviation` returned: (..., H, W) → (..., 1, 1); exactly 0 for a constant map."""
    square = mean_product(deviations, deviations, share)
    return torch.where(square > ROUNDING**2, square, 0.0)


def relative_density(maps: Tensor, share: Tensor) -> Tensor:
    """In units of the map's mean density: float64; an empty map becomes a uniform one."""
    average = mean(maps, share)
    empty = (average == 0).double()
    return (maps + empty).div_(average + empty)


def area_under_roc(pred: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Mann-Whitney statistic of each map: all (..., H, W), the last two weigh its pixels."""
    if pred.dtype not in (torch.float32, torch.float64):
        pred = pred.double()
    pred = pred.contiguous()
    areas = torch.empty(pred.shape[:-2], dtype=torch.float64, device=pred.device)
    shape = areas.numel(), pred.shape[-2] * pred.shape[-1]
    flat = (maps.reshape(shape) for maps in (pred, positives, negatives))
    for i, (values, positive, negative) in enumerate(zip(*flat, strict=True)):
        areas.view(-1)[i] = mann_whitney(values, positive, negative)
    return areas


def mann_whitney(values: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Share of the pairs (positive, negative) with the larger value at the positive; ties half.

    Only the positives' values are sorted, into `edges`: each value and the next larger number,
    so that a pixel which ties with a positive falls between the two.

    values, positive, negative: (N,), the last two weights ≥ 0. Returns: scalar, NaN if no pair.
    """
    at = positive.nonzero().squeeze(-1)
    value, group = values[at].unique(return_inverse=True)
    count = torch.bincount(group, positive[at].double(), len(value))
    larger = F.pad(count.flip(0).cumsum(0).flip(0), (0, 1))  # positives from the j-th value up
    halfway = (larger[:-1] + larger[1:]) / 2
    won = F.pad(torch.stack([larger[:-1], halfway], -1).flatten(), (0, 1))
    edges = torch.stack([value, value.nextafter(torch.full_like(value, math.inf))], -1).flatten()
    won = won.take(torch.searchsorted(edges, values, right=True))
    return (negative * won).sum() / (larger[0] * negative.sum())
