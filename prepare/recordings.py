"""Make a training data set from 360° videos and recorded gaze, in the ECCV 2018 layout.

    python -m prepare.recordings --videos VIDEOS --gaze GAZE --output DATA

Each video with a CSV file of the same name (time,longitude,latitude,observer; see
datasets/gaze_files.py) becomes a clip:

    DATA/<clip>/0001.jpg        frames, sampled as by `read_frames`, numbered from 1
    DATA/<clip>/0001_gt.npy     float32 (H, W): Σ exp(−d²/2σ²) over the frame's fixations, if any
    DATA/<clip>/fixations.csv   these fixations, by frame number
    DATA/<clip>/prepared.json   source and settings of the clip, and whether it is complete

An existing DATA/splits.json is kept if it lists exactly the complete clips. dataset.json has their
frame rates.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import hashlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.errors import Failures, InputError, RunError, counted, run_script
from common.files import json_bytes, output_name, read_json, write_array
from common.locks import lock
from common.options import HelpFormatter, add_size_options, at_least, pixel_count
from datasets.gaze import SIGMAS, gaussian_map
from datasets.gaze_files import Fixations, Gaze, read_gaze_csv, write_fixations_csv
from datasets.rates import RATES_FILE
from datasets.splits import published_split, read_splits
from prepare import records
from video.pictures import FRAMES
from video.reader import read_frames, sampling_step
from video.spec import Spec

VIDEO_SUFFIXES = {
    ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm",
}  # fmt: skip
MIN_SAMPLES = 30  # of gaze for a note about its unit
ROUNDING = 1e-6  # seconds by which a rounded time may precede its frame

# Saliency maps (H, W) float32 of a clip by frame from 1, fixations, and number of gaze samples.
Truth = tuple[Iterable[tuple[int, np.ndarray]], Fixations | None, int]


def by_name(path: Path, suffixes: set[str] = VIDEO_SUFFIXES) -> dict[str, Path]:
    """Return a file, or the files of a folder with given suffixes, by name without suffix."""
    files = [path] if path.is_file() else list(path.iterdir())
    if not any(file.suffix.lower() in suffixes for file in files):
        files = list(path.glob("[!.]*/[!.]*"))  # one folder deeper
    return by_key(files, suffixes, output_name)


def by_key(paths: Iterable[Path], suffixes: set[str], key: Callable[[Path], Any]) -> dict:
    """Return the files with given suffixes by their keys, which must be unique."""
    files: dict[Any, Path] = {}
    for path in sorted(path for path in paths if path.suffix.lower() in suffixes):
        if (other := files.setdefault(key(path), path)) != path:
            raise InputError(f"{path} and {other}: same clip name; rename one")
    return files


def pair(
    videos: dict[Any, Path], truths: dict[Any, list[Path]], expected: str
) -> tuple[list[tuple[Path, list[Path]]], list[str]]:
    """Return pairs (video, files of its truth) by equal keys, and the names of unpaired files."""
    if not (both := [key for key in videos if key in truths]):
        counts = f"{len(videos)} videos and {len(truths)} gaze files have no name in common"
        raise InputError(f"{counts}; name them {expected}")
    alone = [path.name for key, path in videos.items() if key not in truths]
    alone += [files[0].name for key, files in truths.items() if key not in videos]
    return [(videos[key], truths[key]) for key in both], alone


def active_fixations(gaze: Gaze, starts: np.ndarray, end: float) -> Fixations:
    """Return gaze before `end` as fixations of frames 1 … F that start at times (F,), in order."""
    times = gaze.seconds + ROUNDING
    frames = np.searchsorted(starts, times, side="right")  # 0 before the first frame
    order = np.argsort(frames, kind="stable")
    shown = order[(frames[order] > 0) & (times[order] < end)]
    places = gaze.longitudes[shown], gaze.latitudes[shown]
    return Fixations(frames[shown], *places, gaze.observers[shown])


def write_clip(folder: Path, video: Path, truth_of: Callable[..., Truth], facts: dict) -> None:
    """Write one clip, unless it is complete and has the same facts.

    truth_of: function of the sampled frames' numbers in the video, their seconds, (F,) each, and
        the end of the last one, which returns the ground truth.
    facts: sources of the ground truth, and fps, height and width of frames.
    Raises InputError for an unusable video or a folder of other frames, RunError for damaged ones.
    """
    facts = {"video": {"name": video.name, "bytes": video.stat().st_size}, **facts}
    record = records.clip_record(folder, facts)
    if not records.begin_clip(record):
        return
    reader = read_frames(video, Spec(facts["height"], facts["width"], facts["fps"]))
    for note in reader.info.notes:
        print(f"note: {video}: {note}", file=sys.stderr)
    sampled = []
    for frame in reader:
        sampled.append((frame.number, frame.seconds))
        records.save_picture(folder / f"{len(sampled):04d}.jpg", frame.rgb, quality=92)
    maps, fixations, samples = truth_of(*np.reshape(sampled, (-1, 2)).T, reader.end)
    for number, saliency in maps:
        write_array(folder / f"{number:04d}_gt.npy", saliency)
    if fixations:
        write_fixations_csv(folder / "fixations.csv", fixations)
    counts = {"frames": len(sampled), "fixations": len(fixations.frames) if fixations else 0}
    rate = float(reader.info.fps / sampling_step(reader.info.fps, facts["fps"]))
    record.finish(**counts, samples=samples, rate=rate)
    if damage := str(reader.damage):
        raise RunError(f"{video}: {damage}")


def doubts(gaze: Gaze) -> Iterator[str]:
    """Yield notes on gaze for the user: omissions and suspicious values."""
    if gaze.problems:
        lines = f"{counted(len(gaze.problems), 'invalid line')} or files left out"
        yield f"{lines}, the first: {gaze.problems[0]}"
    times = np.stack([gaze.observers, gaze.seconds])
    if double := times.shape[1] - np.unique(times, axis=1).shape[1]:
        same = "with the same time and observer as another one"
        yield f"{counted(double, 'sample')} {same}; was a person recorded twice?"
    degrees = np.degrees(np.abs([gaze.longitudes, gaze.latitudes]))
    if len(gaze.seconds) >= MIN_SAMPLES and (degrees.max(1) <= (180 / 57.2, 90 / 57.2)).all():
        yield "no sample is beyond 3.15° of longitude and 1.57° of latitude; are these radians?"


def write_gaze_clip(
    read: Callable[..., Gaze], folder: Path, video: Path, tables: list[Path], options: dict
) -> None:
    """Write a clip from a video and its gaze tables, from which `read` returns the gaze.

    options: sigma (degrees), fps, height and width of frames, gt_height of saliency maps.
    """
    gaze, source = read(video, tables), tables[0].parent if len(tables) > 1 else tables[0]
    for note in doubts(gaze):
        print(f"note: {source}: {note}", file=sys.stderr)
    digest = hashlib.sha256(b"".join(table.read_bytes() for table in tables)).hexdigest()
    size = options["gt_height"], 2 * options["gt_height"]

    def truth_of(numbers: np.ndarray, starts: np.ndarray, end: float) -> Truth:
        fixations = active_fixations(gaze, starts, end)
        if not len(fixations.frames):
            problem = f"{tables[0]}: no sample is within the {end:.1f} s of {video.name}"
            raise InputError(f"{problem}; give times in seconds since its first frame")
        watched = np.unique(fixations.frames).tolist()
        maps = (gaussian_map(*fixations.at(n), *size, options["sigma"]).numpy() for n in watched)
        return zip(watched, maps), fixations, len(gaze.seconds)

    facts = {"gaze": {"name": tables[0].name, "sha256": digest}, **options}
    write_clip(folder, video, truth_of, facts)


def write_splits(root: Path, clips: list[str], published: str | None) -> dict[str, list[str]]:
    """Write splits.json for these clips, and return its content.

    published: one of datasets.splits.PUBLISHED. None: keep an existing file of exactly these clips,
    else draw splits by their names.
    """
    path = root / "splits.json"
    splits = read_splits(root) if path.exists() else {}
    if published:
        splits = published_split(published, clips)
    elif sorted(sum(splits.values(), [])) == sorted(clips):
        return splits
    else:
        shuffled = random.Random(0).sample(sorted(clips), len(clips))
        splits = records.split(shuffled, val=0.1, test=0.2)
    records.write_files(root, {path.name: json_bytes(splits)})
    return splits


def write_dataset(
    args: argparse.Namespace, videos: dict, truths: dict, expected: str, write: Callable
) -> None:
    """Write a clip for each video and the files that describe the data set; print a summary.

    args: see `parse_args`. write: function of folder, video, files of the truth, and options.
    """
    clips, alone = pair(videos, truths, expected)
    root, names = args.output, ("sigma", "fps", "height", "width", "gt_height")
    options = {name: vars(args)[name] for name in names if name in args}
    if unfit := [video for video, _ in clips if video.stem == FRAMES]:
        # A folder of this name marks the other layout of datasets/layouts.py.
        raise InputError(f"{unfit[0]}: not a valid clip name; rename it")
    failures = Failures()
    with lock(root):
        for video, files in tqdm(clips, str(root), unit="clip"):
            folder = root / output_name(video)
            with failures.collected(folder):
                write(folder, video, files, options)
        found = {path.parent.name: read_json(path) for path in root.glob(f"*/{records.RECORD}")}
        complete = {name: found[name] for name in sorted(found) if "samples" in found[name]}
        kinds = ("frames", "fixations", "samples")
        frames, fixations, samples = (sum(r[kind] for r in complete.values()) for kind in kinds)
        clip_count, frame_count = counted(len(complete), "clip"), counted(frames, "frame")
        print(f"{root}: {clip_count}, {frame_count}, {counted(fixations, 'fixation')}")
        with failures.collected(root):
            rates = {name: record["rate"] for name, record in complete.items()}
            records.write_files(root, {RATES_FILE: json_bytes({"fps": rates})})
            records.print_splits(write_splits(root, list(complete), vars(args).get("split")))
    if fixations < samples:
        print(f"{samples - fixations} of {samples} gaze samples are before or after their video")
    if alone:
        print(f"{len(alone)} videos or gaze files have no counterpart: {', '.join(alone)}")
    failures.report(len(clips))


def parse_args(
    command: str, source: str, sigma: float | None, inputs: dict, splits: tuple[str, ...] = ()
) -> argparse.Namespace:
    """Return the options of a command that makes a data set.

    source: description of the input. sigma: default of --sigma; None if the source has maps.
    inputs: options for input files, with their help. splits: published ones to choose from.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m prepare.{command}",
        description=f"Make a data set from {source}; the same command resumes a run.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the data set")
    if sigma:
        add("--sigma", type=at_least(*SIGMAS), default=sigma,
            help="standard deviation in degrees; datasets/gaze.py lists some")  # fmt: skip
    add("--fps", type=at_least(0.01, 1001), default=8.0,
        help="frames a second to keep: every round(video rate / fps)-th frame")  # fmt: skip
    add_size_options(add)
    add("--gt_height", type=pixel_count, default=128, help="height of a map, half its width")
    if splits:
        add("--split", choices=splits, help="published split of the clips (default: drawn)")
    for name, text in inputs.items():
        add(f"--{name}", type=Path, required=True, help=text)
    return parser.parse_args()


def main() -> None:
    inputs = {
        "videos": "folder of videos, or one video",
        "gaze": "folder of CSV files with the names of the videos, or one file; columns: time "
        "(seconds), longitude (degrees to the right), latitude (degrees upwards), observer",
    }
    args = parse_args("recordings", "360° videos and recorded gaze", 3.34, inputs)
    if args.videos.is_file() and args.gaze.is_file():  # a pair, whatever their names
        videos, tables = {"": args.videos}, {"": args.gaze}
    else:
        videos, tables = by_name(args.videos), by_name(args.gaze, {".csv"})
    truths = {name: [table] for name, table in tables.items()}
    write = partial(write_gaze_clip, lambda _, tables: read_gaze_csv(*tables))
    write_dataset(args, videos, truths, "like 001.mp4 and 001.csv", write)


if __name__ == "__main__":
    run_script(main)
