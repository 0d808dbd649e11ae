"""Plots of the evaluation report, drawn by matplotlib without its global state."""

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from evaluation.summary import HUMAN, Comparison, number

ROWS = 100  # clips in a plot by clip, at most
BETTER, WORSE, DARK = "#0067b1", "#c2500f", "0.2"
STYLE: dict = {
    "text.parse_math": False,  # names of files are no formulas, even if they hold dollar signs
    **{"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "lines.markersize": 2},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": "0.9"},
    **{"axes.spines.top": False, "axes.spines.right": False},
}


@dataclass(frozen=True)
class Picture:
    """One frame, (H, W, 3) uint8 RGB, with its saliency maps, (H, W); all of any size.

    fixations: (N, 2) longitude and latitude in radians, or None.
    """

    title: str
    frame: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    fixations: np.ndarray | None = None


@matplotlib.rc_context(STYLE)
def time_plot(metric: Comparison, series: dict) -> Figure:
    """Draw each clip's score over time, and medians over clips of model, best baseline and human.

    series: clip → frame number → predictor → metric → value.
    """
    x, curves = over_time(series, metric.model, metric.key)
    figure = Figure(figsize=(5.6, 3), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        scored = np.isfinite(curve)
        axes.plot(x[scored], curve[scored], ".-", color=BETTER, lw=0.5, alpha=0.3)
    styles = {HUMAN: (DARK, ":"), metric.baseline: (DARK, "--"), metric.model: (BETTER, "-")}
    for name, (colour, line) in styles.items():
        _, curves = over_time(series, name, metric.key)
        scored = 2 * np.isfinite(curves).sum(0) >= len(curves)
        if scored.any():
            median = np.nanmedian(curves[:, scored], axis=0)
            axes.plot(x[scored], median, f"o{line}", color=colour, lw=2, label=short(name or ""))
    axes.set(title=metric.heading, xlabel="frame number")
    figure.legend(loc="outside lower left", ncols=3, fontsize=8)
    return figure


@matplotlib.rc_context(STYLE)
def clip_plot(metric: Comparison) -> Figure:
    """Draw the score of the model (dot) and the best baseline (tick) by clip, the worst first."""
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
    """Return the frame numbers of all clips, (n,), and the scores there, (clips, n), NaN for none.

    series: clip → frame number → predictor → metric → value.
    """
    numbers = np.unique([number for frames in series.values() for number in frames])
    curves = np.full((len(series), len(numbers)), np.nan)
    for curve, frames in zip(curves, series.values()):
        values = [scores.get(predictor, {}).get(metric, np.nan) for scores in frames.values()]
        curve[np.searchsorted(numbers, list(frames))] = values
    return numbers, curves


def short(name: str) -> str:
    """Return a name in at most 20 characters, with ? for what is no UTF-8."""
    name = name.encode(errors="replace").decode()
    return name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"
