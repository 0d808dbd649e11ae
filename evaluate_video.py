"""Score a model, or saved maps, against ground truth, beside baselines and human observers.

Several GPUs share the clips: torchrun --nproc_per_node 4 evaluate_video.py …
"""

import argparse
import csv
import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import cli
import distributed
import models
from cli import InputError
from datasets.check import check, summary
from datasets.layouts import File, unbroken_runs
from datasets.video_saliency import SaliencyVideos, summarise
from distributed import is_main
from metrics import METRICS, Protocol
from metrics.plots import Picture
from metrics.report import write_report
from metrics.summary import BASELINES, HUMAN, against_baseline, over_clips, table, verdicts
from models.checkpoint import sha256
from scoring import OBSERVERS_EVERY, ClipScores, Scorer
from video.motion import MOTIONS
from video.reader import read_picture

MISSING = {  # by the last truth that a metric needs, where no frame has a score
    "target": "ground truth that is not constant",
    "fixations": "fixations",
    "others": "fixations of other clips",
}
SAME_TRUTH = 0.98  # least correlation of the ground truth with its own fixations, blurred


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    add = parser.add_argument
    add("--data_root", type=Path, default="360_Saliency_dataset_2018ECCV", help="data set")
    add("--split", default="test", help="split whose clips are scored: test, val or train")
    add("--train_root", type=Path, help="data set whose training maps make the mean map "
        "among the baselines (default: data_root)")  # fmt: skip
    add("--ckpt_path", type=Path, default="checkpoints/cube_unet_best.pth", help="checkpoint")
    add("--pred_dir", type=Path, help="score the maps PRED_DIR/<clip>/sal_0001.npy or "
        ".png, as infer_video.py writes them, instead of a checkpoint")  # fmt: skip
    add("--output_dir", type=Path, default="outputs/evaluate", help="folder for the results")
    add("--report", action="store_true", help="also write report.html with plots and pictures")
    add("--protocol", default="sphere", choices=Protocol.NAMES, help="sphere: pixels are weighted "
        "with their exact solid angles; planar: every pixel counts the same; sin: planar, after "
        "both maps are multiplied by the sine of the colatitude")  # fmt: skip
    add("--height", type=int, default=240, help="rows of the grid on which maps are compared")
    add("--sigma", type=float, default=3.34, help="width in degrees of the Gaussian that the "
        "ground truth was made with; used for the inter-observer scores only")  # fmt: skip
    add("--check", action="store_true", help="only check the data set and list its problems")
    add("--motion", choices=list(MOTIONS), help="motion estimator (default: the model's)")
    cli.add_machine_options(add)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.check:
        return check_data(args)
    if not 8 <= args.height <= 4096:
        raise InputError(f"--height {args.height}: give 8 to 4096 rows; 240 are usual")
    if not 0.5 <= args.sigma <= 30:
        raise InputError(f"--sigma {args.sigma}: give 0.5 to 30 degrees")
    device = cli.choose_device(args.device)
    source = SavedMaps(args) if args.pred_dir else Network(args, device)
    scorer = Scorer(source.data, args.protocol, args.height, args.sigma, args.train_root, device)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    mine = distributed.shard(source.data.clips)
    clips = {
        clip: scorer.score(clip, source.name, source.maps(clip), args.report)
        for clip in tqdm(mine, "scoring", unit="clip", disable=not is_main(), dynamic_ncols=True)
    }
    clips = distributed.merge(clips, list(source.data.clips))
    for found in (source.irregular, scorer.irregular, scorer.like_truth):
        found[:] = sum(distributed.gather(list(found)), [])
    if not is_main():
        return
    results = collect(args, source, scorer, clips)
    print("\n\n".join([table(results), verdicts(results), "\n".join(results["notes"])]))
    cli.write_json(args.output_dir / "metrics.json", without_nan(results))
    write_csv(args.output_dir / "metrics.csv", results)
    if args.report:
        scored = {clip: scores for clip, scores in clips.items() if scores.numbers}
        series = {c: {"numbers": s.numbers, "scores": s.frames} for c, s in scored.items()}
        pictures = best_median_worst(results, clips)
        write_report(args.output_dir / "report.html", results, series, pictures)
    print(f"metrics.json, metrics.csv{' and report.html' * args.report} in {args.output_dir}")


class RunFrame(NamedTuple):
    """A frame as `models.predict` takes it, with its file; an unreadable one is not scored."""

    file: File
    readable: bool
    rgb: Tensor
    motion: Tensor


class Network:
    """The maps that a checkpoint's model predicts for a data set's clips."""

    def __init__(self, args: argparse.Namespace, device: torch.device):
        self.model = models.load(args.ckpt_path, device)
        with cli.advice(f"--motion {args.motion}"):
            self.model.use_motion(args.motion)
        # Only the network runs in mixed precision, not the metrics between two of its maps.
        precision = cli.autocast(device, cli.choose_precision(args.precision, device))
        self.model.forward = precision(self.model.forward)
        spec = replace(self.model.spec, clip_length=1)
        self.data = SaliencyVideos(args.data_root, args.split, spec)
        self.name = self.model.name
        self.facts = {"checkpoint": args.ckpt_path.name, "sha256": sha256(args.ckpt_path)}
        self.irregular: list[tuple[str, str]] = []

    def maps(self, clip: str) -> Iterator[tuple[File, Tensor]]:
        """Yield the readable frames of a clip with their maps, (h, w), in order.

        After a gap in the numbering, the model starts anew.
        """
        for run in unbroken_runs(self.data.clips[clip]):
            frames = (
                RunFrame(file, readable, frame.rgb, frame.motion)
                for file, (frame, readable) in zip(
                    run, self.data.read_run(None, run, self.irregular)
                )
            )
            for frame, saliency in models.predict(self.model, frames):
                if frame.readable:
                    yield frame.file, saliency[0]


class SavedMaps:
    """The maps in <folder>/<clip>: a float .npy file where there is one, else an 8-bit picture."""

    def __init__(self, args: argparse.Namespace):
        self.folder = args.pred_dir
        if not self.folder.is_dir():
            raise InputError(f"--pred_dir {self.folder}: no such folder; check the path")
        self.data = SaliencyVideos(args.data_root, args.split, models.Spec())
        self.name = self.folder.resolve().name
        if self.name in (*BASELINES, HUMAN):
            self.name += " (maps)"
        self.facts = {"maps": self.folder.name}
        self.irregular: list[tuple[str, str]] = []

    def maps(self, clip: str) -> Iterator[tuple[File, Tensor]]:
        """Yield the frames with ground truth and their maps, (h, w), in order.

        Raises InputError for a missing or unreadable map.
        """
        for position, file in enumerate(self.data.clips[clip], 1):
            if file.truth:
                yield file, self._read(self.folder / clip / f"sal_{position:04d}.npy")

    def _read(self, path: Path) -> Tensor:
        if not path.exists() and (picture := path.with_suffix(".png")).exists():
            kind = "map of 8 bits, which may change scores by ties and zeros"
            self.irregular.append((kind, str(picture)))
            return torch.from_numpy(read_picture(picture)[..., 0].astype(np.float32))
        try:
            saliency = np.squeeze(np.load(path, allow_pickle=False))
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such map, nor .png; run infer_video.py") from error
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: the map is unreadable; make it again") from error
        if saliency.ndim != 2 or not saliency.size or saliency.dtype.kind not in "fiu":
            what = f"{saliency.shape} of {saliency.dtype}"
            raise InputError(f"{path}: expected a map (H, W), got {what}; make it again")
        return torch.from_numpy(saliency.astype(np.float32))


def collect(args: argparse.Namespace, source, scorer: Scorer, clips: dict[str, ClipScores]) -> dict:
    """Return the content of metrics.json, with NaN where there is no score."""
    means = {clip: scores.means() for clip, scores in clips.items() if scores.numbers}
    if not means:
        raise InputError(
            f"{args.data_root}: no frame of split '{args.split}' could be scored; "
            "--check lists what is wrong with the data set"
        )
    predictors = list(dict.fromkeys(p for scores in means.values() for p in scores))
    columns = {  # scores of all clips by predictor and metric
        p: {m: [scores.get(p, {}).get(m, math.nan) for scores in means.values()] for m in METRICS}
        for p in predictors
    }
    known = [m for m in METRICS if np.isfinite([columns[p][m] for p in predictors]).any()]
    results = {
        "data": args.data_root.resolve().name,
        "split": args.split,
        "protocol": args.protocol,
        "grid": list(scorer.size),
        "model": source.name,
        **source.facts,
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "frames": sum(len(scores.numbers) for scores in clips.values()),
        "notes": notes(source, scorer, clips, known),
        "metrics": {
            m: {"title": METRICS[m].title, "higher_is_better": METRICS[m].higher_is_better}
            for m in known
        },
        "predictors": {p: {m: over_clips(columns[p][m]) for m in known} for p in predictors},
        "clips": {
            clip: {"frames": len(clips[clip].numbers), "scores": scores}
            for clip, scores in means.items()
        },
    }
    return results | {"against_floor": against_baseline(results)}


def notes(source, scorer: Scorer, clips: dict[str, ClipScores], metrics: list[str]) -> list[str]:
    """Return the sentences that a reader of the scores must know."""
    lines = [*scorer.notes]
    if found := source.data.irregular + source.irregular + scorer.irregular:
        lines.append(f"Problems in the data: {summarise(found)}.")
    if unscored := [clip for clip, scores in clips.items() if not scores.numbers]:
        lines.append(f"Clips without usable frames, not scored: {', '.join(unscored)}.")
    absent = [metric for name, metric in METRICS.items() if name not in metrics]
    lines += [f"{metric.title} needs {MISSING[metric.needs[-1]]}." for metric in absent]
    if any(HUMAN in scores.frames for scores in clips.values()):
        lines.append(
            f"Human: how well observers predict each other in every {OBSERVERS_EVERY}th scored "
            f"frame, with fixations blurred by {scorer.sigma:g}°. NSS and AUC leave one observer "
            "out in turn, CC, SIM and KLD compare random halves of the observers."
        )
        if (correlation := float(np.median(scorer.like_truth))) < SAME_TRUTH:
            lines.append(
                f"The ground truth differs from its fixations blurred by {scorer.sigma:g}° "
                f"(correlation {correlation:.2f}), so the human scores do not belong to it; give "
                "the width of its Gaussian with --sigma."
            )
    elif scorer.fixated:
        lines.append("There are no human scores: they need frames with fixations of two observers.")
    return lines


def best_median_worst(results: dict, clips: dict[str, ClipScores]) -> list[Picture]:
    """Return the pictures of three clips by the first metric, fewer where there are fewer."""
    metric, facts = next(iter(results["metrics"].items()))
    scores = {c: s["scores"][results["model"]][metric] for c, s in results["clips"].items()}
    scored = filter(lambda clip: math.isfinite(scores[clip]), scores)
    order = sorted(scored, key=scores.get, reverse=facts["higher_is_better"])
    ranks = {0: "Best", len(order) // 2: "Median", len(order) - 1: "Worst"}
    if len(order) == 1:
        ranks = {0: "Only"}
    pictures = []
    for rank, clip in enumerate(order):
        if rank in ranks:
            picture, score = clips[clip].picture, f"{facts['title']} {scores[clip]:.3f}"
            title = f"{ranks[rank]} clip: {score}; {picture.title}"
            pictures.append(replace(picture, title=title))
    return pictures


def without_nan(content):
    """Return nested dictionaries and lists with None for NaN, which JSON does not have."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_csv(path: Path, results: dict) -> None:
    """Write one line for each clip and predictor, with empty cells where there is no score."""
    with cli.atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "frames", "predictor", *results["metrics"]])
        for clip, content in without_nan(results["clips"]).items():
            for predictor, scores in content["scores"].items():
                row = (scores.get(metric) for metric in results["metrics"])
                writer.writerow([clip, content["frames"], predictor, *row])


def check_data(args: argparse.Namespace) -> None:
    """Print the problems of a data set and write check.json; exit status 1 if there are any."""
    report = check(args.data_root)
    print(summary(report))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    cli.write_json(args.output_dir / "check.json", report)
    sys.exit(0 if report["clean"] else 1)


if __name__ == "__main__":
    cli.run_script(distributed.session(main))
