"""Means over clips with confidence intervals, and how a model compares with the baselines."""

import math
from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np

from common.errors import counted
from metrics import METRICS
from metrics.inter_observer import mean_of_finite

BASELINES, HUMAN = ("uniform", "equator prior", "training mean"), "human"
RESAMPLES = 10_000
EXACT = 16  # most clips for which all choices of signs are counted, 65,536
SIGNIFICANT = 0.05
CLAIMS = {"beats": "beats", "ahead": "is ahead of", "behind": "is behind", "beaten": "is beaten by"}


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
    """Return p-values corrected for their number (Holm 1979), NaN where they are NaN."""
    corrected, largest = list(p_values), 0.0
    order = sorted(
        (k for k, p in enumerate(p_values) if math.isfinite(p)), key=p_values.__getitem__
    )
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[k]))
        corrected[k] = largest
    return corrected


def summarise_clips(clips: dict[str, dict]) -> dict[str, dict]:
    """Return the entries "metrics", "predictors" and "clips" of metrics.json.

    clips: name → {"frames": count, "scores": predictor → metric → mean over the frames}.
    Metrics without a score are left out of the first two.
    """
    by_clip = [content["scores"] for content in clips.values()]
    predictors: dict[str, dict] = {name: {} for scores in by_clip for name in scores}
    metrics = {}
    for key, metric in METRICS.items():
        columns = [[scores.get(n, {}).get(key, math.nan) for scores in by_clip] for n in predictors]
        if np.isfinite(columns).any():
            metrics[key] = {"title": metric.title, "higher_is_better": metric.higher_is_better}
            for scores, column in zip(predictors.values(), columns):
                scores[key] = over_clips(column)
    return {"metrics": metrics, "predictors": predictors, "clips": clips}


class Comparison:
    """The scores of one metric: a model against the best baseline or another model.

    key: name of the metric. results: content of metrics.json, with NaN for absent scores.
    model: the first predictor if None. other: another model; the best baseline if None.

    sign: 1 where higher is better, −1 where lower is.
    baseline: what the model is compared with, None where no baseline has a score.
    clips: (name, score of the model, score of the baseline or NaN), worst first.
    difference: that of the model's score less the baseline's, as `over_clips` returns it.
    p: that of `sign_flip`; `comparisons` corrects it for their number.
    """

    def __init__(self, key: str, results: dict, model: str | None = None, other: str | None = None):
        self.key, self.title = key, results["metrics"][key]["title"]
        self.sign = 1 if results["metrics"][key]["higher_is_better"] else -1
        self.heading = f"{self.title} {'↑' if self.sign > 0 else '↓'}"
        self.scores = {name: scores[key] for name, scores in results["predictors"].items()}
        self.model, self.other = model or next(iter(self.scores)), other
        self.baseline = other or self.best(name for name in BASELINES if name != self.model)
        self.clips = []
        for clip, content in results["clips"].items():
            both = (content["scores"].get(name, {}) for name in (self.model, self.baseline))
            score, baseline = (scores.get(key, math.nan) for scores in both)
            if math.isfinite(score):
                self.clips.append((clip, score, baseline))
        self.clips.sort(key=lambda clip: self.sign * clip[1])
        differences = [score - baseline for _, score, baseline in self.clips]
        self.difference, self.p = over_clips(differences), sign_flip(differences)
        self.wins = sum(self.sign * difference > 0 for difference in differences)

    def best(self, predictors: Iterable[str]) -> str | None:
        """Return the predictor with the best mean, None where none has a score."""
        scored = [name for name in predictors if self.scores.get(name, {}).get("clips")]
        return max(scored, key=lambda name: self.sign * self.scores[name]["mean"], default=None)

    def verdict(self) -> tuple[str, str]:
        """Return a key of CLAIMS or "unscored", and a sentence that states it.

        The model beats the other, or the best baseline, if it is better on average and p is below
        SIGNIFICANT. Likewise another model beats it.
        """
        clips, mean = self.difference["clips"], self.difference["mean"]
        if not clips:
            return "unscored", "there is no baseline to compare with."
        direction = -1 if mean < 0 else 1  # the sentence states the size of the difference
        low, high = sorted(direction * self.difference[end] for end in ("low", "high"))
        kind = "ahead" if self.sign * mean > 0 else "behind"
        shown = self.p < SIGNIFICANT and round(abs(mean), 3) > 0
        if shown and (kind == "ahead" or self.other):
            kind = {"ahead": "beats", "behind": "beaten"}[kind]
        by = number(abs(mean))
        if clips > 1:
            by += f" ({number(low)} to {number(high)}, p = {number(self.p)})"
        baseline = self.other or f"the best baseline {self.baseline}"
        better = f"better on {self.wins} of {clips} clips"
        end = "" if shown or clips == 1 else "; no difference can be shown"
        return kind, f"{self.model} {CLAIMS[kind]} {baseline} by {by}, {better}{end}."


def comparisons(results: dict) -> list[Comparison]:
    """Return, metric by metric, every model against the best baseline, then every pair of models.

    results["models"] names the models. The p-values are corrected for the number of comparisons.
    """
    models = results["models"]
    pairs = [*((model, None) for model in models), *combinations(models, 2)]
    found = [Comparison(key, results, *pair) for key in results["metrics"] for pair in pairs]
    for comparison, p in zip(found, holm([comparison.p for comparison in found]), strict=True):
        comparison.p = p
    return found


def differences(results: dict) -> list[dict]:
    """Return the comparisons for metrics.json, those without a score left out.

    difference: mean over clips of the model's score less that of other, a baseline or model. low,
    high: its 95 % interval by a paired bootstrap. p: see `comparisons`.
    """
    entries = []
    for comparison in comparisons(results):
        names = comparison.key, comparison.model, comparison.baseline
        values = *comparison.difference.values(), comparison.p
        keys = "metric", "model", "other", "difference", "low", "high", "clips", "p"
        entries.append(dict(zip(keys, (*names, *values), strict=True)))
    return [entry for entry in entries if entry["clips"]]


def table(results: dict) -> str:
    """Return predictors × metrics as text: means, and below them their intervals if there are."""
    metrics = [Comparison(key, results) for key in results["metrics"]]
    rows = [["", *(metric.heading for metric in metrics)]]
    for name in results["predictors"]:
        scores = [metric.scores[name] for metric in metrics]
        rows.append([name, *(number(score["mean"]) for score in scores)])
        intervals = [interval(score, "–") for score in scores]
        if any(intervals):
            rows.append(["", *intervals])
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[name.ljust(first), *map(str.rjust, row, widths)] for name, *row in rows]
    return "\n".join("  ".join(line).rstrip() for line in cells)


def verdicts(results: dict) -> str:
    """Return a line for each comparison: how models compare with baselines and each other."""
    lines = [f"{metric.title}: {metric.verdict()[1]}" for metric in comparisons(results)]
    if len(results["clips"]) > 1:
        lines.append("In brackets: 95\u00a0% interval of the mean difference over clips, and p of "
            f"paired sign flips, corrected for {len(lines)} comparisons (Holm).")  # fmt: skip
    return "\n".join(lines)


def sentences(results: dict) -> list[str]:
    """Return at most five sentences: models beside baselines, each other and observers."""
    models, metrics = list(results["models"]), [Comparison(m, results) for m in results["metrics"]]
    first = metrics[0]
    means = {name: score["mean"] for name, score in first.scores.items()}

    kinds = {(c.key, c.model, c.other): c.verdict()[0] for c in comparisons(results)}
    turned = {"beats": "beaten", "beaten": "beats"}
    kinds |= {(m, b, a): turned.get(kind, kind) for (m, a, b), kind in kinds.items() if b}

    def better(what: str, others: Callable[[str], list]) -> str:
        """Return in how many metrics each model beats all of its others; None: the baselines."""
        counts = []
        for model in models:
            against = [{kinds[m.key, model, other] for other in others(model)} for m in metrics]
            count = against.count({"beats"})
            counts.append(f"{model} in {count}")
        return f"Better than {what}, of {len(metrics)} metrics: {', '.join(counts)}."

    size = f"{counted(len(results['clips']), 'clip')}, {counted(results['frames'], 'scored frame')}"
    ranked = sorted(models, key=lambda name: -first.sign * means[name])
    lines = [f"{first.title} ({size}): {', '.join(f'{n} {number(means[n])}' for n in ranked)}."]
    if any(metric.baseline for metric in metrics):
        lines.append(better("the best baseline", lambda model: [None]))
    if len(models) > 1:
        lines.append(better("every other model", lambda model: [o for o in models if o != model]))
    if math.isfinite(means.get(HUMAN, math.nan)):
        lines.append(f"Observers predict each other with {number(means[HUMAN])} in {first.title}.")
    lines.append(f"Better: p < {SIGNIFICANT} of paired sign flips over clips, corrected for "
        "all comparisons (Holm).")  # fmt: skip
    return lines


def number(x: float) -> str:
    """Return a score as text with a real minus sign, or a dash for NaN."""
    return f"{round(x, 3) + 0:.3f}".replace("-", "−") if math.isfinite(x) else "–"


def interval(score: dict, between: str) -> str:
    """Return the ends of a score's interval as text, nothing where it has none."""
    ends = score["low"], score["high"]
    return between.join(map(number, ends)) if all(map(math.isfinite, ends)) else ""
