"""The table of scores, predictors × metrics, as text, Markdown, LaTeX and CSV."""

import csv
import io
import math
import re
from collections.abc import Callable

from common.errors import printable
from common.options import TABLES
from evaluation.summary import INTER_OBSERVER, best, columns, heading, interval, number

LATEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {character: f"{{{character}}}" for character in "[]*"}  # otherwise taken as arguments of \\
    | {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$", "−": "$-$", "–": "--"}
)


def text_table(results: dict) -> str:
    """Return means in columns, with 95 % intervals, if any, below them."""
    rows = [["", *(heading(results, metric) for metric in results["metrics"])]]
    for name, scores in results["predictors"].items():
        rows.append([printable(name), *(mean(scores[metric]) for metric in results["metrics"])])
        intervals = [interval(scores[metric], "–") for metric in results["metrics"]]
        if any(intervals):
            rows.append(["", *intervals])
    return "\n".join(columns(rows))


def markdown_table(results: dict) -> str:
    """Return means as a table in Markdown; the best model or baseline is bold."""
    rows = cells(results, lambda text: re.sub(r"([]\\|*_`<>[&~$])", r"\\\1", text), "**{}**".format)
    rows.insert(1, ["---"] + ["---:"] * len(results["metrics"]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def latex_table(results: dict) -> str:
    """Return means as a LaTeX tabular; the best model or baseline is bold."""
    rows = cells(results, lambda text: text.translate(LATEX), r"\textbf{{{}}}".format)
    first, *rest = [" & ".join(row) + r" \\" for row in rows]
    columns = "l" + "r" * len(results["metrics"])
    start, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([start, r"\hline", first, r"\hline", *rest, r"\hline", end])


def csv_table(results: dict) -> str:
    """Return mean, 95 % interval and standard deviation over seeds for each metric."""
    parts = {"": "mean", "_low": "low", "_high": "high", "_sd": "sd"}
    rows = [["predictor", *(metric + part for metric in results["metrics"] for part in parts)]]
    for name, scores in results["predictors"].items():
        values = [score.get(key) for score in scores.values() for key in parts.values()]
        rows.append([name, *values])
    return csv_text(rows).replace("\r\n", "\n").rstrip()


FORMATS = dict(zip(TABLES, (text_table, markdown_table, latex_table, csv_table), strict=True))


def cells(results: dict, escaped: Callable, bold: Callable) -> list[list[str]]:
    """Return the cells of the table: headings in the first row, names in the first column."""
    rivals = [name for name in results["predictors"] if name != INTER_OBSERVER]
    rows = [["", *(escaped(heading(results, metric)) for metric in results["metrics"])]]
    for name, scores in results["predictors"].items():
        row = [escaped(printable(name))]
        for metric in results["metrics"]:
            text = escaped(mean(scores[metric]))
            row.append(bold(text) if name == best(results, metric, rivals) else text)
        rows.append(row)
    return rows


def mean(score: dict) -> str:
    """Return a mean as text, with the standard deviation over seeds if there are several."""
    return number(score["mean"]) + (f" ± {number(score['sd'])}" if "sd" in score else "")


def csv_text(rows: list[list]) -> str:
    """Return rows as CSV, without spreadsheet formulas; None and NaN are empty cells."""

    def cell(value):
        if isinstance(value, str):
            return f"'{value}" if value.lstrip().startswith(("=", "+", "-", "@")) else value
        return value if value is not None and math.isfinite(value) else None

    file = io.StringIO()
    csv.writer(file).writerows(map(cell, row) for row in rows)
    return file.getvalue()
