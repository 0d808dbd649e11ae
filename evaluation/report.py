"""The evaluation of saliency predictions as one HTML page that needs no other file."""

import base64
import io
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from common.files import atomic
from evaluation.plots import ROWS, Picture, clip_plot, picture_plot, time_plot
from evaluation.summary import BASELINES, HUMAN, Comparison, interval, number, sentences

STYLE = """body{max-width:72rem;margin:2rem auto;padding:0 1rem;font:16px/1.45 sans-serif}
h1,li,dd{overflow-wrap:anywhere}img{max-width:100%}.plot{width:35rem}
small,caption{display:block;color:#555;text-align:inherit}caption{text-align:left}
table{border-collapse:collapse;display:block;overflow-x:auto}.model{background:#eef3f8}
th,td{padding:.4rem .8rem;text-align:right;border-bottom:1px solid #ccc;white-space:nowrap}"""


def write_report(path: str | Path, results: dict, series: dict, pictures: list[Picture]) -> None:
    """Write the page: scores and what they say, plots over time and by clip, pictures, provenance.

    results: content of metrics.json, NaN for absent scores.
    series: clip → frame number → predictor → metric → value.
    """
    models = list(results["models"])
    metrics = [Comparison(key, results) for key in results["metrics"]]
    about = {name: ", ".join(facts.values()) for name, facts in results["models"].items()}
    known = {"model", *(fact for facts in results["models"].values() for fact in facts)}
    about |= {k: v for k, v in results.items() if isinstance(v, str) and k not in known}
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in about.items())
    scored = [metric.key for metric in metrics if metric.clips]
    compared = [[Comparison(key, results, model) for model in models] for key in scored]
    times = [image(time_plot(both, series)) for both in compared]
    clips = [image(clip_plot(both)) for both in compared]
    examples = [f"<h3>{escape(p.title)}</h3>{image(picture_plot(p), 'picture')}" for p in pictures]
    title = escape(f"{', '.join(models)} on {results['data']}, split {results['split']}")
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{title}</h1>
{score_table(metrics, models)}
<p>{" ".join(map(escape, sentences(results)))}</p>
<h2>Over time</h2>
<p>Medians over clips, where at least half have a score.</p>
{"".join(times)}
<h2>By clip</h2>
<p>At most {ROWS} clips, the worst of {escape(models[0])} first. Dots: models. Tick: the best
baseline of the metric.</p>
{"".join(clips)}
<h2>Pictures</h2>
<p>Each map has its own scale from 0 (black) to its maximum (yellow), so brightness
can't be compared between maps. White dots: fixations.</p>
{"".join(examples)}
<h2>Where it comes from</h2>
<ul>{"".join(f"<li>{escape(note)}</li>" for note in results["notes"])}</ul>
<dl>{facts}</dl></body></html>
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
    caption = "Mean over clips and its 95 % interval; bold is the best but for human observers."
    return f"<table><caption>{caption}</caption>{rows}</table>"


def image(figure: Figure, kind: str = "plot") -> str:
    """Return the figure as an <img> that holds its PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    content = base64.b64encode(file.getvalue()).decode()
    return f'<img class="{kind}" alt="{kind}" src="data:image/png;base64,{content}">'
