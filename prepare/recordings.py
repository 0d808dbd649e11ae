"""Make a data set for training from 360° videos and recorded gaze, in the ECCV 2018 layout.

    python -m prepare.recordings --videos VIDEOS --gaze GAZE --output DATA

Each video with a CSV file of the same name (time,longitude,latitude,observer; see
datasets/gaze_files.py) becomes a clip:

    DATA/<clip>/0001.jpg        frames, sampled as by `read_frames`, numbered from 1
    DATA/<clip>/0001_gt.npy     float32 (H, W): Σ exp(−d²/2σ²) over the frame's fixations;
                                missing where a frame has none
    DATA/<clip>/fixations.csv   these fixations, by frame number
    DATA/<clip>/prepared.json   what the clip was made from; "complete" once it is
    DATA/splits.json            splits of all complete clips in DATA; kept where it lists them all
    DATA/dataset.json           the frames a second of each clip
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import hashlib
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.errors import Failures, InputError, RunError, counted, run_script
from common.files import output_name, write_array, write_json
from common.locks import lock
from common.options import HelpFormatter, add_size_options, at_least, pixel_count
from datasets.gaze import SIGMAS, gaussian_map
from datasets.gaze_files import Fixations, Gaze, read_gaze_csv, write_fixations_csv
from datasets.rates import FACTS
from datasets.splits import read_splits
from prepare.records import (
    RECORD,
    begin_clip,
    finish_clip,
    print_splits,
    read_record,
    save_picture,
    to_picture,
)
from video.reader import read_frames, sampling_step
from video.spec import Spec

VIDEOS = {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm"}
ROUNDING = 1e-6  # seconds that a time written as a decimal may lie before its frame


def pair(videos: Path, gaze: Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Return clips by name as (video, gaze file), and the names of files without a counterpart.

    videos, gaze: folders, or one file each, which then belong together whatever their names.
    Raises InputError where there is no pair or two files would become one clip.
    """
    if videos.is_file() and gaze.is_file():
        return {output_name(videos): (videos, gaze)}, []
    films, tables = by_stem(videos, VIDEOS), by_stem(gaze, {".csv"})
    pairs = {name: (films[name], tables[name]) for name in films if name in tables}
    if not pairs:
        raise InputError(
            f"{videos} and {gaze}: none of {len(films)} videos has the name of one of "
            f"{len(tables)} CSV files; name them alike, as 001.mp4 and 001.csv"
        )
    files = [*films.values(), *tables.values()]
    return pairs, [file.name for file in files if file.stem not in pairs]


def by_stem(path: Path, suffixes: set[str]) -> dict[str, Path]:
    """Return one file, or those of a folder with one of the suffixes, by name without suffix."""
    files: dict[str, Path] = {}
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if file.suffix.lower() not in suffixes:
            continue
        if files.setdefault(output_name(file), file) != file:
            raise InputError(f"{file} and {files[file.stem]}: would be one clip; rename one")
    return files


def active_fixations(gaze: Gaze, starts: np.ndarray, end: float) -> Fixations:
    """Return gaze samples as fixations of frames 1 … F, in the order of the frames.

    A sample belongs to the frame that is shown at its time, so to one frame at most.
    starts: (F,) seconds at which the frames begin, increasing; end: when the last one ends.
    """
    times = gaze.seconds + ROUNDING
    frames = np.searchsorted(starts, times, side="right")  # 0 before the first frame
    order = np.argsort(frames, kind="stable")
    shown = order[(frames[order] > 0) & (times[order] < end)]
    return Fixations(frames[shown], *(column[shown] for column in gaze[1:]))


def write_clip(
    folder: Path,
    video: Path,
    tables: list[Path],
    options: dict,
    read: Callable[[Path, list[Path]], Gaze] = lambda video, tables: read_gaze_csv(tables[0]),
) -> None:
    """Write one clip, unless it is complete and made from the same files with the same options.

    options: sigma (degrees), fps, height and width of frames, gt_height of saliency maps.
    read: returns the gaze in `tables`, given the video as well.
    Raises InputError for unusable files, and where the folder contains other frames, and RunError
    for a clip that was made of a video with damaged frames.
    """
    table, digest = tables[0], hashlib.sha256(b"".join(table.read_bytes() for table in tables))
    facts = {
        "video": {"name": video.name, "bytes": video.stat().st_size},
        "gaze": {"name": table.name, "sha256": digest.hexdigest()},
        **options,
    }
    gaze = read(video, tables)  # before the clip's earlier frames are removed
    if not begin_clip(folder, facts):
        return
    spec = Spec(options["height"], options["width"], options["fps"])
    reader, starts = read_frames(video, spec), []
    for note in reader.info.notes:
        print(f"note: {video}: {note}", file=sys.stderr)
    for frame in reader:
        starts.append(frame.seconds)
        save_picture(folder / f"{len(starts):04d}.jpg", to_picture(frame.rgb), quality=92)
    fixations = active_fixations(gaze, np.array(starts), reader.end)
    if not len(fixations.frames):
        raise InputError(
            f"{table}: no sample falls on the {reader.end:.1f} s of {video.name}; time must be in "
            "seconds since its first frame"
        )
    size = options["gt_height"], 2 * options["gt_height"]
    for frame in np.unique(fixations.frames).tolist():
        truth = gaussian_map(*fixations.at(frame), *size, options["sigma"])
        write_array(folder / f"{frame:04d}_gt.npy", truth.numpy())
    write_fixations_csv(folder / "fixations.csv", fixations)
    counts = {"frames": len(starts), "fixations": len(fixations.frames)}
    rate = float(reader.info.fps / sampling_step(reader.info.fps, spec.fps))
    finish_clip(folder, {**facts, **counts, "samples": len(gaze.seconds), "rate": rate})
    if damage := str(reader.damage):
        raise RunError(f"{video}: {damage}")


def fractions(text: str) -> dict[str, float]:
    """Return the fraction of clips by split, as "train=0.7,val=0.1,test=0.2" gives it."""
    shares = {name: float(share) for name, share in (part.split("=") for part in text.split(","))}
    if not (min(shares.values()) > 0 and abs(sum(shares.values()) - 1) < 1e-6):
        raise argparse.ArgumentTypeError(f"{text}: give fractions that sum to 1")
    return shares


def split(names: list[str], shares: dict[str, float]) -> dict[str, list[str]]:
    """Return the names of clips by split, drawn in an order that depends on the names alone.

    shares: the fraction of each split. A split is empty only where there are fewer names than
    splits.
    """
    drawn = iter(random.Random(0).sample(sorted(names), len(names)))
    counts = {name: int(n < len(names)) for n, name in enumerate(shares)}
    while sum(counts.values()) < len(names):
        lacking = max(shares, key=lambda name: shares[name] * len(names) - counts[name])
        counts[lacking] += 1
    return {name: sorted(next(drawn) for _ in range(n)) for name, n in counts.items()}


def write_splits(root: Path, clips: list[str], shares: dict[str, float]) -> dict[str, list[str]]:
    """Return the splits in splits.json if it lists exactly these clips, else write others."""
    path = root / "splits.json"
    splits = read_splits(root) if path.exists() else {}
    if sorted(sum(splits.values(), [])) != sorted(clips):
        splits = split(clips, shares)
        write_json(path, splits)
    return splits


def print_summary(root: Path, records: dict[str, dict], splits: dict[str, list[str]]) -> None:
    """Print what the data set contains, and which gaze samples lie outside their video."""
    frames, fixations, samples = (
        sum(record[key] for record in records.values())
        for key in ("frames", "fixations", "samples")
    )
    clips, frames = counted(len(records), "clip"), counted(frames, "frame")
    print(f"{root}: {clips}, {frames}, {counted(fixations, 'fixation')}")
    print_splits(splits)
    if fixations < samples:
        print(f"{samples - fixations} of {samples} gaze samples are before or after their video")


def write_dataset(
    args: argparse.Namespace,
    clips: dict[str, tuple],
    alone: list[str],
    write: Callable = write_clip,
) -> None:
    """Write clips and what describes their data set, and print what it contains.

    args: those of `dataset_parser`. clips: by name, the arguments of `write` between folder and
    options. alone: names of files that are part of no clip.
    """
    root, names = args.output, ("sigma", "fps", "height", "width", "gt_height")
    options = {name: vars(args)[name] for name in names if name in args}
    if "frames" in clips:  # a folder of this name marks the other layout of datasets/layouts.py
        raise InputError(f"{clips['frames'][0]}: a clip can't have this name; rename it")
    failures = Failures()
    with lock(root):
        for name, files in tqdm(clips.items(), str(root), unit="clip"):
            with failures.collected(root / name):
                write(root / name, *files, options)
        paths = sorted(root.glob(f"*/{RECORD}"))
        records = {path.parent.name: read_record(path.parent) for path in paths}
        records = {name: record for name, record in records.items() if "samples" in record}
        splits = write_splits(root, list(records), args.splits)
        rates = {name: record["rate"] for name, record in records.items() if "rate" in record}
        write_json(root / FACTS, {"fps": rates})
        print_summary(root, records, splits)
        if alone:
            print(f"{len(alone)} videos or gaze files without the other: {', '.join(alone)}")
    failures.report(len(clips))


def dataset_parser(
    command: str, source: str, sigma: float | None = 3.34
) -> argparse.ArgumentParser:
    """Return the parser of a command that makes a data set.

    source: what of, for its help. sigma: default of --sigma; None where maps are given.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m prepare.{command}",
        description=f"Make a data set for training from {source}. Run the same command again to "
        "continue after an interruption.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the data set")
    if sigma:
        add("--sigma", type=at_least(*SIGMAS), default=sigma,
            help="standard deviation of the Gaussian around a fixation in degrees; "
            "datasets/gaze.py lists the values of published data sets")  # fmt: skip
    add("--fps", type=at_least(0.01, 1001), default=8.0,
        help="frames a second to keep: every round(video rate / fps)-th frame")  # fmt: skip
    add_size_options(add)
    add("--gt_height", type=pixel_count, default=128,
        help="height of a saliency map, half its width")  # fmt: skip
    add("--splits", type=fractions, default="train=0.7,val=0.1,test=0.2",
        help="fractions of the clips; not used where splits.json in the output folder lists "
        "exactly its clips")  # fmt: skip
    return parser


def main() -> None:
    parser = dataset_parser("recordings", "360° videos and recorded gaze")
    add = parser.add_argument
    add("--videos", type=Path, required=True, help="folder of videos, or one video")
    add("--gaze", type=Path, required=True,
        help="folder of CSV files named as the videos, or one file; a header and time (seconds), "
        "longitude (degrees to the right), latitude (degrees upwards), observer")  # fmt: skip
    args = parser.parse_args()
    pairs, alone = pair(args.videos, args.gaze)
    clips = {name: (video, [table]) for name, (video, table) in pairs.items()}
    write_dataset(args, clips, alone)


if __name__ == "__main__":
    run_script(main)
