"""Plots of the evaluation report, drawn by matplotlib without its global state."""

import math
from dataclasses import dataclass
from itertools import cycle, islice

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from evaluation.summary import BASELINES, INTER_OBSERVER, best, by_clip, heading, worst_first

ROWS = 100  # largest number of clips in a plot by clip
COLOURS = "#0067b1", "#c2500f", "#00846b", "#8a4b9e", "#a07800", "#c33c7d"  # of the models
DARK = "0.2"
STYLE: dict = {
    "text.parse_math": False,  # file names are not formulas, even with dollar signs
    **{"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "lines.markersize": 2},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": "0.9"},
    **{"axes.spines.top": False, "axes.spines.right": False},
}


@dataclass(frozen=True)
class Picture:
    """One frame, (H, W, 3) uint8 RGB, with its saliency maps, (H, W), of any sizes.

    predictions: by model name. fixations: (N, 2) longitude and latitude in radians.
    """

    title: str
    frame: np.ndarray
    truth: np.ndarray
    predictions: dict[str, np.ndarray]
    fixations: np.ndarray | None = None


@matplotlib.rc_context(STYLE)
def time_plot(results: dict, metric: str, series: dict) -> Figure:
    """Plot medians over clips against time: each model, the best baseline, inter-observer."""
    figure = Figure(figsize=(5.6, 3), layout="constrained")
    axes = figure.subplots()
    styles = {INTER_OBSERVER: (DARK, ":"), best(results, metric, BASELINES): (DARK, "--")}
    styles |= {model: (colour, "-") for model, colour in zip(results["models"], cycle(COLOURS))}
    for name, (colour, line) in styles.items():
        x, curves = over_time(series, name, metric)
        scored = 2 * np.isfinite(curves).sum(0) >= len(curves)
        if scored.any():
            median, label = np.nanmedian(curves[:, scored], axis=0), short(name or "", 60)
            axes.plot(x[scored], median, f"o{line}", color=colour, lw=2, label=label)
    axes.set(title=heading(results, metric), xlabel="frame number")
    figure.legend(loc="upper left", bbox_to_anchor=(0, 0), fontsize=8)  # below all of the figure
    return figure


@matplotlib.rc_context(STYLE)
def clip_plot(results: dict, metric: str) -> Figure:
    """Draw models (dots) and the best baseline (tick) by clip, the worst clip at the top."""
    clips = dict(islice(worst_first(results, metric).items(), ROWS))
    figure = Figure(figsize=(5.6, 1 + 0.18 * len(clips)), layout="constrained")
    axes = figure.subplots()
    rows, baseline = range(len(clips)), best(results, metric, BASELINES)
    ticks = by_clip(clips, metric, baseline)
    axes.scatter(ticks, rows, 40, DARK, marker="|", label=short(baseline or "", 60))
    for model, colour in zip(results["models"], cycle(COLOURS)):
        axes.scatter(by_clip(clips, metric, model), rows, 25, colour, label=short(model, 60))
    axes.set_yticks(rows, map(short, clips))
    axes.set(title=heading(results, metric), ylim=(len(rows) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    figure.legend(loc="upper left", bbox_to_anchor=(0, 0), fontsize=8)  # below all of the figure
    return figure


@matplotlib.rc_context(STYLE)
def picture_plot(picture: Picture) -> Figure:
    """Draw the frame with its fixations, the ground truth and all predictions side by side."""
    images = {"frame": picture.frame, "ground truth": picture.truth}
    shown = [*images.items(), *picture.predictions.items()]
    rows = math.ceil(len(shown) / 5)
    columns = max(3, math.ceil(len(shown) / rows))
    figure = Figure(figsize=(12, rows * (0.3 + 6 / columns)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, (name, image) in zip(panels, shown):
        axes.imshow(image, "inferno", vmin=0, extent=(-180, 180, -90, 90), interpolation="bilinear")
        axes.set(title=short(name), autoscale_on=False)
    if picture.fixations is not None:
        places = np.degrees(picture.fixations).T
        panels[0].scatter(*places, 14, "white", edgecolors="black", linewidths=0.7)
    return figure


def over_time(series: dict, predictor: str | None, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a predictor's frame numbers (n,) and scores (clips, n), NaN for none."""
    clips = [scores.get(predictor, {}).get(metric, {}) for scores in series.values()]
    numbers = np.unique([number for curve in clips for number in curve])
    return numbers, np.array([[curve.get(n, np.nan) for n in numbers] for curve in clips])


def short(name: str, most: int = 20) -> str:
    """Return a name shortened to `most` characters, with ? for characters that are not UTF-8."""
    name, half = name.encode(errors="replace").decode(), most // 2
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"
