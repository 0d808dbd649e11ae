"""Make a data set for training from 360° videos and recorded gaze, in the ECCV 2018 layout.

    python -m prepare.recordings --videos VIDEOS --gaze GAZE --output DATA

Each video with a CSV file of the same name (time,longitude,latitude,observer; see
datasets/gaze_files.py) becomes a clip:

    DATA/<clip>/0001.jpg        frames, sampled as by `read_frames`, numbered from 1
    DATA/<clip>/0001_gt.npy     float32 (H, W): Σ exp(−d²/2σ²) over the frame's fixations;
                                missing where a frame has none
    DATA/<clip>/fixations.csv   these fixations, by frame number
    DATA/<clip>/prepared.json   what the clip was made from; "complete" once it is
    DATA/splits.json            splits of all complete clips in DATA
"""

import argparse
import hashlib
import json
import math
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from tqdm import tqdm

from cli import HelpFormatter, InputError, atomic, run_script, write_json
from datasets.gaze import SIGMAS, gaussian_map
from datasets.gaze_files import Fixations, Gaze, read_gaze_csv, write_fixations_csv
from datasets.layouts import read_splits_file
from video.reader import read_frames

VIDEOS = {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm"}
RECORD = "prepared.json"
OURS = re.compile(r"\d+(\.jpg|_gt\.npy)|fixations\.csv")
ROUNDING = 1e-6  # seconds that a time written as a decimal may lie before its frame


def pair(videos: Path, gaze: Path) -> tuple[dict[str, tuple[Path, Path]], list[str], list[str]]:
    """Return clips by name as (video, gaze file), videos without gaze, gaze without video.

    videos, gaze: folders, or one file each, which then belong together whatever their names.
    Raises InputError where there is no pair or two files would become one clip.
    """
    if videos.is_file() and gaze.is_file():
        return {videos.stem: (videos, gaze)}, [], []
    films, tables = _by_stem(videos, VIDEOS), _by_stem(gaze, {".csv"})
    pairs = {name: (films[name], tables[name]) for name in sorted(films.keys() & tables.keys())}
    if not pairs:
        raise InputError(
            f"{videos} and {gaze}: none of {len(films)} videos has the name of one of "
            f"{len(tables)} CSV files; name them alike, as 001.mp4 and 001.csv"
        )
    return pairs, sorted(films.keys() - pairs.keys()), sorted(tables.keys() - pairs.keys())


def _by_stem(path: Path, suffixes: set[str]) -> dict[str, Path]:
    """Return one file, or those of a folder with one of the suffixes, by name without suffix."""
    if path.is_file():
        return {path.stem: path}
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in suffixes:
            if file.stem in found:
                raise InputError(f"{file} and {found[file.stem]}: would be one clip; rename one")
            found[file.stem] = file
    return found


def active_fixations(
    gaze: Gaze, starts: np.ndarray, end: float, window: float | None = None
) -> Fixations:
    """Return gaze samples as fixations of frames 1 … F, in the order of the frames.

    starts: (F,) seconds at which the frames begin, increasing; end: when the last one ends.
    window: seconds of gaze for each frame, half of them before it begins. If None, a sample
    belongs to the frame shown at its time, so to one frame at most.
    """
    times = gaze.seconds + ROUNDING
    begins = np.asarray(starts, dtype=np.float64)
    ends = np.append(begins[1:], end)
    if window is not None:
        begins, ends = begins - window / 2, begins + window / 2
    samples = [np.flatnonzero((b <= times) & (times < e)) for b, e in zip(begins, ends)]
    frames = np.repeat(np.arange(len(samples)) + 1, [len(shown) for shown in samples])
    sample = np.concatenate(samples)
    return Fixations(
        frames, gaze.longitudes[sample], gaze.latitudes[sample], gaze.observers[sample]
    )


def write_clip(folder: Path, video: Path, table: Path, options: dict) -> None:
    """Write one clip, unless it is complete and made from the same files with the same options.

    options: sigma (degrees), fps, window (seconds or None), height, width, gt_height, gt_width.
    Raises InputError for unusable files, and where the folder contains other frames.
    """
    facts = {
        "video": {"name": video.name, "bytes": video.stat().st_size},
        "gaze": {"name": table.name, "sha256": hashlib.sha256(table.read_bytes()).hexdigest()},
        **options,
    }
    record = read_record(folder)
    if {**facts, "complete": True}.items() <= record.items():
        return
    gaze = read_gaze_csv(table)
    folder.mkdir(parents=True, exist_ok=True)
    there = [path for path in folder.iterdir() if OURS.fullmatch(path.name)]
    if there and not record:
        raise InputError(f"{folder}: contains other frames; choose another output folder")
    write_json(folder / RECORD, {**facts, "complete": False})
    for path in there:
        path.unlink()
    starts, end = write_frames(folder, video, options)
    fixations = active_fixations(gaze, starts, end, options["window"])
    if not len(fixations.frames):
        raise InputError(
            f"{table}: no sample falls on the {end:.1f} s of {video.name} (times from "
            f"{gaze.seconds.min():g} to {gaze.seconds.max():g}); time must be in seconds since "
            "its first frame"
        )
    frames = np.unique(fixations.frames).tolist()
    for frame in frames:
        size = options["gt_height"], options["gt_width"]
        truth = gaussian_map(*fixations.at(frame), *size, options["sigma"])
        with atomic(folder / f"{frame:04d}_gt.npy", durable=False) as path:
            np.save(path, truth.numpy())
    write_fixations_csv(folder / "fixations.csv", fixations)
    outside = (gaze.seconds < -ROUNDING) | (gaze.seconds >= end)
    counts = {
        "frames": len(starts),
        "with_gaze": len(frames),
        "fixations": len(fixations.frames),
        "samples": len(gaze.seconds),
        "samples_outside": int(outside.sum()),
    }
    write_json(folder / RECORD, {**facts, **counts, "complete": True})


def write_frames(folder: Path, video: Path, options: dict) -> tuple[list[float], float]:
    """Write the sampled frames. Return when each begins and when the last one ends, in seconds."""
    reader = read_frames(video, SimpleNamespace(**options, motion="none"))
    total = reader.info.frames and math.ceil(reader.info.frames / reader.step)
    starts: list[float] = []
    for frame in tqdm(reader, folder.name, total, leave=False, unit="frame"):
        starts.append(frame.seconds)
        picture = (frame.rgb * 255).round().byte().permute(1, 2, 0).numpy()
        with atomic(folder / f"{len(starts):04d}.jpg", durable=False) as path:
            Image.fromarray(picture).save(path, quality=92)
    return starts, starts[-1] + (reader.decoded - frame.number + 1) / float(reader.info.fps)


def read_record(folder: Path) -> dict:
    """Return the content of a clip's prepared.json, empty where there is none."""
    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def split(names: list[str], splits: str) -> dict[str, list[str]]:
    """Return the names of clips by split.

    splits: path of a JSON file {"train": [name, …], …}, of which existing names are kept; or
    fractions that sum to 1, "train=0.7,val=0.1,test=0.2". Names are drawn for fractions in an
    order that depends on the names alone. A split is empty only where there are fewer names
    than splits.
    Raises InputError for anything else, and for a file without an existing name.
    """
    if "=" not in splits or Path(splits).is_file():
        listed = read_splits_file(Path(splits))
        kept = {key: [name for name in listed[key] if name in names] for key in listed}
        if not any(kept.values()):
            raise InputError(
                f"{splits}: has none of the clips {', '.join(names[:5])} …; correct it"
            )
        return kept
    try:
        shares = {key: float(share) for key, share in (i.split("=") for i in splits.split(","))}
    except ValueError:
        shares = {}
    if not shares or not (min(shares.values()) > 0 and abs(sum(shares.values()) - 1) < 1e-6):
        raise InputError(
            f"splits {splits}: give fractions that sum to 1, as train=0.7,val=0.1,test=0.2, "
            "or an existing JSON file"
        )
    drawn = random.Random(0).sample(sorted(names), len(names))
    counts = {name: int(n < len(names)) for n, name in enumerate(shares)}
    while sum(counts.values()) < len(names):
        lacking = max(shares, key=lambda name: shares[name] * len(names) - counts[name])
        counts[lacking] += 1
    remaining = iter(drawn)
    return {name: sorted(next(remaining) for _ in range(n)) for name, n in counts.items()}


def print_summary(root: Path, clips: list[str], splits: dict[str, list[str]]) -> None:
    """Print what the data set contains, and what is unusual in it."""
    records = {clip: read_record(root / clip) for clip in clips}
    total = {
        key: sum(record[key] for record in records.values())
        for key in ("frames", "with_gaze", "fixations")
    }
    print(f"{root}: {len(clips)} clips, {total['frames']} frames, {total['fixations']} fixations")
    print("splits: " + ", ".join(f"{name} {len(names)}" for name, names in splits.items()))
    if empty := [name for name, names in splits.items() if not names]:
        print(f"no clips in {', '.join(empty)}: add recordings or choose other splits")
    if unused := sorted(set(clips) - {name for names in splits.values() for name in names}):
        print(f"{len(unused)} clips in no split: {', '.join(unused)}")
    if without := total["frames"] - total["with_gaze"]:
        print(f"{without} frames without gaze have no ground truth")
    for clip, record in records.items():
        if outside := record["samples_outside"]:
            share = f"{outside} of {record['samples']}"
            print(f"{clip}: {share} gaze samples are before or after the video")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m prepare.recordings",
        description="Make a data set for training from 360° videos and recorded gaze. Run the "
        "same command again to continue after an interruption.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--videos", type=Path, required=True, help="folder of videos, or one video")
    add("--gaze", type=Path, required=True,
        help="folder of CSV files named as the videos, or one file; a header and time (seconds), "
        "longitude (degrees to the right), latitude (degrees upwards), observer")  # fmt: skip
    add("--output", type=Path, required=True, help="folder of the data set")
    add("--sigma", type=float, default=3.34,
        help="standard deviation of the Gaussian around a fixation in degrees, 0.5 to 30; "
        "datasets/gaze.py lists the values of published data sets")  # fmt: skip
    add("--fps", type=float, default=8.0,
        help="frames a second to keep: every round(video rate / fps)-th frame")  # fmt: skip
    add("--window", type=float, metavar="SECONDS",
        help="gaze for each frame, half before and half after it begins; if not given, the gaze "
        "while the frame is shown")  # fmt: skip
    add("--height", type=int, default=240, help="height of a frame in pixels")
    add("--width", type=int, default=480, help="width of a frame in pixels")
    add("--gt_height", type=int, default=128, help="height of a saliency map in pixels")
    add("--gt_width", type=int, default=256, help="width of a saliency map in pixels")
    add("--splits", default="train=0.7,val=0.1,test=0.2",
        help="fractions of the clips, or a JSON file with lists of their names")  # fmt: skip
    return parser.parse_args()


def main() -> None:
    args = parse()
    names = ("sigma", "fps", "window", "height", "width", "gt_height", "gt_width")
    options = {name: getattr(args, name) for name in names}
    for name, value in options.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name} must be positive, got {value}")
    if not SIGMAS[0] <= args.sigma <= SIGMAS[1]:
        raise InputError(f"--sigma must be within {SIGMAS} degrees, got {args.sigma}")
    pairs, without_gaze, without_video = pair(args.videos, args.gaze)
    if "frames" in pairs:  # a folder of this name marks the other layout of datasets/layouts.py
        raise InputError(f"{pairs['frames'][0]}: a clip can't have this name; rename it")
    split(list(pairs), args.splits)  # finds a mistake in --splits before the work begins
    for name, files in tqdm(pairs.items(), str(args.output), unit="clip"):
        write_clip(args.output / name, *files, options)
    folders = [path.parent for path in sorted(args.output.glob(f"*/{RECORD}"))]
    clips = [folder.name for folder in folders if read_record(folder).get("complete")]
    splits = split(clips, args.splits)
    write_json(args.output / "splits.json", splits)
    print_summary(args.output, clips, splits)
    if without_gaze:
        print(f"{len(without_gaze)} videos without gaze: {', '.join(without_gaze)}")
    if without_video:
        print(f"{len(without_video)} gaze files without video: {', '.join(without_video)}")


if __name__ == "__main__":
    run_script(main)
