"""Plots of the evaluation report, drawn by matplotlib without its global state."""

import base64
import io
import warnings
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from metrics.summary import HUMAN, Comparison, number

UNITS = {"kld": "nats, ", "nss": "standard deviations, "}
BINS = 200  # points of a curve over time, at most
LINES = 4  # clips with a curve each; for more clips, their median and spread are drawn
ROWS = 100  # clips in a plot by clip, at most
BETTER, WORSE, DARK = "#0067b1", "#c2500f", "0.2"
# Names of files are no formulas, even if they hold dollar signs.
STYLE = {"text.parse_math": False, "font.size": 9, "axes.titlesize": 10, "lines.markersize": 2}
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
    """Draw the scores of model, best baseline and observers over time, as means over stretches.

    series: clip → {"numbers": frame numbers, "scores": predictor → metric → value of each frame}.
    """
    x, curves = over_time(series, metric.model, metric.key)
    if not curves:
        return None
    figure = Figure(figsize=(5.6, 3), layout="constrained")
    axes = figure.subplots()
    if len(curves) <= LINES:
        for clip, curve in curves.items():
            axes.plot(x, curve, ".-", label=printable(clip))
    else:
        low, middle, high = percentiles(curves, [10, 50, 90])
        axes.plot(x, middle, ".-", color=BETTER, label=printable(metric.model))
        axes.fill_between(x, low, high, color=BETTER, alpha=0.2, label="10th to 90th percentile")
    for name, line in (metric.baseline, "--"), (HUMAN, ":"):
        if others := over_time(series, name, metric.key)[1]:
            (middle,) = percentiles(others, [50])
            known = np.isfinite(middle)
            axes.plot(x[known], middle[known], line, color=DARK, label=name)
    axes.set(title=heading(metric), xlabel="frame number")
    figure.legend(loc="outside lower left", ncols=3, fontsize=8)
    return figure


@matplotlib.rc_context(STYLE)
def clip_plot(metric: Comparison) -> Figure | None:
    """Draw the score of the model (dot) and the best baseline (tick) by clip, the worst first."""
    if not metric.clips:
        return None
    names, model, baseline = zip(*metric.clips[:ROWS])
    model, baseline, rows = np.array(model), np.array(baseline), np.arange(len(names))
    colours = np.where(metric.sign * (model - baseline) <= 0, WORSE, BETTER)
    figure = Figure(figsize=(5.6, 0.7 + 0.18 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.hlines(rows, model, baseline, colours, lw=1.5)
    axes.scatter(baseline, rows, 40, DARK, marker="|")
    axes.scatter(model, rows, 25, colours)
    for row, score in zip(rows, model):
        axes.text(1.01, row, number(score), va="center", transform=axes.get_yaxis_transform())
    axes.set_yticks(rows, map(printable, names))
    axes.set(title=heading(metric), ylim=(len(rows) - 0.5, -0.5))
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


def data_url(figure: Figure) -> str:
    """Return the figure as a PNG file in a data: URL."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font does not have
        figure.savefig(file, format="png", dpi=120)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def over_time(series: dict, predictor: str | None, metric: str) -> tuple[np.ndarray, dict]:
    """Return frame numbers (n,), and by clip the means (n,) over stretches, NaN in gaps.

    No stretch is shorter than the frame step of the slowest clip, so none falls between frames.
    """
    every = np.concatenate([content["numbers"] for content in series.values()])
    steps = (np.diff(content["numbers"]) for content in series.values())
    step = max((np.median(diff) for diff in steps if diff.size), default=1)
    width = max(step, (np.ptp(every) + 1) / BINS)
    n = int(np.ptp(every) // width) + 1
    curves = {}
    for clip, content in series.items():
        values = np.array(content["scores"].get(predictor, {}).get(metric, []), float)
        if np.isfinite(values).any():
            stretch = ((np.array(content["numbers"]) - every.min()) // width).astype(int)
            known = [values[(stretch == k) & np.isfinite(values)] for k in range(n)]
            curves[clip] = np.array([part.mean() if part.size else np.nan for part in known])
    return every.min() + (width - step) / 2 + width * np.arange(n), curves


def percentiles(curves: dict[str, np.ndarray], q: list[float]) -> np.ndarray:
    """Return percentiles over clips, (len(q), n), NaN where fewer than half have a value."""
    stack = np.stack(list(curves.values()))
    enough = 2 * np.isfinite(stack).sum(0) >= len(stack)
    out = np.full((len(q), stack.shape[1]), np.nan)
    out[:, enough] = np.nanpercentile(stack[:, enough], q, axis=0)
    return out


def heading(metric: Comparison) -> str:
    better = "higher" if metric.sign > 0 else "lower"
    return f"{metric.title} ({UNITS.get(metric.key, '')}{better} is better)"


def printable(name: str) -> str:
    """Return a name in at most 20 characters, without bytes that are no text."""
    name = name.encode("utf-8", "replace").decode()
    return name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"
