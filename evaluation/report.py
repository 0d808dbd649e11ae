"""The evaluation report: one self-contained HTML page."""

import base64
import io
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from common.files import write_text
from evaluation import summary
from evaluation.plots import ROWS, Picture, clip_plot, picture_plot, time_plot

STYLE = """body{max-width:72rem;margin:2rem auto;padding:0 1rem;font:16px/1.45 sans-serif}
h1,li,dd{overflow-wrap:anywhere}img{max-width:100%}.plot{width:35rem}
small,caption{display:block;color:#555;text-align:inherit}caption{text-align:left}
pre,table{display:block;overflow-x:auto}table{border-collapse:collapse}.model{background:#eef3f8}
th,td{padding:.4rem .8rem;text-align:right;border-bottom:1px solid #ccc;white-space:nowrap}"""


def write_report(path: str | Path, results: dict, series: dict, pictures: list[Picture]) -> None:
    """Write the page: scores, comparisons, plots over time and by clip, pictures, provenance.

    results: content of metrics.json, NaN for absent scores.
    series: clip → predictor → metric → frame number → value.
    """
    models = list(results["models"])
    about = {key: text for key, text in results.items() if isinstance(text, str)}
    about |= {name: ", ".join(facts.values()) for name, facts in results["models"].items()}
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in about.items())
    scored = [metric for metric in results["metrics"] if summary.worst_first(results, metric)]
    times = [image(time_plot(results, metric, series)) for metric in scored]
    clips = [image(clip_plot(results, metric)) for metric in scored]
    examples = [f"<h3>{escape(p.title)}</h3>{image(picture_plot(p), 'picture')}" for p in pictures]
    title = escape(f"{', '.join(models)} on {results['data']}, split {results['split']}")
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{title}</h1>
{score_table(results)}
<pre>{escape(chr(10).join(summary.verdicts(results)))}</pre>
<h2>Over time</h2>
<p>Medians over clips, where at least half have a score.</p>
{"".join(times)}
<h2>By clip</h2>
<p>At most {ROWS} clips, sorted by the scores of {escape(models[0])}, the worst first. Dots: models.
Ticks: the best baseline of the metric.</p>
{"".join(clips)}
<h2>Pictures</h2>
<p>Each map has its own scale from 0 (black) to its maximum (yellow), so brightness
can't be compared between maps. White dots: fixations.</p>
{"".join(examples)}
<h2>Data and models</h2>
<ul>{"".join(f"<li>{escape(note)}</li>" for note in results["notes"])}</ul>
<dl>{facts}</dl></body></html>
"""
    write_text(path, page)


def score_table(results: dict) -> str:
    """Return predictors × metrics as HTML: mean, interval, and the number of clips if not all."""
    metrics, predictors = results["metrics"], results["predictors"]
    roles = dict.fromkeys(summary.BASELINES, "baseline")
    roles[summary.INTER_OBSERVER] = "inter-observer"
    rivals = [name for name in predictors if name != summary.INTER_OBSERVER]
    headings = "".join(f"<th>{summary.heading(results, metric)}</th>" for metric in metrics)
    rows = f"<tr><th>predictor</th>{headings}</tr>"
    for name, scores in predictors.items():
        role = roles.get(name, "model")
        rows += f'<tr class="{role}"><th>{escape(name)}<small>{role}</small></th>'
        for metric, score in scores.items():
            mean = summary.number(score["mean"])
            if name == summary.best(results, metric, rivals):
                mean = f"<b>{mean}</b>"
            clips = "" if score["clips"] == len(results["clips"]) else f"<br>{score['clips']} clips"
            rows += f"<td>{mean}<small>{summary.interval(score, ' to ')}{clips}</small></td>"
        rows += "</tr>"
    caption = "Mean over clips and 95 % interval; the best model or baseline is bold."
    return f"<table><caption>{caption}</caption>{rows}</table>"


def image(figure: Figure, kind: str = "plot") -> str:
    """Return the figure as an <img> with an embedded PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
    content = base64.b64encode(file.getvalue()).decode()
    return f'<img class="{kind}" alt="{kind}" src="data:image/png;base64,{content}">'
