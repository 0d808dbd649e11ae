"""The evaluation of saliency predictions as one HTML page that needs no other file."""

import base64
import io
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from common.files import atomic
from evaluation.plots import ROWS, Picture, clip_plot, picture_plot, time_plot
from evaluation.summary import BASELINES, HUMAN, Comparison, comparisons, interval, number

SIGNS = {"beats": "✓", "ahead": "≈", "behind": "✗", "beaten": "✗", "unscored": "–"}
STYLE = """body{max-width:72rem;margin:2rem auto;padding:0 1rem;font:16px/1.45 sans-serif}
h1,li,dd{overflow-wrap:anywhere}img{max-width:100%}.plot{width:35rem}small{display:block;color:#555}
table{border-collapse:collapse;display:block;overflow-x:auto}.model{background:#eef3f8}
th,td{padding:.4rem .8rem;text-align:right;border-bottom:1px solid #ccc;white-space:nowrap}"""


def write_report(path: str | Path, results: dict, series: dict, pictures: list[Picture]) -> None:
    """Write the page: verdicts, scores, plots over time and by clip, pictures and provenance.

    results: content of metrics.json, NaN for absent scores. Plots show its first model.
    series: clip → frame number → predictor → metric → value.
    """
    metrics = [Comparison(key, results) for key in results["metrics"]]
    verdicts = [(metric.title, *metric.verdict()) for metric in comparisons(results)]
    kinds = [kind for _, kind, _ in verdicts]
    lines = [f"{SIGNS[kind]} <b>{name}</b>: {escape(text)}" for name, kind, text in verdicts]
    facts = [(fact, escape(text)) for fact, text in results.items() if isinstance(text, str)]
    scored = [metric for metric in metrics if metric.clips]
    times = [image(time_plot(metric, series)) for metric in scored]
    clips = [image(clip_plot(metric)) for metric in scored]
    examples = [f"<h3>{escape(p.title)}</h3>{image(picture_plot(p), 'picture')}" for p in pictures]
    title = escape(f"{results['model']} on {results['data']}, split {results['split']}")
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{title}</h1>
<p>Clips: {len(results["clips"])}. Scored frames: {results["frames"]:,}.</p>
<p>Beyond chance in {kinds.count("beats")} of {len(kinds) - kinds.count("unscored")} comparisons.
In brackets: 95 % interval of the mean difference over clips.</p>
<ul>{"".join(f"<li>{line}</li>" for line in lines)}</ul>
<h2>Scores</h2>
<p>Mean over clips, 95 % interval below. Baselines do not depend on the video; human is
the inter-observer score. Bold: the best that is not human. ↑ higher, ↓ lower is better.</p>
{score_table(metrics, results["models"])}
<ul>{"".join(f"<li>{escape(note)}</li>" for note in results["notes"])}</ul>
<h2>Over time</h2>
<p>Plots and pictures show {escape(results["model"])}.
Thin lines: the model on each clip. Thick lines: medians over clips, drawn where at least half
of the clips have a score.</p>
{"".join(times)}
<h2>By clip</h2>
<p>At most {ROWS} clips, the worst first. Dot: the model, orange where it is not better
than the baseline. Tick: the best baseline of the metric.</p>
{"".join(clips)}
<h2>Pictures</h2>
<p>Each map has its own scale from 0 (black) to its maximum (yellow), so brightness
can't be compared between maps. White dots: fixations.</p>
{"".join(examples)}
<h2>Where it comes from</h2>
<dl>{"".join(f"<dt>{fact}</dt><dd>{value}</dd>" for fact, value in facts)}</dl></body></html>
"""
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")


def score_table(metrics: list[Comparison], models: list[str]) -> str:
    """Return predictors × metrics as HTML: mean, interval, and clips where some have no score."""
    rows = f"<tr><th>predictor</th>{''.join(f'<th>{m.heading}</th>' for m in metrics)}</tr>"
    most = max((score["clips"] for m in metrics for score in m.scores.values()), default=0)
    for name in metrics[0].scores:
        role = "baseline" if name in BASELINES else "inter-observer" if name == HUMAN else ""
        role = "model" if name in models else role
        rows += f'<tr class="{role}"><th>{escape(name)}<small>{role}</small></th>'
        for metric in metrics:
            score = metric.scores[name]
            mean = number(score["mean"])
            if name == metric.best(other for other in metric.scores if other != HUMAN):
                mean = f"<b>{mean}</b>"
            fewer = f"<br>{score['clips']} clips" if score["clips"] < most else ""
            rows += f"<td>{mean}<small>{interval(score, ' to ')}{fewer}</small></td>"
        rows += "</tr>"
    return f"<table>{rows}</table>"


def image(figure: Figure, kind: str = "plot") -> str:
    """Return the figure as an <img> that holds its PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    content = base64.b64encode(file.getvalue()).decode()
    return f'<img class="{kind}" alt="{kind}" src="data:image/png;base64,{content}">'
