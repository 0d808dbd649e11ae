"""Plots of the evaluation report, drawn by matplotlib without its global state."""

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from evaluation.summary import HUMAN, Comparison, number

BINS = 200  # points of a curve over time, at most
ROWS = 100  # clips in a plot by clip, at most
BETTER, WORSE, DARK = "#0067b1", "#c2500f", "0.2"
# Names of files are no formulas, even if they hold dollar signs.
STYLE: dict = {
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 10,
    "lines.markersize": 2,
}
STYLE |= {"axes.grid": True, "axes.axisbelow": True, "grid.color": "0.9"}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


@dataclass(frozen=True)
class Picture:
    """One frame to look at.

    frame: (H, W, 3) uint8 RGB. truth, prediction: (H, W) saliency maps; all of any size.
    fixations: (N, 2) longitude and latitude in radians, or None.
    """

    title: str
    frame: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    fixations: np.ndarray | None = None


@matplotlib.rc_context(STYLE)
def time_plot(metric: Comparison, series: dict) -> Figure | None:
    """Draw each clip's score over time, and medians over clips of model, best baseline and human.

    series: clip → frame number → predictor → metric → value.
    """
    x, curves = over_time(series, metric.model, metric.key)
    if not np.isfinite(curves).any():
        return None
    figure = Figure(figsize=(5.6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, curves.T, ".-", color=BETTER, lw=0.5, alpha=0.3)
    styles = {HUMAN: (DARK, ":"), metric.baseline: (DARK, "--"), metric.model: (BETTER, "-")}
    for name, (colour, line) in styles.items():
        curves = over_time(series, name, metric.key)[1]
        known = 2 * np.isfinite(curves).sum(0) >= len(curves)
        if known.any():
            median = np.nanmedian(curves[:, known], axis=0)
            axes.plot(x[known], median, f"o{line}", color=colour, lw=2, label=short(name or ""))
    axes.set(title=metric.heading, xlabel="frame number")
    figure.legend(loc="outside lower left", ncols=3, fontsize=8)
    return figure


@matplotlib.rc_context(STYLE)
def clip_plot(metric: Comparison) -> Figure | None:
    """Draw the score of the model (dot) and the best baseline (tick) by clip, the worst first."""
    if not metric.clips:
        return None
    names = [name for name, *_ in metric.clips[:ROWS]]
    model, baseline = np.array([scores for _, *scores in metric.clips[:ROWS]]).T
    rows = range(len(names))
    colours = np.where(metric.sign * (model - baseline) <= 0, WORSE, BETTER)
    figure = Figure(figsize=(5.6, 0.7 + 0.18 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.hlines(rows, model, baseline, colours, lw=1.5)
    axes.scatter(baseline, rows, 40, DARK, marker="|")
    axes.scatter(model, rows, 25, colours)
    for row, score in zip(rows, model):
        axes.text(1.01, row, number(score), va="center", transform=axes.get_yaxis_transform())
    axes.set_yticks(rows, map(short, names))
    axes.set(title=metric.heading, ylim=(len(rows) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    return figure


@matplotlib.rc_context(STYLE)
def picture_plot(picture: Picture) -> Figure:
    """Draw the frame with its fixations, the ground truth and the prediction side by side."""
    figure = Figure(figsize=(12, 2.3), layout="constrained")
    panels = figure.subplots(1, 3)
    images = picture.frame, picture.truth, picture.prediction
    for axes, name, image in zip(panels, ("frame", "ground truth", "prediction"), images):
        axes.imshow(image, "inferno", vmin=0, extent=(-180, 180, -90, 90), interpolation="bilinear")
        axes.set(title=name, autoscale_on=False)
        axes.set_axis_off()
    if picture.fixations is not None:
        places = np.degrees(picture.fixations).T
        panels[0].scatter(*places, 14, "white", edgecolors="black", linewidths=0.7)
    return figure


def over_time(series: dict, predictor: str | None, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of each clip over time, as means over at most BINS stretches of frames.

    series: clip → frame number → predictor → metric → value.
    Returns: the middles of the stretches, (n,) frame numbers; and the means, (clips, n), NaN where
    a stretch has no score.
    """
    every = np.concatenate([list(frames) for frames in series.values()])
    most = max(len(frames) for frames in series.values())
    edges = np.linspace(every.min() - 0.5, every.max() + 0.5, min(BINS, most) + 1)
    means = []
    for frames in series.values():
        numbers = np.array(list(frames))
        values = np.array([s.get(predictor, {}).get(metric, np.nan) for s in frames.values()])
        scored = np.isfinite(values)
        counts, _ = np.histogram(numbers[scored], edges)
        sums, _ = np.histogram(numbers[scored], edges, weights=values[scored])
        means.append(np.where(counts > 0, sums / counts.clip(1), np.nan))
    return (edges[1:] + edges[:-1]) / 2, np.stack(means)


def short(name: str) -> str:
    """Return a name in at most 20 characters, with ? for what is no UTF-8."""
    name = name.encode(errors="replace").decode()
    return name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"
