"""The drawings of the report: scores over time and by clip, as SVG."""

import math
from collections.abc import Callable, Iterable
from html import escape

import numpy as np

from metrics.summary import HUMAN, Comparison, number

UNITS = {"kld": "nats, ", "nss": "standard deviations, "}
WIDTH = 480  # of a plot
LEFT, RIGHT, TOP, BOTTOM = 46, 470, 8, 190  # its axes
ROW, FROM, TO = 18, 140, 425  # a list of clips: height of a row, ends of the scale
BINS, LINES = 200, 4  # over time, at most; with more clips than LINES, only their spread is drawn


def ticks(low: float, high: float, most: int, least: float) -> dict[float, str]:
    """Multiples of 1, 2 or 5 · 10ⁿ ≥ least that enclose a range, two to most + 1 → as text."""
    rough = max((high - low) / (most - 1), least) * (1 - 1e-9)
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(ten * k for k in (1, 2, 5, 10) if ten * k >= rough)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return {k * step: number(k * step, decimals) for k in range(first, last + 1)}


def scale(values: Iterable[float], start: float, end: float) -> Callable:
    """The linear map that takes the least of the values to start, the largest to end."""
    low, high = min(values), max(values)
    return lambda x: start + (x - low) / (high - low) * (end - start)


def over_time(series: dict, predictor: str | None, metric: str) -> tuple[np.ndarray, dict]:
    """Means over at most BINS stretches of frame numbers, NaN in gaps: x (n,), clip → (n,)."""
    every = np.concatenate([content["numbers"] for content in series.values()]).astype(float)
    steps = (np.diff(content["numbers"]) for content in series.values())
    step = max((np.median(diff) for diff in steps if diff.size), default=1)
    first, span = every.min(), np.ptp(every) + step
    n = min(BINS, int(span / step))  # no stretch falls between two frames of the slowest clip

    def means(numbers, values):
        good = np.isfinite(values := np.array(values, float))
        index = ((np.array(numbers, float)[good] - first) * n / span).astype(int)
        total, of = np.bincount(index, values[good], n), np.bincount(index, None, n)
        return np.divide(total, of, out=np.full(n, np.nan), where=of > 0)

    curves = {}
    for clip, content in series.items():
        values = content["scores"].get(predictor, {}).get(metric)
        curve = means(content["numbers"], values) if values else np.array(np.nan)
        if np.isfinite(curve).any():
            curves[clip] = curve
    return means(every, every), curves


def percentiles(curves: dict[str, np.ndarray], *q: float) -> np.ndarray:
    """Over clips, NaN where less than half of them have a value: (len(q), n)."""
    stack = np.stack(list(curves.values()))
    enough = 2 * np.isfinite(stack).sum(0) >= len(stack)
    out = np.full((len(q), stack.shape[1]), np.nan)
    out[:, enough] = np.nanpercentile(stack[:, enough], q, axis=0)
    return out


def drawn(style: str, x: np.ndarray, *ys: np.ndarray) -> str:
    """One y: a line, broken where it is NaN, a dot where it stands alone. Two: a band."""
    d, there = "", np.flatnonzero(np.isfinite(ys[0]))
    for run in np.split(there, np.flatnonzero(np.diff(there) > 1) + 1):
        points = [(x[i], y[i]) for y, way in zip(ys, (run, run[::-1])) for i in way]
        d += "M" + "h0L".join(f"{a:.1f} {b:.1f}" for a, b in points) + "h0" if points else ""
    return f'<path class="{style}" d="{d}"/>'


def time_plot(metric: Comparison, series: dict) -> str:
    """The model over time, a line for each clip or their spread, with best floor and ceiling."""
    x, curves = over_time(series, metric.model, metric.key)
    lines, band = [(f"c{i}", *item) for i, item in enumerate(curves.items())], []
    if len(curves) > LINES:
        middle, *band = percentiles(curves, 50, 10, 90)
        lines = [("c0", f"{metric.model}: median and 10th to 90th percentile", middle)]
    for style, name in ("floor", metric.floor), ("human", HUMAN):
        if others := over_time(series, name, metric.key)[1]:
            name += ": median" * (len(others) > 1)
            lines.append((style, name, *percentiles(others, 50)))
    shown = np.array([*(line for *_, line in lines), *band])
    if not curves or not np.isfinite(shown).any():
        return ""
    levels = ticks(np.nanmin(shown), np.nanmax(shown), 5, 0.01)
    times = x[np.isfinite(shown).any(0)]
    ends = times[0], max(times[-1], times[0] + 1)
    across, down = scale(ends, LEFT, RIGHT), scale(levels, BOTTOM, TOP)
    svg = key = ""
    for level, text in levels.items():
        svg += f'<path d="M{LEFT} {down(level):.1f}H{RIGHT}"/><text class="end" x="{LEFT - 6}" '
        svg += f'y="{down(level) + 4:.1f}">{text}</text>'
    for time, text in ticks(*ends, 7, 1).items():
        if ends[0] <= time <= ends[1]:
            svg += f'<text class="middle" x="{across(time):.1f}" y="{BOTTOM + 17}">{text}</text>'
    svg += f'<text class="middle" x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 35}">frame number</text>'
    svg += drawn("band", across(x), *map(down, band)) if len(band) else ""
    for style, name, line in lines:
        svg += drawn(style, across(x), down(line))
        key += '<span><svg viewBox="0 0 24 8" aria-hidden="true">'
        key += f'<path class="{style}" d="M2 4H22"/></svg>{escape(name)}</span>'
    return figure(metric, "over time", BOTTOM + 40, svg, key)


def clip_plot(metric: Comparison) -> str:
    """A row for each clip, the worst first: model (dot), best floor (tick), value."""
    scores = [score for _, *both in metric.clips for score in both if score is not None]
    if not scores:
        return ""
    levels, bottom = ticks(min(scores), max(scores), 5, 0.01), ROW * (len(metric.clips) + 1) + 4
    across = scale(levels, FROM, TO)
    svg = ""
    for level, text in levels.items():
        svg += f'<path d="M{across(level):.1f} {ROW}V{bottom}"/>'
        svg += f'<text class="middle" x="{across(level):.1f}" y="12">{text}</text>'
    for i, (clip, mine, floor) in enumerate(metric.clips):
        x, y = across(mine), ROW * (i + 1.5)
        worse = floor is not None and metric.sign * (mine - floor) <= 0
        name = clip if len(clip) <= 16 else f"{clip[:7]}…{clip[-8:]}"
        svg += f"<g><title>{escape(clip)}: {number(mine)}, floor {number(floor)}</title>"
        svg += f'<text class="name" x="0" y="{y + 4}">{escape(name)}</text>'
        if floor is not None:
            svg += f'<path class="c{worse:d}" d="M{x:.1f} {y}H{across(floor):.1f}"/>'
            svg += f'<path class="tick" d="M{across(floor):.1f} {y - 5}v10"/>'
        svg += f'<circle class="c{worse:d}" cx="{x:.1f}" cy="{y}" r="4"/>'
        svg += f'<text class="end" x="{WIDTH}" y="{y + 4}">{number(mine)}</text></g>'
    drawing = figure(metric, "by clip", bottom, svg)
    return f"<div class=scroll tabindex=0 role=region aria-label=clips>{drawing}</div>"


def figure(metric: Comparison, about: str, height: float, svg: str, key: str = "") -> str:
    hint = UNITS.get(metric.key, "") + ("higher" if metric.sign > 0 else "lower") + " is better"
    title = escape(metric.title)
    return f"""<figure><h3>{title} <small>{hint}</small></h3>
<svg viewBox="0 0 {WIDTH} {height}" role="img"><title>{title} {about}</title>{svg}</svg>
<figcaption>{key}</figcaption></figure>"""
