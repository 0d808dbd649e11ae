"""Means over clips with confidence intervals, and how models compare with the baselines.

`results` is everywhere the content of metrics.json, with NaN for absent scores.
"""

import math
from collections.abc import Iterable
from itertools import combinations

import numpy as np

from common.errors import printable
from metrics import METRICS
from metrics.inter_observer import mean_of_finite

BASELINES, INTER_OBSERVER = ("uniform", "equator prior", "training mean"), "inter-observer"
RESAMPLES = 10_000
EXACT = 16  # most clips for which all choices of signs are counted, 65,536
DRAWS = 2**EXACT  # random choices of signs of more clips
SIGNIFICANT = 0.05
MIN_CLIPS = 6  # of which a difference can be significant: 2 of 2⁶ choices of signs are 0.031


def over_clips(values: Iterable[float], seed: int = 0) -> dict[str, float | int]:
    """Return mean, low and high (95 % percentile bootstrap, Efron 1979) and number of clips.

    values: one score of each clip, NaN where it has none. A single clip has no interval, NaN.
    """
    values = np.array([value for value in values if math.isfinite(value)])
    low = high = math.nan
    if len(values) > 1:
        drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
        low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5]).tolist()
    return {"mean": mean_of_finite(values), "low": low, "high": high, "clips": len(values)}


def max_t(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the p-values of mean paired differences, two-sided, corrected for their number.

    Signs of clips are flipped jointly for all comparisons (Fisher 1935), and step by step the
    largest |sum| / √(sum of squares) of the comparisons left is compared with each one's (Westfall
    and Young 1993). All choices of signs are counted, of more than EXACT clips DRAWS random ones.
    differences: (clips, comparisons), NaN where a clip has none. Returns (comparisons,) in (0, 1].
    """
    values = np.nan_to_num(differences)
    values = values / np.maximum(np.sqrt((values**2).sum(0)), np.finfo(float).tiny)
    clips = len(values)
    if clips <= EXACT:
        bits = np.arange(2**clips)[:, None] >> np.arange(clips) & 1
    else:
        bits = np.random.default_rng(seed).integers(2, size=(DRAWS, clips), dtype=np.int8)
        bits[0] = 0  # the signs as they are
    statistics = np.abs((1.0 - 2.0 * bits) @ values)
    order = np.argsort(statistics[0], kind="stable")
    largest = np.maximum.accumulate(statistics[:, order], axis=1)  # of a comparison and lower ones
    shares = (largest >= statistics[0, order] - 1e-12).mean(0)
    return np.maximum.accumulate(shares[::-1])[::-1][np.argsort(order)]


def by_clip(clips: dict[str, dict], metric: str, predictor: str | None) -> np.ndarray:
    """Return the score of each clip, (clips,), NaN where it has none. clips: of metrics.json."""
    scores = [clip["scores"].get(predictor, {}) for clip in clips.values()]
    return np.array([score.get(metric, math.nan) for score in scores])


def summarise_clips(clips: dict[str, dict]) -> dict[str, dict]:
    """Return "metrics" and "predictors", as far as there are scores, and "clips" of metrics.json.

    clips: name → {"frames": count, "scores": predictor → metric → mean over the frames}.
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
    out. better: clips on which the model is better. p: that of `max_t` over those of the metric.
    """
    entries: list[dict] = []
    clips = results["clips"]
    for metric in results["metrics"]:
        baseline = best(results, metric, BASELINES)
        pairs = [(model, baseline) for model in results["models"]]
        compared: dict[tuple, np.ndarray] = {}
        for model, other in [*pairs, *combinations(results["models"], 2)]:
            gains = by_clip(clips, metric, model) - by_clip(clips, metric, other)
            if np.isfinite(gains).any():
                compared[model, other] = gains
        p_values = max_t(np.stack([*compared.values()], axis=1)) if compared else ()
        for ((model, other), gains), p in zip(compared.items(), p_values):
            gain, better = over_clips(gains), int((sign(results, metric) * gains > 0).sum())
            entry = {"metric": metric, "model": model, "other": other}
            entry |= {"difference": gain.pop("mean"), **gain, "better": better, "p": float(p)}
            entries.append(entry)
    return entries


def verdicts(results: dict) -> list[str]:
    """Return the differences of models as text: lines for one model, matrices for several."""
    lines, models = [], list(results["models"])
    entries: dict[tuple, tuple] = {
        (e["metric"], e["model"], e["other"]): (e, 1) for e in results["differences"]
    }
    entries |= {(metric, b, a): (entry, -1) for (metric, a, b), (entry, _) in entries.items()}
    for metric in dict.fromkeys(metric for metric, *_ in entries):
        baseline = best(results, metric, BASELINES)
        others = [name for name in (baseline, *models) if name]
        rows = [[heading(results, metric), *(f"− {printable(name)}" for name in others)]]
        for model in models:
            pairs = [entries.get((metric, model, other), (None, 1)) for other in others]
            rows.append([printable(model), *(cell(*pair) for pair in pairs)])
        if len(models) == 1:
            entry, _ = entries[metric, models[0], others[0]]
            ends = f" ({interval(entry, ' to ')}), p = {number(entry['p'])}" * (entry["clips"] > 1)
            better = f"better on {entry['better']} of {entry['clips']} clips"
            lines.append(f"{rows[0][0]}  {models[0]} {rows[0][1]}: {rows[1][1]}{ends}, {better}")
        else:
            lines += [*columns(rows), ""]
    if not lines or len(results["clips"]) == 1:
        return lines
    if (clips := len(results["clips"])) < MIN_CLIPS:
        lines.append(f"{clips} clips are too few to show any difference; {MIN_CLIPS} are enough.")
    else:
        lines.append(f"Mean differences over clips; *: p < {SIGNIFICANT} of sign flips, corrected "
            "for the comparisons of the metric (max-T).")  # fmt: skip
    return lines


def cell(entry: dict | None, direction: int) -> str:
    """Return a difference as text, with a star if it is significant."""
    if not entry:
        return "–"
    difference = direction * entry["difference"]
    return f"{'+' if difference > 0 else ''}{number(difference)}{'*' * significant(entry)}"


def columns(rows: list[list[str]]) -> list[str]:
    """Return rows of cells as lines, the first column to the left, the others to the right."""
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[name.ljust(first), *map(str.rjust, row, widths)] for name, *row in rows]
    return ["  ".join(line).rstrip() for line in cells]


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
