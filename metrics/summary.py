"""Scores of frames → scores of clips → means with confidence intervals, and what they say."""

import math
from collections.abc import Iterable

import numpy as np

FLOORS, HUMAN = ("uniform", "equator prior", "training mean"), "human"
RESAMPLES = 10_000
# That all of n clips agree is chance in 2 of 2ⁿ cases: with five clips more often than in 5 %.
FEW_CLIPS = 5


def mean_of_finite(values: Iterable[float]) -> float:
    """Of the values that are finite; NaN where there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return float(sum(finite) / len(finite)) if finite else math.nan


def over_clips(values: Iterable[float], seed: int = 0) -> dict[str, float | int]:
    """Mean over clips with its 95 % percentile bootstrap interval (Efron 1979), clips redrawn.

    values: one score a clip, NaN where it has none.
    Returns: mean, low, high, and the number of clips with a score. The interval of a single
    clip is NaN: nothing is known of how others would score.
    """
    values = np.array([value for value in values if math.isfinite(value)])
    low = high = math.nan
    if len(values) > 1:
        drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
        low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5]).tolist()
    return {"mean": mean_of_finite(values), "low": low, "high": high, "clips": len(values)}


class Comparison:
    """One metric of the results: content of metrics.json, whose first predictor is the model.

    sign: 1 where higher is better, −1 where lower is.
    floor: the best of the floors, None without one.
    clips: (name, score of the model, score of the floor), worst first.
    """

    def __init__(self, key: str, results: dict):
        self.key, self.title = key, results["metrics"][key]["title"]
        self.sign = 1 if results["metrics"][key]["higher_is_better"] else -1
        self.scores = {name: s.get(key) or {} for name, s in results["predictors"].items()}
        self.against = results.get("against_floor", {}).get(key)
        self.model = next(iter(self.scores))
        self.floor = self.best(name for name in FLOORS if name != self.model)
        self.total, rows = len(results["clips"]), []
        for clip, content in results["clips"].items():
            both = (content["scores"].get(name, {}) for name in (self.model, self.floor))
            rows.append((clip, *(finite(scores.get(key)) for scores in both)))
        self.clips = sorted((r for r in rows if r[1] is not None), key=lambda r: self.sign * r[1])

    @property
    def heading(self) -> str:
        return f"{self.title} {'↑' if self.sign > 0 else '↓'}"

    def mean(self, predictor: str | None) -> float | None:
        return finite(self.scores.get(predictor, {}).get("mean"))

    def best(self, predictors: Iterable[str]) -> str | None:
        scored = [name for name in predictors if self.mean(name) is not None]
        return max(scored, key=lambda name: self.sign * self.mean(name), default=None)

    def interval(self, predictor: str) -> tuple[float, float] | None:
        """None for a single clip, too: nothing says how another one would have scored."""
        score = self.scores[predictor]
        low, high = finite(score.get("low")), finite(score.get("high"))
        return None if None in (low, high) or score.get("clips", 0) < 2 else (low, high)

    def differences(self) -> list[float]:
        """Score of the model less that of the floor, of each clip that has both."""
        return [mine - floor for _, mine, floor in self.clips if floor is not None]

    def verdict(self) -> tuple[str, str]:
        """beats, ahead, behind or unscored; and the same in a sentence or two.

        It beats the best floor if the interval of the paired difference is on its side of zero.
        """
        if self.mean(self.model) is None:
            return "unscored", "not scored."
        if not self.against or finite(self.against["difference"]) is None:
            return "unscored", "no floor to compare it with."
        gain, clips = self.sign * self.against["difference"], self.against["clips"]
        direction = self.sign if gain > 0 else -self.sign
        ends = (finite(self.against[end]) or 0.0 for end in ("low", "high"))
        low, high = sorted(direction * end for end in ends)
        sure = low > 0 and clips > FEW_CLIPS
        kind, claim = ("beats", "beats") if sure else ("ahead", "is ahead of")
        if gain <= 0:
            kind, claim = "behind", "is behind"
        by = f", by {number(abs(gain))}"
        if number(gain) == number(0):
            kind, claim, by, sure = "behind", "scores the same as", "", True
        text = f"{self.model} {claim} the best floor, {self.floor}{by}"
        if clips > 1:
            text += f" ({number(low)} to {number(high)})"
        if clips == 1:
            text += "; one clip tells nothing of others"
        elif clips <= FEW_CLIPS:
            text += f"; {clips} clips tell little of others"
        elif not sure:
            text += ", which may be chance"
        wins = [self.sign * difference > 0 for difference in self.differences()]
        return kind, f"{text}." + f" Better on {sum(wins)} of {len(wins)} clips." * (clips > 1)


def against_floor(results: dict) -> dict[str, dict]:
    """Metric → the model less the best floor: a paired bootstrap, the same clips of both redrawn.

    Returns: floor, its name; difference, the mean over clips; low and high, of its 95 % interval;
    clips. Metrics without a floor are left out.
    """
    found = {}
    for metric in (Comparison(key, results) for key in results["metrics"]):
        if differences := metric.differences():
            score = over_clips(differences)
            found[metric.key] = {"floor": metric.floor, "difference": score.pop("mean"), **score}
    return found


def table(results: dict) -> str:
    """Predictors × metrics as text: means, and their intervals below; none of a single clip."""
    metrics = [Comparison(key, results) for key in results["metrics"]]
    rows = [["", *(metric.heading for metric in metrics)]]
    for name in results["predictors"]:
        rows.append([name, *(number(metric.mean(name)) for metric in metrics)])
        intervals = [metric.interval(name) or () for metric in metrics]
        if any(intervals):
            rows.append(["", *("–".join(map(short, interval)) for interval in intervals)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        (f"{name:{widths[0]}}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths[1:]))).rstrip()
        for name, *cells in rows
    )


def verdicts(results: dict) -> str:
    """One line a metric: whether the model beats the best floor; and what brackets mean."""
    metrics = [Comparison(key, results) for key in results["metrics"]]
    lines = [f"{metric.title}: {metric.verdict()[1]}" for metric in metrics]
    return "\n".join(filter(None, [*lines, in_brackets(metrics)]))


def in_brackets(metrics: list[Comparison]) -> str:
    """What verdicts have in brackets, if they do."""
    some = any(metric.against and metric.against["clips"] > 1 for metric in metrics)
    return "In brackets: 95\u00a0% interval of the mean difference over clips." * some


def finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None


def number(x: float | None, decimals: int = 3) -> str:
    text = "–" if finite(x) is None else f"{x:.{decimals}f}".replace("-", "−")
    return text.lstrip("−") if text.strip("−0.") == "" else text


def short(x: float) -> str:
    """In three digits, so that an interval fits in a narrow column: .411, 1.23, 12.3."""
    text = number(x, 3 if abs(x) < 1 else 2 if abs(x) < 10 else 1)
    return text.replace("0.", ".", 1) if abs(x) < 1 else text
