"""Means over clips with confidence intervals, and how a model compares with the baselines."""

import math
from collections.abc import Iterable

import numpy as np

BASELINES, HUMAN = ("uniform", "equator prior", "training mean"), "human"
RESAMPLES = 10_000
# All of n clips agree by chance in 2 of 2ⁿ cases: for five clips in more than 5 % of them.
FEW_CLIPS = 5


def mean_of_finite(values: Iterable[float]) -> float:
    """Return the mean of the finite values, NaN where there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return float(sum(finite) / len(finite)) if finite else math.nan


def over_clips(values: Iterable[float], seed: int = 0) -> dict[str, float | int]:
    """Return the mean over clips with its 95 % percentile bootstrap interval (Efron 1979).

    values: one score of each clip, NaN where it has none. The clips are redrawn.
    Returns: mean, low, high, and the number of clips with a score. The interval of a single clip
    is NaN, because one clip does not show how much others would differ.
    """
    values = np.array([value for value in values if math.isfinite(value)])
    low = high = math.nan
    if len(values) > 1:
        drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
        low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5]).tolist()
    return {"mean": mean_of_finite(values), "low": low, "high": high, "clips": len(values)}


class Comparison:
    """The scores of one metric: the model, which is the first predictor, against the baselines.

    key: name of the metric. results: content of metrics.json, with NaN for absent scores.

    sign: 1 where higher is better, −1 where lower is.
    baseline: the best of the baselines on this metric, None where none has a score.
    clips: (name, score of the model, score of the baseline or NaN), worst first.
    difference: mean, interval and number of clips of the model's score less the baseline's.
    """

    def __init__(self, key: str, results: dict):
        self.key, self.title = key, results["metrics"][key]["title"]
        self.sign = 1 if results["metrics"][key]["higher_is_better"] else -1
        self.heading = f"{self.title} {'↑' if self.sign > 0 else '↓'}"
        self.scores = {name: scores[key] for name, scores in results["predictors"].items()}
        self.model = next(iter(self.scores))
        self.baseline = self.best(name for name in BASELINES if name != self.model)
        rows = []
        for clip, content in results["clips"].items():
            both = (content["scores"].get(name, {}) for name in (self.model, self.baseline))
            rows.append((clip, *(scores.get(key, math.nan) for scores in both)))
        scored = (row for row in rows if math.isfinite(row[1]))
        self.clips = sorted(scored, key=lambda row: self.sign * row[1])
        differences = [model - baseline for _, model, baseline in self.clips]
        self.difference = over_clips(differences)
        self.wins = sum(self.sign * difference > 0 for difference in differences)

    def best(self, predictors: Iterable[str]) -> str | None:
        """Return the predictor with the best mean, None where none has a score."""
        names = set(predictors)
        scored = {n: s["mean"] for n, s in self.scores.items() if n in names}
        scored = {name: mean for name, mean in scored.items() if math.isfinite(mean)}
        return max(scored, key=lambda name: self.sign * scored[name], default=None)

    def verdict(self) -> tuple[str, str]:
        """Return "beats", "ahead", "same", "behind" or "unscored", and a sentence that states it.

        The model beats the best baseline if it is better and the interval of the paired
        difference excludes zero.
        """
        clips, difference = self.difference["clips"], self.difference["mean"]
        if not clips:
            return "unscored", "there is no baseline to compare with."
        kind, claim = ("ahead", "is ahead of")
        if number(difference) == number(0):
            kind, claim = "same", "scores the same as"
        elif self.sign * difference < 0:
            kind, claim = "behind", "is behind"
        direction = -1 if difference < 0 else 1
        low, high = sorted(direction * self.difference[end] for end in ("low", "high"))
        if kind == "ahead" and low > 0 and clips > FEW_CLIPS:
            kind, claim = "beats", "beats"
        text = f"{self.model} {claim} the best baseline, {self.baseline}"
        if clips == 1:
            return kind, f"{text}, by {number(abs(difference))}; one clip does not generalise."
        text += f", by {number(abs(difference))} ({number(low)} to {number(high)})"
        if clips <= FEW_CLIPS:
            text += f"; {clips} clips are too few to generalise"
        elif low <= 0 and kind != "same":
            text += ", which may be chance"
        return kind, f"{text}. Better on {self.wins} of {clips} clips."


def against_baseline(results: dict) -> dict[str, dict]:
    """Return, by metric, the model's score less that of the best baseline in the same clips.

    Returns: floor, the name of the baseline; difference, the mean over clips; low and high, its
    95 % interval by a paired bootstrap; clips. Metrics without a baseline are left out.
    """
    found = {}
    for metric in (Comparison(key, results) for key in results["metrics"]):
        if metric.difference["clips"]:
            score = dict(metric.difference)
            found[metric.key] = {"floor": metric.baseline, "difference": score.pop("mean"), **score}
    return found


def table(results: dict) -> str:
    """Return predictors × metrics as text: means, and below them their intervals if there are."""
    metrics = [Comparison(key, results) for key in results["metrics"]]
    rows = [["", *(metric.heading for metric in metrics)]]
    for name in results["predictors"]:
        scores = [metric.scores[name] for metric in metrics]
        rows.append([name, *(number(score["mean"]) for score in scores)])
        if any(math.isfinite(score["low"]) for score in scores):
            rows.append(["", *(interval(score, "–", short) for score in scores)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        (f"{name:{widths[0]}}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths[1:]))).rstrip()
        for name, *cells in rows
    )


def verdicts(results: dict) -> str:
    """Return one line for each metric: how the model compares with the best baseline."""
    metrics = [Comparison(key, results) for key in results["metrics"]]
    lines = [f"{metric.title}: {metric.verdict()[1]}" for metric in metrics]
    if any(metric.difference["clips"] > 1 for metric in metrics):
        lines.append("In brackets: 95\u00a0% interval of the mean difference over clips.")
    return "\n".join(lines)


def number(x: float, decimals: int = 3) -> str:
    """Return a score as text, with a real minus sign, or a dash for NaN."""
    text = f"{x:.{decimals}f}".replace("-", "−") if math.isfinite(x) else "–"
    return text.lstrip("−") if text.strip("−0.") == "" else text


def short(x: float) -> str:
    """Return a score in three digits, so that an interval fits a narrow column: .411, 1.23."""
    text = number(x, 3 if abs(x) < 1 else 2 if abs(x) < 10 else 1)
    return text.replace("0.", ".", 1) if abs(x) < 1 else text


def interval(score: dict, between: str, form=number) -> str:
    """Return the ends of a score's interval as text, nothing where it has none."""
    ends = score["low"], score["high"]
    return between.join(map(form, ends)) if all(map(math.isfinite, ends)) else ""
