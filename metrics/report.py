"""The evaluation of saliency predictions as one HTML page that needs no other file.

A score that is absent, None or not finite was not measured; it is shown as a dash.
"""

import base64
import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from cli import atomic
from metrics.plots import BINS, clip_plot, time_plot
from metrics.summary import FLOORS, HUMAN, Comparison, in_brackets, number

SIGNS = {"beats": "✓", "ahead": "≈", "behind": "✗", "unscored": "–"}
SIZE = 480, 240  # of a picture: the whole sphere, whatever shape its pixels had

STYLE = """
:root{color-scheme:light dark;--ink:#1b1e22;--soft:#59616b;--rule:#d8dce1;--paper:#fff;
--panel:#f2f5f8;--c0:#0067b1;--c1:#c2500f;--c2:#00795a;--c3:#96488a}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e7e9ec;--soft:#a2abb6;--rule:#39404a;
--paper:#14171b;--panel:#1f242b;--c0:#62b0ff;--c1:#ff9d68;--c2:#45cfa2;--c3:#e2a0d2}}
body{max-width:66rem;margin:auto;padding:1.5rem clamp(1rem,4vw,2.5rem);background:var(--paper);
color:var(--ink);font:16px/1.45 system-ui,sans-serif;font-variant-numeric:tabular-nums}
h1,h2,h3,dd,li{overflow-wrap:anywhere}h1{font-size:1.8rem;line-height:1.2;margin:0 0 .2rem}
h2{font-size:1.25rem;margin:2.5rem 0 .3rem}h3{font-size:1rem;margin:0 0 .3rem}p{margin:.2rem 0 1rem}
h3 small,th small{font-weight:400}small,figcaption,.soft,dt{color:var(--soft)}p,li{max-width:48rem}
li{text-wrap:pretty}.verdict{list-style:none;padding:0}.verdict li{display:flex;gap:.6rem;
padding:.2rem 0}.verdict i{font:bold 1em system-ui;flex:0 0 1em}.beats i{color:var(--c2)}
.behind i{color:var(--c1)}.scroll{overflow:auto;max-height:34rem}table{border-collapse:collapse}
th,td{padding:.45rem .8rem;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap;
vertical-align:top;line-height:1.3}th{font-weight:400}th:first-child{text-align:left;left:0;
position:sticky;background:var(--paper)}
td small,th small{display:block}tr:first-child th,.model th{font-weight:600}
.model>*,.model>th:first-child{background:var(--panel)}figure{margin:0;break-inside:avoid}
img,svg{display:block;width:100%;height:auto}.grid,.maps{display:grid;gap:1.8rem 2.2rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr))}.maps{gap:.4rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,15rem),1fr));margin-bottom:1.5rem}
figcaption{font-size:.85rem;display:flex;flex-wrap:wrap;gap:0 1.2rem}
figcaption svg{display:inline-block;width:24px;margin-right:.4rem;vertical-align:middle}
text{font-size:12px;fill:var(--soft)}text.name{fill:var(--ink)}.end{text-anchor:end}
.middle{text-anchor:middle}path{fill:none;stroke:var(--rule);stroke-linecap:round}
.c0,.c1,.c2,.c3{stroke:var(--c0);stroke-width:2}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}
.c3{stroke:var(--c3)}.floor,.human,.tick{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:6 4}
.human{stroke-dasharray:.1 4;stroke-width:2.2}.tick{stroke-dasharray:none;stroke-width:2}
.band{stroke:none;fill:var(--c0);opacity:.2}circle.c0{fill:var(--c0)}circle.c1{fill:var(--c1)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dd{margin:0}
@media(max-width:30rem){text{font-size:14px}th,td{padding:.4rem .5rem}}@media print{body{padding:0;
font-size:10pt}h2,.soft{break-after:avoid}.scroll{overflow:visible;max-height:none}}"""


@dataclass(frozen=True)
class Picture:
    """One frame to look at. frame: (H, W, 3) uint8 RGB; truth, prediction: (H, W), any sizes.

    fixations: (N, 2) longitude and latitude in radians, or None.
    """

    title: str
    frame: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    fixations: np.ndarray | None = None


def table(metrics: list[Comparison]) -> str:
    """Predictors × metrics: mean, interval below it; the best that is not human is bold."""
    rows = "<tr><th scope=col>predictor</th>"
    for m in metrics:
        rows += f"<th scope=col>{escape(m.heading)}</th>"
    for name in metrics[0].scores:
        role = "floor" if name in FLOORS else "ceiling" if name == HUMAN else ""
        role = "model" if name == metrics[0].model else role
        rows += f"</tr><tr class='{role}'><th scope=row>{escape(name)}<small>{role}</small></th>"
        for m in metrics:
            mean, detail = number(m.mean(name)), " to ".join(map(number, m.interval(name) or ()))
            clips = m.scores[name].get("clips", m.total)
            detail += f"<br>{clips} clips" if mean != "–" and clips != m.total else ""
            best = number(m.mean(m.best(other for other in m.scores if other != HUMAN)))
            mean = f"<b>{mean}</b>" if mean == best != "–" and name != HUMAN else mean
            rows += f"<td>{mean}<small>{detail}</small></td>"
    rows = f"<table>{rows}</tr></table>"
    return f"<div class=scroll tabindex=0 role=region aria-label=scores>{rows}</div>"


def heat(saliency: np.ndarray) -> np.ndarray:
    """(H, W), black at 0 and below to bright yellow at the maximum → BGR."""
    saliency = np.nan_to_num(np.asarray(saliency, np.float32), posinf=0).clip(0)
    saliency = cv2.resize(saliency / (saliency.max() or 1), SIZE)
    return cv2.applyColorMap((255 * saliency).round().astype(np.uint8), cv2.COLORMAP_INFERNO)


def picture(p: Picture) -> str:
    frame = cv2.resize(p.frame[..., ::-1], SIZE, interpolation=cv2.INTER_AREA)
    for longitude, latitude in () if p.fixations is None else p.fixations:
        x = (longitude / (2 * math.pi) + 0.5) * SIZE[0] - 0.5
        y = (0.5 - latitude / math.pi) * SIZE[1] - 0.5
        for radius, grey in (56, 0), (40, 255):  # sixteenths of a pixel
            at = round(16 * x), round(16 * y)
            cv2.circle(frame, at, radius, (grey,) * 3, cv2.FILLED, cv2.LINE_AA, shift=4)
    cells = ""
    images = frame, heat(p.truth), heat(p.prediction)
    for name, image in zip(("frame", "ground truth", "prediction"), images):
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        cells += f"""<div><img width={SIZE[0]} height={SIZE[1]} alt="{name}, {escape(p.title)}"
src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"><small>{name}</small></div>"""
    return f"<figure><h3>{escape(p.title)}</h3><div class=maps>{cells}</div></figure>"


def write_report(path: str | Path, results: dict, series: dict, pictures: list[Picture]) -> None:
    """One page: verdict, table, scores over time and by clip, pictures, where it all comes from.

    results: content of metrics.json; the first of its predictors is the model under test.
    series: clip → {"numbers": frame numbers, "scores": {predictor: {metric: a value a frame}}}.
    """
    metrics = [Comparison(key, results) for key in results["metrics"]]
    series = {clip: content for clip, content in series.items() if content["numbers"]}
    title = escape(f"{results['model']} on {results['data']}, {results['split']}")
    kinds, said = [], ""
    for metric in metrics:
        kind, sentence = metric.verdict()
        kinds.append(kind)
        said += f"<li class={kind}><i aria-hidden=true>{SIGNS[kind]}</i><span>"
        said += f"<b>{escape(metric.title)}</b>: {escape(sentence)}</span></li>"
    won, compared = kinds.count("beats"), len(kinds) - kinds.count("unscored")
    notes = "".join(f"<li>{escape(note)}</li>" for note in results["notes"])
    facts = ("data", "split", "protocol", "model", "checkpoint", "sha256", "maps", "command")
    known = ((name, str(results[name])) for name in facts if name in results)
    facts = "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in known)
    page = f"""<!DOCTYPE html>
<html lang=en><head><meta charset=utf-8><title>{title}</title>
<meta name=viewport content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>
<body><h1>{title}</h1>
<p class=soft>Clips: {len(results["clips"])}. Scored frames: {results["frames"]:,}.</p>
<p>Clearly better than the best floor on {won} of {compared} metrics. {in_brackets(metrics)}</p>
<ul class=verdict>{said}</ul><h2>Scores</h2>
<p class=soft>Mean over clips, 95&nbsp;% interval below. Floors do not look at the video; human is
the ceiling. Bold: the best that is not human. ↑ higher, ↓ lower is better.</p>{table(metrics)}
<ul>{notes}</ul><h2>Over time</h2>
<p class=soft>In colour: the model; dashed: the best floor on the metric. Means
over at most {BINS} stretches of frames, medians where at least half of the clips have a score.</p>
<div class=grid>{"".join(time_plot(m, series) for m in metrics if series)}</div><h2>By clip</h2>
<p class=soft>The worst first. Dot: the model, orange where it is not better than the floor.
Tick: the best floor on the metric.</p><div class=grid>{"".join(map(clip_plot, metrics))}</div>
<h2>Pictures</h2><p class=soft>Each map has its own scale, from 0 (black) to its maximum (yellow),
so brightness does not compare between maps. White dots: fixations.</p>
{"".join(map(picture, pictures))}<h2>Where it comes from</h2><dl>{facts}</dl></body></html>
"""
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
