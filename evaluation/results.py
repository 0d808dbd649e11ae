"""The content of metrics.json, and the files with results."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.errors import InputError
from common.files import write_json, write_text
from datasets.video_saliency import summarise
from evaluation import summary
from evaluation.plots import Picture
from evaluation.report import write_report
from evaluation.scorer import ClipScores, Scorer
from evaluation.tables import csv_text
from metrics import METRICS
from metrics.inter_observer import mean_of_finite

WORST_CLIPS = 3  # number of clips whose worst frames are in the report
REQUIRED_TRUTHS = {  # requirement by the last truth of a metric, for metrics without a score
    "target": "ground truth that is not constant",
    "fixations": "fixations",
    "others": "fixations of other clips",
    "prior": "fixations",
}


def collect(
    facts: dict, scorer: Scorer, clips: dict[str, ClipScores], rows: dict[str, list[str]]
) -> dict:
    """Return the content of metrics.json, with NaN for missing scores.

    facts: what was scored and how. rows: names of the sources of each row of the table; several
    sources are models with different seeds, whose scores are averaged frame by frame.
    Raises InputError if no frame has a score.
    """
    scored = {clip: scores for clip, scores in clips.items() if scores.frames}
    if not scored:
        problems = summarise([problem for scores in clips.values() for problem in scores.irregular])
        nothing = f"{scorer.data.root}: no frame of split '{scorer.data.split}' could be scored"
        raise InputError(f"{nothing} ({problems}); --check lists the problems of the data set")
    for scores in scored.values():
        scores.merge(rows)
    by_clip = {c: {"frames": len(s.frames), "scores": s.means()} for c, s in scored.items()}
    means = summary.summarise_clips(by_clip)
    for row, models in rows.items():
        for metric, score in means["predictors"][row].items() if len(models) > 1 else ():
            score["seeds"] = [
                mean_of_finite(clip.models[model].get(metric, math.nan) for clip in scored.values())
                for model in models
            ]
            score["sd"] = float(np.std(score["seeds"], ddof=1))
    changes = {
        name: mean_of_finite(clip.change(name) for clip in scored.values())
        for name in means["predictors"]
        if name != summary.INTER_OBSERVER
    }
    results = {
        **facts,
        "cc_change": changes,
        "frames": sum(len(scores.frames) for scores in scored.values()),
        "notes": notes(scorer, clips, means["metrics"], changes),
        **means,
    }
    return results | {"differences": summary.differences(results)}


def notes(
    scorer: Scorer, clips: dict[str, ClipScores], metrics: dict, changes: dict[str, float]
) -> list[str]:
    """Return notes on the scores."""
    lines = [*scorer.notes]
    if problems := sum((scores.irregular for scores in clips.values()), scorer.data.irregular):
        lines.append(f"Problems in the data: {summarise(problems)}.")
    if unscored := [clip for clip, scores in clips.items() if not scores.frames]:
        lines.append(f"Clips without usable frames (not scored): {', '.join(unscored)}.")
    absent = [metric for name, metric in METRICS.items() if name not in metrics]
    lines += [f"{metric.title} needs {REQUIRED_TRUTHS[metric.needs[-1]]}." for metric in absent]
    steps = [f"{summary.number(x)} ({name})" for name, x in changes.items() if math.isfinite(x)]
    if steps:
        lines += [f"CC changes by {', '.join(steps)} on average between successive scored frames."]
    return lines


def write(
    folder: Path, results: dict, clips: dict[str, ClipScores], report: bool, per_frame: bool
) -> list[str]:
    """Write the files of results, remove those of the previous run, and return their names."""
    # JSON has no NaN: missing scores are null there, and empty cells in the tables.
    content = json.loads(json.dumps(results), parse_constant=lambda name: None)
    write_json(folder / "metrics.json", content)
    metrics = list(results["metrics"])
    rows = [["clip", "frames", "predictor", *metrics]]
    for clip, entry in results["clips"].items():
        for name, scores in entry["scores"].items():
            rows.append([clip, entry["frames"], name, *map(scores.get, metrics)])
    write_text(folder / "metrics.csv", csv_text(rows))
    series = {clip: clips[clip].series for clip in results["clips"]}
    if per_frame:
        rows = [["clip", "frame", "predictor", *metrics]]
        for clip, predictors in series.items():
            for number in clips[clip].frames:
                for name, curves in predictors.items():
                    values = (curves.get(metric, {}).get(number) for metric in metrics)
                    rows.append([clip, number, name, *values])
        write_text(folder / "per_frame.csv", csv_text(rows))
    if report:
        pictures = [*best_median_worst(results, clips), *worst_frames(results, clips)]
        write_report(folder / "report.html", results, series, pictures)
    extra = {"per_frame.csv": per_frame, "report.html": report}
    for name in (name for name, wanted in extra.items() if not wanted):
        (folder / name).unlink(missing_ok=True)  # of the previous run
    return ["metrics.json", "metrics.csv", *(name for name, wanted in extra.items() if wanted)]


def worst_frames(results: dict, clips: dict[str, ClipScores]) -> list[Picture]:
    """Return the frames with the first model's lowest CC, for the WORST_CLIPS clips."""
    model = next(iter(results["models"]))
    found = [scores.worst for scores in clips.values() if scores.worst]
    return [
        replace(picture, title=f"Worst frame of a clip: CC {cc:.3f} ({model}); {picture.title}")
        for cc, picture in sorted(found, key=lambda worst: worst[0])[:WORST_CLIPS]
    ]


def best_median_worst(results: dict, clips: dict[str, ClipScores]) -> list[Picture]:
    """Return pictures of the worst, median and best clip by the first metric."""
    metric, model = next(iter(results["metrics"])), next(iter(results["models"]))
    ranked = list(summary.worst_first(results, metric).items())[::-1]
    last = len(ranked) - 1
    ranks = {last: "Worst", last // 2: "Median", 0: "Best"}  # each clip has one rank
    pictures = []
    for place, rank in sorted(ranks.items()):
        clip, entry = ranked[place]
        score = f"{results['metrics'][metric]['title']} {entry['scores'][model][metric]:.3f}"
        if picture := clips[clip].picture:
            title = f"{rank} clip: {score} ({model}); {picture.title}"
            pictures.append(replace(picture, title=title))
    return pictures
