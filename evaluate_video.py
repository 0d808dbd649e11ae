"""Score models and saved maps against ground truth, beside baselines and human observers.

Several models are scored on the frames for which all of them have a map, and compared in pairs.
Several GPUs share the clips: torchrun --nproc_per_node 4 evaluate_video.py …
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import csv
import json
import math
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from inspect import signature
from itertools import tee
from pathlib import Path

from common.errors import advice, run_script
from common.files import atomic, write_json
from common.options import (
    CHECKPOINT,
    HelpFormatter,
    add_machine_options,
    add_motion_option,
    add_sampling_option,
    at_least,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--data_root", type=Path, default="360_Saliency_dataset_2018ECCV", help="data set")
    add("--split", default="test", help="split whose clips are scored: test, val or train")
    add("--train_root", type=Path, help="data set whose training maps make the mean map "
        "among the baselines (default: data_root)")  # fmt: skip
    add("--ckpt_path", type=Path, nargs="+", metavar="PATH", default=[], help="checkpoints "
        f"(default: {CHECKPOINT}, without --pred_dir)")  # fmt: skip
    add("--model", nargs="+", metavar="package.module:Class", default=[], help="models of "
        "checkpoints that are your own, whose code is then run")  # fmt: skip
    add("--pred_dir", type=Path, nargs="+", metavar="FOLDER", default=[], help="saved maps, "
        "FOLDER/<clip>/sal_0001.npy as infer_video.py writes them, or under any name that ends "
        "with the frame's number; .npy, .exr or .png")  # fmt: skip
    add("--output_dir", type=Path, default="outputs/evaluate", help="folder for the results")
    add("--report", action="store_true", help="also write report.html with plots and pictures")
    add("--protocol", default="sphere", choices=["sphere", "planar", "sin"], help="sphere: pixels "
        "are weighted with their exact solid angles; planar: every pixel counts the same; sin: "
        "planar, after both maps are multiplied by the sine of the colatitude")  # fmt: skip
    add("--height", type=at_least(8, 4097, int), default=240,
        help="rows of the grid on which maps are compared")  # fmt: skip
    add("--sigma", type=at_least(0.5, 30), default=3.34, help="width in degrees of the "
        "Gaussian that the ground truth was made with; used for the inter-observer scores "
        "only")  # fmt: skip
    add("--check", action="store_true", help="only check the data set and list its problems")
    add_motion_option(add)
    add_sampling_option(add)
    add_machine_options(add)
    return parser.parse_args()


if __name__ == "__main__":  # help and wrong options need none of the slow imports
    run_script(parse_args)

import torch
from torch import Tensor
from tqdm import tqdm

import models
from common import processes
from common.devices import autocast, choose_device, choose_precision
from common.errors import InputError, RunError
from common.locks import lock
from common.processes import is_main
from datasets import check
from datasets.layouts import File, read_map, unbroken_runs
from datasets.video_saliency import SaliencyVideos, summarise
from evaluation import summary
from evaluation.plots import Picture
from evaluation.report import write_report
from evaluation.scorer import OBSERVERS_EVERY, ClipScores, Scorer
from metrics import METRICS
from models.checkpoint import read, sha256
from models.predict import not_negative
from models.registry import find_model

LEFT_OUT = ("unreadable frame", "unusable map")  # problems with which a run does not succeed
MISSING = {  # by the last truth that a metric needs, where no frame has a score
    "target": "ground truth that is not constant",
    "fixations": "fixations",
    "others": "fixations of other clips",
}


def main() -> None:
    args = parse_args()
    if args.check:
        return check_data(args)
    device = choose_device(args.device)
    sources = make_sources(args, device)
    data = sources[0].data
    scorer = Scorer(data, args.protocol, args.height, args.sigma, args.train_root, device)
    with lock(args.output_dir) if is_main() else nullcontext():
        mine = processes.shard(data.clips)
        clips = {
            clip: scorer.score(clip, sources, args.report)
            for clip in tqdm(
                mine, "scoring", unit="clip", disable=not is_main(), dynamic_ncols=True
            )
        }
        clips = processes.merge(clips, list(data.clips))
        if not is_main():
            return
        results = collect(args, sources, scorer, clips)
        notes_text = "\n".join(results["notes"])
        print(summary.table(results), summary.verdicts(results), notes_text, sep="\n\n")
        write_json(args.output_dir / "metrics.json", without_nan(results))
        write_csv(args.output_dir / "metrics.csv", results)
        if args.report:
            series = {clip: scores.frames for clip, scores in clips.items() if scores.frames}
            pictures = best_median_worst(results, clips)
            write_report(args.output_dir / "report.html", results, series, pictures)
        print(f"metrics.json, metrics.csv{' and report.html' * args.report} in {args.output_dir}")
        found = [problem for scores in clips.values() for problem in scores.irregular]
        if left_out := [problem for problem in found if problem[0] in LEFT_OUT]:
            raise RunError(f"left out of the scores: {summarise(left_out)}; make these files again")


def make_sources(args: argparse.Namespace, device: torch.device) -> list:
    """Return what is scored, under different names."""
    if not args.ckpt_path and not args.pred_dir:
        args.ckpt_path = [CHECKPOINT]
    for name in args.model:
        find_model(name)
    networks = [Network(args, path, device) for path in args.ckpt_path]
    if args.sampling and not any("sampling" in network.model.arguments for network in networks):
        raise InputError(f"--sampling {args.sampling}: none of the models is SST-Sal; leave it out")
    sources = [*networks, *(SavedMaps(args, path) for path in args.pred_dir)]
    if len(sources) > 1:
        paths = [*args.ckpt_path, *args.pred_dir]
        names = Counter(path.resolve().stem for path in paths)
        for source, path in zip(sources, paths):
            name = path.resolve().stem
            source.name = name if names[name] == 1 else str(path)
    for source in sources:
        if source.name in (*summary.BASELINES, summary.HUMAN):
            source.name += " (maps)"
    return sources


class Network:
    """The maps that a checkpoint's model predicts for a data set's clips."""

    def __init__(self, args: argparse.Namespace, path: Path, device: torch.device):
        kind = models.MODELS[read(path)["model"]]
        takes = args.sampling and "sampling" in signature(kind).parameters
        self.model = models.load(path, device, **{"sampling": args.sampling} if takes else {})
        with advice(f"--motion {args.motion}"):
            self.model.use_motion(args.motion)
        # Only the network runs in mixed precision, not the metrics between two of its maps.
        dtype = choose_precision(args.precision, device)
        self.model = models.deploy(self.model, dtype)
        self.model.forward = autocast(device, dtype)(self.model.forward)
        spec = replace(self.model.spec, clip_length=1, warm_up=0, fade=0)
        self.data = SaliencyVideos(args.data_root, args.split, spec)
        self.name = self.model.name
        self.facts = {"checkpoint": path.name, "sha256": sha256(path)}

    def maps(self, clip: str, irregular: list) -> Iterator[tuple[File, Tensor]]:
        """Yield the readable frames with ground truth and their maps, (h, w), in order.

        After a gap in the numbering, the model starts anew. Problems, (kind, file), are added to
        `irregular`.
        """
        for run in unbroken_runs(self.data.clips[clip]):
            read, again = tee(self.data.read_run(run, irregular))
            maps = models.predict(self.model, (frame for frame, _ in read))
            for (_, saliency), (_, readable), file in zip(maps, again, run):
                if readable and file.truth:
                    yield file, not_negative(saliency[0])


class SavedMaps:
    """The maps in <folder>/<clip>, one for each frame: .npy, else .exr, else a picture of 8 bits.

    The last number in a file's name is that of its frame; after "sal_", as infer_video.py writes
    it, it counts the frames from 1.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.folder = folder
        if not self.folder.is_dir():
            raise InputError(f"--pred_dir {self.folder}: no such folder; check the path")
        self.data = SaliencyVideos(args.data_root, args.split, models.Spec())
        self.name = self.folder.resolve().name
        self.facts = {"maps": self.folder.name}

    def maps(self, clip: str, irregular: list) -> Iterator[tuple[File, Tensor]]:
        """Yield the frames with ground truth and a map, (h, w), in order.

        Added to `irregular`: maps that are missing, belong to no frame, have 8 bits or a single
        value, and unreadable ones, which are left out.
        """
        paths = self._numbered(clip)
        counted = any(path.name.startswith("sal_") for path in paths.values())
        for position, file in enumerate(self.data.clips[clip], 1):
            number = position if counted else file.number
            path = paths.pop(number, None)
            if not file.truth:
                continue
            if path is None:
                irregular.append(("missing map", f"{self.folder / clip}: {number}"))
                continue
            if path.suffix == ".png":
                kind = "map of 8 bits, which may change scores by ties and zeros"
                irregular.append((kind, str(path)))
            try:
                saliency = read_map(path)
            except InputError as error:
                irregular.append(("unusable map", str(error)))
                continue
            if saliency.min() == saliency.max():
                irregular.append(("map of a single value, scored as uniform", str(path)))
            yield file, torch.from_numpy(saliency)
        irregular += [("map of no frame", str(path)) for path in paths.values()]

    def _numbered(self, clip: str) -> dict[int, Path]:
        """Return the maps of a clip by the last number in their names."""
        found: dict[int, Path] = {}
        for kind in (".npy", ".exr", ".png"):
            for path in sorted((self.folder / clip).glob(f"[!.]*{kind}")):
                if digits := re.findall(r"\d+", path.stem):
                    other = found.setdefault(int(digits[-1]), path)
                    if other is not path and other.suffix == kind:
                        raise InputError(f"{path}: has the number of {other.name}; rename one")
        return found


def collect(
    args: argparse.Namespace, sources: list, scorer: Scorer, clips: dict[str, ClipScores]
) -> dict:
    """Return the content of metrics.json, with NaN where there is no score."""
    means = {clip: scores.means() for clip, scores in clips.items() if scores.frames}
    if not means:
        found = summarise([problem for scores in clips.values() for problem in scores.irregular])
        raise InputError(
            f"{args.data_root}: no frame of split '{args.split}' could be scored ({found}); "
            "--check lists what is wrong with the data set"
        )
    predictors = {}
    for p in dict.fromkeys(p for scores in means.values() for p in scores):
        columns = {m: [s.get(p, {}).get(m, math.nan) for s in means.values()] for m in METRICS}
        predictors[p] = {m: summary.over_clips(column) for m, column in columns.items()}
    known = [m for m in METRICS if any(scores[m]["clips"] for scores in predictors.values())]
    results = {
        "data": args.data_root.resolve().name,
        "split": args.split,
        "protocol": args.protocol,
        "grid": list(scorer.size),
        "model": sources[0].name,
        **sources[0].facts,
        "models": {source.name: source.facts for source in sources},
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "frames": sum(len(scores.frames) for scores in clips.values()),
        "notes": notes(scorer, clips, known),
        "metrics": {
            m: {"title": METRICS[m].title, "higher_is_better": METRICS[m].higher_is_better}
            for m in known
        },
        "predictors": {p: {m: scores[m] for m in known} for p, scores in predictors.items()},
        "clips": {
            clip: {"frames": len(clips[clip].frames), "scores": scores}
            for clip, scores in means.items()
        },
    }
    return results | {"differences": summary.differences(results)}


def notes(scorer: Scorer, clips: dict[str, ClipScores], metrics: list[str]) -> list[str]:
    """Return the sentences that a reader of the scores must know."""
    lines = [*scorer.notes]
    if found := sum((scores.irregular for scores in clips.values()), scorer.data.irregular):
        lines.append(f"Problems in the data: {summarise(found)}.")
    if unscored := [clip for clip, scores in clips.items() if not scores.frames]:
        lines.append(f"Clips without usable frames, not scored: {', '.join(unscored)}.")
    absent = [metric for name, metric in METRICS.items() if name not in metrics]
    lines += [f"{metric.title} needs {MISSING[metric.needs[-1]]}." for metric in absent]
    if any(summary.HUMAN in frame for scores in clips.values() for frame in scores.frames.values()):
        lines.append(
            f"Human: how well observers predict each other in every {OBSERVERS_EVERY}th scored "
            f"frame, with fixations blurred by {scorer.sigma:g}°. NSS and AUC leave one observer "
            "out in turn, CC, SIM and KLD compare random halves of the observers."
        )
    elif scorer.fixated:
        lines.append("There are no human scores: they need frames with fixations of two observers.")
    return lines


def best_median_worst(results: dict, clips: dict[str, ClipScores]) -> list[Picture]:
    """Return the pictures of three clips by the first metric, fewer where there are fewer."""
    metric = summary.Comparison(next(iter(results["metrics"])), results)
    last, pictures = len(metric.clips) - 1, []
    ranks = {last: "Worst", last // 2: "Median", 0: "Best"}  # each clip has one rank
    for place, (clip, score, _) in enumerate(reversed(metric.clips)):
        if place in ranks:
            picture = clips[clip].picture
            title = f"{ranks[place]} clip: {metric.title} {score:.3f}; {picture.title}"
            pictures.append(replace(picture, title=title))
    return pictures


def without_nan(content: dict) -> dict:
    """Return the same with None for NaN, which JSON does not have."""
    return json.loads(json.dumps(content), parse_constant=lambda name: None)


def write_csv(path: Path, results: dict) -> None:
    """Write one line for each clip and predictor, with empty cells where there is no score."""
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "frames", "predictor", *results["metrics"]])
        for clip, content in without_nan(results["clips"]).items():
            for predictor, scores in content["scores"].items():
                row = (scores.get(metric) for metric in results["metrics"])
                writer.writerow([clip, content["frames"], predictor, *row])


def check_data(args: argparse.Namespace) -> None:
    """Print the problems of a data set and write check.json; exit status 1 if there are any."""
    report = check.check(args.data_root)
    print(check.summary(report))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(args.output_dir / "check.json", report)
    sys.exit(0 if report["clean"] else 1)


if __name__ == "__main__":
    run_script(processes.session(main))
