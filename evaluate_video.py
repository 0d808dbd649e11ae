"""Score a model, or saved maps, against ground truth, next to floors and the human ceiling.

Clips shared by several GPUs: torchrun --nproc_per_node 4 evaluate_video.py …
"""

import argparse
import csv
import math
import shlex
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import distributed
import models
from cli import InputError, atomic, run_script, write_json
from datasets.check import check
from datasets.layouts import File, unbroken_runs
from datasets.video_saliency import SaliencyVideos, summarise
from distributed import is_main
from metrics import METRICS, Protocol
from metrics.report import write_report
from metrics.summary import FLOORS, HUMAN, against_floor, over_clips, table, verdicts
from models.checkpoint import sha256
from cli import PRECISIONS, autocast, choose_device, choose_precision
from scoring import CEILING_EVERY, SAME_TRUTH, ClipScores, Scorer
from video.motion import MOTIONS, with_motion
from video.reader import read_picture

TITLES = {"cc": "CC", "sim": "SIM", "kld": "KLD", "nss": "NSS", "auc_judd": "AUC-Judd"}
TITLES |= {"sauc": "sAUC"}
MISSING = {  # by the last truth that a metric needs, where no frame has a score
    "target": "ground truth that is not constant",
    "fixations": "fixations",
    "others": "fixations of other clips",
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data_root", type=Path, default="360_Saliency_dataset_2018ECCV", help="data set")
    add("--split", default="test", help="whose clips are scored: test, val or train")
    add("--train_root", type=Path, help="data set whose training maps make the mean map among the "
        "floors; data_root if not given")  # fmt: skip
    add("--ckpt_path", type=Path, default="checkpoints/cube_unet_best.pth", help="checkpoint")
    add("--pred_dir", type=Path, help="score the maps PRED_DIR/<clip>/sal_0001.npy or .png, as "
        "infer_video.py writes them, instead of a checkpoint")  # fmt: skip
    add("--output_dir", type=Path, default="outputs/evaluate", help="for the files with scores")
    add("--report", action="store_true", help="also write a page with pictures, report.html")
    add("--protocol", default="sphere", choices=Protocol.NAMES, help="sphere: weighted with "
        "exact solid angles; planar: each pixel counts the same; sin: planar, both maps "
        "multiplied by the sine of the colatitude before")  # fmt: skip
    add("--height", type=int, default=240, help="rows of the grid on which maps are compared")
    add("--sigma", type=float, default=3.34, help="degrees, of the Gaussian that the truth was "
        "made with; only for the human ceiling")  # fmt: skip
    add("--check", action="store_true", help="only list what is wrong with the data set")
    add("--motion", choices=list(MOTIONS), help="how flow is estimated; the model's if not given")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--precision", default="auto", choices=["auto", *PRECISIONS], help="of the network")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.check:
        return check_data(args)
    if not 8 <= args.height <= 4096:
        raise InputError(f"--height {args.height}: give 8 to 4096 rows, 240 are usual")
    if not 0.5 <= args.sigma <= 30:
        raise InputError(f"--sigma {args.sigma}: give 0.5 to 30 degrees")
    source = SavedMaps(args) if args.pred_dir else Network(args)
    scorer = Scorer(source.data, args.protocol, args.height, args.sigma, args.train_root)
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
    write_json(args.output_dir / "metrics.json", without_nan(results))
    write_csv(args.output_dir / "metrics.csv", results)
    if args.report:
        series = {clip: {"numbers": c.numbers, "scores": c.frames} for clip, c in clips.items()}
        pictures = best_median_worst(results, clips)
        write_report(args.output_dir / "report.html", results, series, pictures)
    print(f"metrics.json, metrics.csv{' and report.html' * args.report} in {args.output_dir}")


class Network:
    """The maps that a checkpoint's model makes of a data set's clips."""

    def __init__(self, args: argparse.Namespace):
        self.device = choose_device(args.device)
        self.dtype = choose_precision(args.precision, self.device)
        self.model = models.load(args.ckpt_path, self.device)
        spec = self.model.spec = with_motion(self.model.spec, args.motion, args.ckpt_path)
        spec = replace(spec, clip_length=1, skip_frames=0)
        self.data = SaliencyVideos(args.data_root, args.split, spec)
        self.name = self.model.name
        self.facts = {"checkpoint": args.ckpt_path.name, "sha256": sha256(args.ckpt_path)}
        self.irregular: list[tuple[str, str]] = []

    def maps(self, clip: str) -> Iterator[tuple[File, Tensor]]:
        """Readable frames with their maps, (h, w), in order. A gap makes a new beginning."""
        for run in unbroken_runs(self.data.clips[clip]):
            waiting: deque[tuple[File, bool]] = deque()

            def frames(run=run, waiting=waiting):
                for file, (frame, readable) in zip(
                    run, self.data.read_run(None, run, self.irregular)
                ):
                    waiting.append((file, readable))
                    yield frame

            maps = models.predict(self.model, frames())
            while True:
                with autocast(self.device, self.dtype):  # not where the maps are scored
                    saliency = next(maps, None)
                if saliency is None:
                    break
                file, readable = waiting.popleft()
                if readable:
                    yield file, saliency[0]


class SavedMaps:
    """The maps in <folder>/<clip>: float .npy where there is one, else the 8-bit picture."""

    def __init__(self, args: argparse.Namespace):
        self.folder = args.pred_dir
        if not self.folder.is_dir():
            raise InputError(f"--pred_dir {self.folder}: no such folder; check the path")
        self.data = SaliencyVideos(args.data_root, args.split, models.Spec())
        self.name = self.folder.resolve().name
        if self.name in (*FLOORS, HUMAN):
            self.name += " (maps)"
        self.facts = {"maps": self.folder.name}
        self.irregular: list[tuple[str, str]] = []

    def maps(self, clip: str) -> Iterator[tuple[File, Tensor]]:
        """Frames with ground truth and their maps, in order. InputError for a missing one."""
        for position, file in enumerate(self.data.clips[clip], 1):
            if file.truth:
                yield file, self._read(self.folder / clip / f"sal_{position:04d}.npy")

    def _read(self, path: Path) -> Tensor:
        if not path.exists() and (picture := path.with_suffix(".png")).exists():
            self.irregular.append(
                ("map of 8 bits, whose ties and zeros change scores", str(picture))
            )
            return torch.from_numpy(read_picture(picture)[..., 0].astype(np.float32))
        try:
            saliency = np.squeeze(np.load(path, allow_pickle=False))
        except FileNotFoundError as error:
            raise InputError(
                f"{path}: no such map, nor .png; make it with infer_video.py"
            ) from error
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: can't be read; make it again") from error
        if saliency.ndim != 2 or not saliency.size or saliency.dtype.kind not in "fiu":
            what = f"{saliency.shape} of {saliency.dtype}"
            raise InputError(f"{path}: expected a map (H, W), got {what}; make it again")
        return torch.from_numpy(saliency.astype(np.float32))


def collect(args: argparse.Namespace, source, scorer: Scorer, clips: dict[str, ClipScores]) -> dict:
    """All that is known, as metrics.json holds it and the report shows it."""
    means = {clip: scores.means() for clip, scores in clips.items() if scores.numbers}
    if not means:
        raise InputError(f"{args.data_root}: no frame of split '{args.split}' could be scored")
    predictors = list(dict.fromkeys(p for scores in means.values() for p in scores))
    metrics = [
        metric
        for metric in METRICS
        if any(math.isfinite(s.get(metric, math.nan)) for c in means.values() for s in c.values())
    ]
    results = {
        "data": args.data_root.resolve().name,
        "split": args.split,
        "protocol": args.protocol,
        "grid": list(scorer.size),
        "model": source.name,
        **source.facts,
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "frames": sum(len(scores.numbers) for scores in clips.values()),
        "notes": notes(source, scorer, clips, metrics),
        "metrics": {
            m: {"title": TITLES[m], "higher_is_better": METRICS[m].higher_is_better}
            for m in metrics
        },
        "predictors": {
            p: {
                m: over_clips([scores.get(p, {}).get(m, math.nan) for scores in means.values()])
                for m in metrics
            }
            for p in predictors
        },
        "clips": {
            clip: {"frames": len(clips[clip].numbers), "scores": scores}
            for clip, scores in means.items()
        },
    }
    return results | {"against_floor": against_floor(results)}


def notes(source, scorer: Scorer, clips: dict[str, ClipScores], metrics: list[str]) -> list[str]:
    """What a reader of the table must know."""
    found = source.data.irregular + source.irregular + scorer.irregular
    lines = [*scorer.notes]
    if found:
        lines.append(f"In the data: {summarise(found)}.")
    if unscored := [clip for clip, scores in clips.items() if not scores.numbers]:
        lines.append(f"Not scored, for want of usable frames: {', '.join(unscored)}.")
    absent = (metric for metric in METRICS if metric not in metrics)
    lines += [f"{TITLES[m]} needs {MISSING[METRICS[m].needs[-1]]}." for m in absent]
    if any(scores.human for scores in clips.values()):
        lines.append(
            f"Human: what the fixations of as many other people would score with a Gaussian of "
            f"{scorer.sigma:g}°, from how the observers predict each other in every "
            f"{CEILING_EVERY}th scored frame."
        )
        if (same := float(np.median(scorer.like_truth))) < SAME_TRUTH:
            lines.append(
                f"The ground truth is not the fixations blurred by {scorer.sigma:g}° (correlation "
                f"{same:.2f}), so the human ceiling is not that of this truth; give its --sigma."
            )
    elif scorer.fixated:
        lines.append("No human ceiling: it needs frames with fixations of four people.")
    return lines


def best_median_worst(results: dict, clips: dict[str, ClipScores]) -> list:
    """Pictures of three clips by the first metric, fewer where there are fewer clips."""
    metric, facts = next(iter(results["metrics"].items()))
    scores = {c: s["scores"][results["model"]][metric] for c, s in results["clips"].items()}
    scored = filter(lambda clip: math.isfinite(scores[clip]), scores)
    order = sorted(scored, key=scores.get, reverse=facts["higher_is_better"])
    ranks = {len(order) // 2: "Median", len(order) - 1: "Worst", 0: "Best"} if order else {}
    ranks = {0: "Only"} if len(order) == 1 else ranks
    return [
        replace(
            picture,
            title=f"{ranks[k]} clip: {facts['title']} {scores[order[k]]:.3f}; {picture.title}",
        )
        for k in sorted(ranks)
        if (picture := clips[order[k]].picture)
    ]


def without_nan(content):
    """For JSON, which has no NaN: null."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_csv(path: Path, results: dict) -> None:
    """One line for each clip and predictor; no number where there is no score."""
    metrics = list(results["metrics"])
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "frames", "predictor", *metrics])
        for clip, content in results["clips"].items():
            for predictor, scores in content["scores"].items():
                row = (scores.get(metric, math.nan) for metric in metrics)
                known = (score if math.isfinite(score) else None for score in row)
                writer.writerow([clip, content["frames"], predictor, *known])


def check_data(args: argparse.Namespace) -> None:
    """Print what is wrong with a data set; all of it goes to check.json. Exit status 1 if any."""
    report = check(args.data_root)
    print(report.text())
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(args.output_dir / "check.json", report.as_dict())
    sys.exit(0 if report.clean else 1)


if __name__ == "__main__":
    run_script(distributed.session(main))
