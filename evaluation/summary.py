"""Means over clips with confidence intervals, and how models compare with the baselines.

`results` is everywhere the content of metrics.json, with NaN for absent scores.
"""

import math
from collections.abc import Iterable
from itertools import combinations

import numpy as np

from metrics import METRICS
from metrics.inter_observer import mean_of_finite

BASELINES, INTER_OBSERVER = ("uniform", "equator prior", "training mean"), "inter-observer"
RESAMPLES = 10_000
EXACT = 16  # most clips for which all choices of signs are counted, 65,536
SIGNIFICANT = 0.05
CLAIMS = {  # by whether a difference is significant, and whether the model is the better one
    (True, True): "beats",
    (True, False): "is beaten by",
    (False, True): "is ahead of",
    (False, False): "is behind",
}


def over_clips(values: Iterable[float], seed: int = 0) -> dict[str, float | int]:
    """Return the mean over clips with its 95 % percentile bootstrap interval (Efron 1979).

    values: one score of each clip, NaN where it has none.
    Returns: mean, low, high (NaN for a single clip), and the number of clips with a score.
    """
    values = np.array([value for value in values if math.isfinite(value)])
    low = high = math.nan
    if len(values) > 1:
        drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
        low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5]).tolist()
    return {"mean": mean_of_finite(values), "low": low, "high": high, "clips": len(values)}


def sign_flip(differences: Iterable[float], seed: int = 0) -> float:
    """Return the p-value of a mean of paired differences, two-sided (Fisher 1935).

    It is the share of all choices of signs for which the mean is at least as far from zero; of
    more than EXACT differences, of RESAMPLES random choices. NaN differences are left out; NaN
    for none.
    """
    values = np.array([value for value in differences if math.isfinite(value)])
    if not len(values):
        return math.nan
    if len(values) <= EXACT:
        bits = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
    else:
        bits = np.random.default_rng(seed).integers(2, size=(RESAMPLES, len(values)))
        bits[0] = 0  # the signs as they are
    sums = np.abs((1 - 2 * bits) @ values)
    return float((sums >= sums[0] - 1e-12 * np.abs(values).sum()).mean())


def holm(p_values: list[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979)."""
    corrected, largest = list(p_values), 0.0
    for rank, k in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[k]))
        corrected[k] = largest
    return corrected


def by_clip(clips: dict[str, dict], metric: str, predictor: str | None) -> np.ndarray:
    """Return the score of each clip, (clips,), NaN where it has none. clips: of metrics.json."""
    scores = [clip["scores"].get(predictor, {}) for clip in clips.values()]
    return np.array([score.get(metric, math.nan) for score in scores])


def summarise_clips(clips: dict[str, dict]) -> dict[str, dict]:
    """Return the entries "metrics", "predictors" and "clips" of metrics.json.

    clips: name → {"frames": count, "scores": predictor → metric → mean over the frames}.
    Metrics without a score are left out of the first two.
    """
    metrics: dict[str, dict] = {}
    predictors: dict[str, dict] = {name: {} for clip in clips.values() for name in clip["scores"]}
    for key, metric in METRICS.items():
        columns = {name: by_clip(clips, key, name) for name in predictors}
        if any(np.isfinite(column).any() for column in columns.values()):
            metrics[key] = {"title": metric.title, "higher_is_better": metric.higher_is_better}
            for name, column in columns.items():
                predictors[name][key] = over_clips(column)
    return {"metrics": metrics, "predictors": predictors, "clips": clips}


def sign(results: dict, metric: str) -> int:
    """Return 1 for a metric of which higher is better, else −1."""
    return 1 if results["metrics"][metric]["higher_is_better"] else -1


def heading(results: dict, metric: str) -> str:
    return f"{results['metrics'][metric]['title']} {'↑' if sign(results, metric) > 0 else '↓'}"


def best(results: dict, metric: str, names: Iterable[str]) -> str | None:
    """Return the predictor with the best mean, None where none of them has a score."""
    scores = {name: results["predictors"].get(name, {}).get(metric) for name in names}
    means = {name: score["mean"] for name, score in scores.items() if score and score["clips"]}
    return max(means, key=lambda name: sign(results, metric) * means[name], default=None)


def worst_first(results: dict, metric: str) -> dict[str, dict]:
    """Return the clips in which the first model has a score, sorted by it."""
    clips, model = results["clips"], next(iter(results["models"]))
    scores = dict(zip(clips, sign(results, metric) * by_clip(clips, metric, model)))
    scored = [clip for clip in clips if math.isfinite(scores[clip])]
    return {clip: clips[clip] for clip in sorted(scored, key=scores.__getitem__)}


def differences(results: dict) -> list[dict]:
    """Return, metric by metric, every model against the best baseline, and every pair of models.

    difference: mean over clips of the model's score less that of other. low, high: its 95 %
    interval by a paired bootstrap. clips: those with both scores; a comparison without any is left
    out. better: clips on which the model is better. p: that of `sign_flip`, corrected for the
    number of comparisons.
    """
    entries: list[dict] = []
    clips = results["clips"]
    for metric in results["metrics"]:
        baseline = best(results, metric, BASELINES)
        pairs = [(model, baseline) for model in results["models"]]
        for model, other in [*pairs, *combinations(results["models"], 2)]:
            gains = by_clip(clips, metric, model) - by_clip(clips, metric, other)
            gain = over_clips(gains)
            if gain["clips"]:
                entry = {"metric": metric, "model": model, "other": other}
                entry |= {"difference": gain.pop("mean"), **gain}
                entry["better"] = int((sign(results, metric) * gains > 0).sum())
                entries.append(entry | {"p": sign_flip(gains)})
    for entry, p in zip(entries, holm([entry["p"] for entry in entries])):
        entry["p"] = p
    return entries


def verdicts(results: dict) -> list[str]:
    """Return a sentence for each of the differences, and how to read them.

    A model beats another, or the best baseline, if it is better on average and p is below
    SIGNIFICANT.
    """
    lines = []
    for entry in results["differences"]:
        metric, model, mean, clips = (entry[k] for k in ("metric", "model", "difference", "clips"))
        other = "the best baseline " * (entry["other"] in BASELINES) + entry["other"]
        claim = CLAIMS[significant(entry), sign(results, metric) * mean > 0]
        by = number(abs(mean))
        if clips > 1:
            low, high = sorted(math.copysign(1, mean) * entry[end] for end in ("low", "high"))
            by += f" ({number(low)} to {number(high)}, p = {number(entry['p'])})"
        end = "" if significant(entry) or clips == 1 else "; no difference can be shown"
        lines.append(f"{results['metrics'][metric]['title']}: {model} {claim} {other} by {by}, "
            f"better on {entry['better']} of {clips} clips{end}.")  # fmt: skip
    if lines and len(results["clips"]) > 1:
        lines.append("In brackets: 95\u00a0% interval of the mean difference over clips, and p of "
            f"paired sign flips, corrected for {len(lines)} comparisons (Holm).")  # fmt: skip
    return lines


def significant(entry: dict) -> bool:
    """Return whether a difference is shown, and not smaller than what is printed."""
    return entry["p"] < SIGNIFICANT and round(abs(entry["difference"]), 3) > 0


def number(x: float) -> str:
    """Return a score as text with a real minus sign, or a dash for NaN."""
    return f"{round(x, 3) + 0:.3f}".replace("-", "−") if math.isfinite(x) else "–"


def interval(score: dict, between: str) -> str:
    """Return the ends of a score's interval as text, nothing where it has none."""
    ends = score["low"], score["high"]
    return between.join(map(number, ends)) if all(map(math.isfinite, ends)) else ""
