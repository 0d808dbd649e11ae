"""The content of metrics.json, and the files in which results are written."""

import csv
import json
from dataclasses import replace
from pathlib import Path

from common.errors import InputError
from common.files import atomic, write_json
from datasets.video_saliency import summarise
from evaluation import summary
from evaluation.plots import Picture
from evaluation.report import write_report
from evaluation.scorer import OBSERVERS_EVERY, ClipScores, Scorer
from metrics import METRICS

MISSING = {  # by the last truth that a metric needs, where no frame has a score
    "target": "ground truth that is not constant",
    "fixations": "fixations",
    "others": "fixations of other clips",
    "prior": "fixations",
}


def collect(facts: dict, scorer: Scorer, clips: dict[str, ClipScores]) -> dict:
    """Return the content of metrics.json, with NaN where there is no score.

    facts: what was scored and how; "models" has the name and the facts of each source.
    Raises InputError where no frame has a score.
    """
    scored = {clip: scores for clip, scores in clips.items() if scores.frames}
    if not scored:
        problems = summarise([problem for scores in clips.values() for problem in scores.irregular])
        raise InputError(
            f"{scorer.data.root}: no frame of split '{scorer.data.split}' could be scored "
            f"({problems}); --check lists what is wrong with the data set"
        )
    means = summary.summarise_clips(
        {c: {"frames": len(s.frames), "scores": s.means()} for c, s in scored.items()}
    )
    results = {
        **facts,
        "frames": sum(len(scores.frames) for scores in scored.values()),
        "notes": notes(scorer, clips, means["metrics"]),
        **means,
    }
    return results | {"differences": summary.differences(results)}


def notes(scorer: Scorer, clips: dict[str, ClipScores], metrics: dict) -> list[str]:
    """Return the sentences that a reader of the scores must know."""
    lines = [*scorer.notes]
    if problems := sum((scores.irregular for scores in clips.values()), scorer.data.irregular):
        lines.append(f"Problems in the data: {summarise(problems)}.")
    if unscored := [clip for clip, scores in clips.items() if not scores.frames]:
        lines.append(f"Clips without usable frames, not scored: {', '.join(unscored)}.")
    absent = [metric for name, metric in METRICS.items() if name not in metrics]
    lines += [f"{metric.title} needs {MISSING[metric.needs[-1]]}." for metric in absent]
    if any(summary.HUMAN in scores.series for scores in clips.values()):
        lines.append(
            f"Human: how well observers predict each other in every {OBSERVERS_EVERY}th scored "
            f"frame, with fixations blurred by {scorer.sigma:g}°. NSS and AUC leave one observer "
            "out in turn, CC, SIM and KLD compare random halves of the observers."
        )
    elif scorer.fixated:
        lines.append("There are no human scores: they need frames with fixations of two observers.")
    return lines


def write(folder: Path, results: dict, clips: dict[str, ClipScores], report: bool) -> None:
    """Write metrics.json, metrics.csv and, if wanted, report.html."""
    # JSON has no NaN: absent scores are null there, and empty cells in the table.
    content = json.loads(json.dumps(results), parse_constant=lambda name: None)
    write_json(folder / "metrics.json", content)
    metrics = list(results["metrics"])
    with (
        atomic(folder / "metrics.csv") as path,
        open(path, "w", newline="", encoding="utf-8", errors="replace") as file,
    ):
        table = csv.writer(file)
        table.writerow(["clip", "frames", "predictor", *metrics])
        for clip, entry in content["clips"].items():
            for predictor, scores in entry["scores"].items():
                row = [scores.get(metric) for metric in metrics]
                table.writerow([_cell(clip), entry["frames"], _cell(predictor), *row])
    if report:
        series = {clip: clips[clip].series for clip in results["clips"]}
        write_report(folder / "report.html", results, series, best_median_worst(results, clips))


def _cell(name: str) -> str:
    """Return a name as a cell that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def best_median_worst(results: dict, clips: dict[str, ClipScores]) -> list[Picture]:
    """Return the pictures of three clips by the first metric, fewer where there are fewer."""
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
