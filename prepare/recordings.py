"""Videos and gaze → a data set for training, in the layout of ECCV 2018.

    python -m prepare.recordings --videos VIDEOS --gaze GAZE --output DATA

Each video with a CSV file of the same name (time,longitude,latitude,observer: see gaze_files.py)
becomes a clip:

    DATA/<clip>/0001.jpg        frames, sampled as `read_frames` does, numbered from 1
    DATA/<clip>/0001_gt.npy     float32 (H, W): Σ exp(−d²/2σ²) over the frame's fixations;
                                missing where a frame has none
    DATA/<clip>/fixations.csv   those fixations, by the numbers of the written frames
    DATA/<clip>/prepared.json   what it was made of; "complete" comes last
    DATA/splits.json            of all complete clips in DATA
"""

import argparse
import hashlib
import json
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from tqdm import tqdm

from cli import InputError, atomic, run_script, write_json
from datasets.gaze import (
    SIGMAS,
    active_fixations,
    gaussian_map,
    read_gaze_csv,
    write_fixations_csv,
)
from video.reader import read_frames

VIDEOS = {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm"}
RECORD = "prepared.json"
OURS = re.compile(r"\d+(\.jpg|_gt\.npy)|fixations\.csv")


def pair(videos: Path, gaze: Path) -> tuple[dict[str, tuple[Path, Path]], list[str], list[str]]:
    """Clips by name as (video, gaze file); videos without gaze; gaze without video.

    Two files belong together whatever their names. Raises InputError where nothing does.
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
    """The files of a folder with one of the suffixes, or one file, by name without suffix."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the path")
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if path.is_dir() and file.suffix.lower() not in suffixes:
            continue
        if file.stem in found:
            raise InputError(f"{file} and {found[file.stem]}: would be one clip; rename one")
        found[file.stem] = file
    return found


def write_clip(folder: Path, video: Path, table: Path, options: dict) -> None:
    """Write one clip, unless it is there already, made of the same files and options.

    options: sigma (degrees), fps, window (seconds or None), height, width, gt_height, gt_width.
    Raises InputError for unusable files, and where the folder holds other frames.
    """
    facts = {
        "video": {"name": video.name, "bytes": video.stat().st_size},
        "gaze": {"name": table.name, "sha256": hashlib.sha256(table.read_bytes()).hexdigest()},
        **options,
    }
    record = read_record(folder)
    if record.get("complete") and all(record.get(name) == fact for name, fact in facts.items()):
        return
    gaze = read_gaze_csv(table)
    folder.mkdir(parents=True, exist_ok=True)
    there = [path for path in folder.iterdir() if OURS.fullmatch(path.name)]
    if there and not record:
        raise InputError(f"{folder}: holds frames of another origin; choose another --output")
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
    outside = int(((gaze.seconds < -1e-6) | (gaze.seconds >= end)).sum())
    counts = {"frames": len(starts), "with_gaze": len(frames), "fixations": len(fixations.frames)}
    samples = {"samples": len(gaze.seconds), "samples_outside": outside}
    write_json(folder / RECORD, {**facts, **counts, **samples, "complete": True})


def write_frames(folder: Path, video: Path, options: dict) -> tuple[list[float], float]:
    """Write the sampled frames. Returns when each begins and when the last one ends, in seconds."""
    reader = read_frames(video, SimpleNamespace(**options, motion="none"))
    total = reader.info.frames and math.ceil(reader.info.frames / reader.step)
    starts: list[float] = []
    number = 0
    for frame in tqdm(reader, folder.name, total, leave=False, unit="frame"):
        number = frame.number
        starts.append(frame.seconds)
        picture = (frame.rgb * 255).round().byte().permute(1, 2, 0).numpy()
        with atomic(folder / f"{len(starts):04d}.jpg", durable=False) as path:
            Image.fromarray(picture).save(path, quality=92)
    return starts, starts[-1] + (reader.decoded - number + 1) / float(reader.info.fps)


def read_record(folder: Path) -> dict:
    """What prepared.json says of a clip; nothing where there is none."""
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete this clip's folder") from error


def split(names: list[str], splits: str) -> dict[str, list[str]]:
    """Clips by split.

    splits: a JSON file of lists of names, of which those that are there are kept; or fractions,
    "train=0.7,val=0.1,test=0.2", of the names in an order drawn from them with a fixed seed.
    A split gets no clip only where there are fewer clips than splits.
    Raises InputError for anything else, and where no list has a clip that is there.
    """
    if "=" not in splits or Path(splits).is_file():
        return _listed(names, Path(splits))
    try:
        shares = {key.strip(): float(share) for key, share in _items(splits)}
    except ValueError:
        shares = {}
    if not shares or not (min(shares.values()) > 0 and abs(sum(shares.values()) - 1) < 1e-6):
        raise InputError(
            f"--splits {splits}: give fractions that sum to 1, as train=0.7,val=0.1,test=0.2, "
            "or a JSON file"
        )
    drawn = random.Random(0).sample(sorted(names), len(names))
    wanted = [share * len(names) for share in shares.values()]
    counts = [1 if i < len(names) else 0 for i in range(len(shares))]
    while sum(counts) < len(names):  # the split that lacks most
        counts[int(np.argmax(np.subtract(wanted, counts)))] += 1
    ends = np.cumsum(counts)
    return {
        name: sorted(drawn[end - count : end])
        for name, count, end in zip(shares, counts, ends, strict=True)
    }


def _items(splits: str) -> Iterator[tuple[str, str]]:
    for item in splits.split(","):
        name, _, share = item.partition("=")
        yield name, share


def _listed(names: list[str], path: Path) -> dict[str, list[str]]:
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); correct it") from error
    if not isinstance(lists, dict) or not all(isinstance(v, list) for v in lists.values()):
        raise InputError(f'{path}: expected {{"train": [clip, …], "val": […], "test": […]}}')
    kept = {
        key: [name for name in map(str, names_) if name in names] for key, names_ in lists.items()
    }
    if not any(kept.values()):
        raise InputError(f"{path}: lists none of the clips {', '.join(names[:5])} …; correct it")
    return kept


def summary(root: Path, names: list[str], splits: dict[str, list[str]]) -> Iterator[str]:
    """What was made and what is odd in it, line by line."""
    records = {name: read_record(root / name) for name in names}
    frames, seen, fixations = (
        sum(record[key] for record in records.values())
        for key in ("frames", "with_gaze", "fixations")
    )
    yield f"{root}: {len(names)} clips, {frames} frames, {fixations} fixations"
    yield "splits: " + ", ".join(f"{name} {len(clips)}" for name, clips in splits.items())
    if seen < frames:
        yield f"{frames - seen} frames without gaze have no ground truth"
    for name, record in records.items():
        if outside := record["samples_outside"]:
            share = f"{outside} of {record['samples']}"
            yield f"{name}: {share} gaze samples lie before or after the video"
    if unused := sorted(set(names) - {name for clips in splits.values() for name in clips}):
        yield f"{len(unused)} clips in no split: {', '.join(unused)}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m prepare.recordings",
        description="Make a data set for training from 360° videos and gaze. Goes on where it "
        "was interrupted when it is run again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--videos", type=Path, required=True, help="folder of videos, or one video")
    add("--gaze", type=Path, required=True,
        help="folder of CSV files named as the videos, or one file: a header and time (seconds), "
        "longitude (degrees to the right), latitude (degrees upwards), observer")  # fmt: skip
    add("--output", type=Path, required=True, help="folder of the data set")
    add("--sigma", type=float, default=3.34,
        help="standard deviation of a fixation's Gaussian in degrees, 0.5 to 30; what others "
        "take is told in datasets/gaze.py")  # fmt: skip
    add("--fps", type=float, default=8.0,
        help="frames a second that are kept: every round(rate / fps)-th")  # fmt: skip
    add("--window", type=float, metavar="SECONDS",
        help="gaze of each frame, half before and half after it begins; by default, what falls "
        "between it and the next one")  # fmt: skip
    add("--height", type=int, default=240, help="height of a frame in pixels")
    add("--width", type=int, default=480, help="width of a frame in pixels")
    add("--gt_height", type=int, default=128, help="height of a saliency map in pixels")
    add("--gt_width", type=int, default=256, help="width of a saliency map in pixels")
    add("--splits", default="train=0.7,val=0.1,test=0.2",
        help="fractions of the clips, or a JSON file of lists of their names")  # fmt: skip
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
    if "frames" in pairs:  # a folder of that name is the other layout of datasets.video_saliency
        raise InputError(f"{pairs['frames'][0]}: a clip can't have this name; rename it")
    split(list(pairs), args.splits)  # a mistake in it shows before the work
    for name, files in tqdm(pairs.items(), str(args.output), unit="clip"):
        write_clip(args.output / name, *files, options)
    folders = [path.parent for path in sorted(args.output.glob(f"*/{RECORD}"))]
    clips = [folder.name for folder in folders if read_record(folder).get("complete")]
    splits = split(clips, args.splits)
    write_json(args.output / "splits.json", splits)
    for line in summary(args.output, clips, splits):
        print(line)
    for kind, left in (
        ("videos without gaze", without_gaze),
        ("gaze without video", without_video),
    ):
        if left:
            print(f"{len(left)} {kind}: {', '.join(left)}")


if __name__ == "__main__":
    run_script(main)
