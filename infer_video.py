"""Predict saliency maps of 360° videos, folders of frames or pictures: one for each frame.

An interrupted run continues where it stopped when it is started again. Several clips on several
GPUs: torchrun --nproc_per_node 4 infer_video.py --video_path *.mp4 …
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import math
import re
import sys
import time
from array import array
from pathlib import Path

from common.errors import Failures, advice, counted, run_script
from common.options import (
    CHECKPOINT,
    HelpFormatter,
    add_layout_options,
    add_machine_options,
    add_motion_option,
    add_sampling_option,
    at_least,
    frame_rate,
)
from maps.exports import KINDS, export_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--video_path", type=Path, nargs="+", required=True, metavar="PATH",
        help="video, folder of frames, or picture; several are allowed")  # fmt: skip
    add("--ckpt_path", type=Path, default=CHECKPOINT, help="checkpoint")
    add("--model", metavar="package.module:Class", help="model of the checkpoint "
        "where it is one of your own, whose code is then run")  # fmt: skip
    add("--output_dir", type=Path, default="outputs/infer", help="folder for the maps; of "
        "several clips, each gets a folder of its name in it")  # fmt: skip
    add("--save_npy", action="store_true", help="also write float32 maps; see --normalise")
    add("--normalise", choices=["max", "density"], default="max", help="what float maps hold; "
        "max: the network's output as it is; density: attention per steradian, whose integral "
        "over the sphere is 1. A PNG is divided by its maximum, which is kept")  # fmt: skip
    add("--export", type=export_path, action="append", default=[], metavar="FILE", help="also "
        "write all maps as one file; .csv: the highest peaks of each; .npz: attention in tiles; "
        ".npy: one array (…float16.npy: in 16 bits); .bin: Salient360's. Of several clips, each "
        "gets one in its folder. Where all maps are there, nothing else is done. "
        "May be given several times")  # fmt: skip
    add("--peaks", type=at_least(1, 1001, int), default=5, help="directions in a .csv, at most")
    add("--tiles", type=grid, default="6x12", help="rows x columns of tiles in an .npz")
    add_motion_option(add)
    add_sampling_option(add)
    add("--quality", choices=["fast"], help="inference resolution of the cube U-Net; "
        "fast: 75%% of the height and width, and maps are as small (default: in full)")  # fmt: skip
    add_machine_options(add)
    add("--fps", type=frame_rate, help="pictures a second of a folder of frames (default: 8, "
        "with a note); a video has its own rate")  # fmt: skip
    add_layout_options(add)
    add("--overwrite", nargs="?", const="all", choices=["all", "other"], help="replace maps that "
        "are already there, once all new ones are made; other: only those of another source or "
        "checkpoint, and keep or complete those of the same")  # fmt: skip
    return parser.parse_args()


def grid(text: str) -> tuple[int, int]:
    """Return (rows, columns) of a grid such as 6x12, an argparse type."""
    if not (match := re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,2})", text)):
        raise argparse.ArgumentTypeError(f"{text}: give rows x columns, such as 6x12")
    return int(match[1]), int(match[2])


if __name__ == "__main__":  # help and wrong options need none of the slow imports
    run_script(parse_args)

import numpy as np
from tqdm import tqdm

import models
from common import processes
from common.devices import autocast, choose_device, choose_precision
from common.errors import InputError, RunError
from common.files import write_json
from common.locks import lock
from maps.interpolate import interpolate, steady, timed
from maps.record import (
    NORMALISATIONS,
    RECORD,
    complete_record,
    replace_maps,
    source_facts,
    working_folder,
)
from maps.saved import map_kinds, read_maps, read_peak, write_map
from models.checkpoint import sha256
from models.registry import find_model
from video.ahead import ahead, behind
from video.reader import FrameReader, read_frames


def main() -> None:
    args = parse_args()
    device = choose_device(args.device)
    dtype = choose_precision(args.precision, device)
    kind = find_model(args.model) if args.model else models.SaliencyModel
    sampling = {"sampling": args.sampling} if args.sampling else {}
    model = models.load(args.ckpt_path, device, args.quality, **sampling)
    if not isinstance(model, kind):
        raise InputError(f"{args.ckpt_path}: holds a {model.name}; leave out --model")
    with advice(f"--motion {args.motion}"):
        model.use_motion(args.motion)
    model = models.deploy(model, dtype)
    folders = output_folders(args.video_path, args.output_dir)
    if len(folders) > 1 and (named := [path for path in args.export if path.is_absolute()]):
        raise InputError(f"{named[0]}: each of several clips has a file in its folder; give a name")
    failures = Failures()
    with autocast(device, dtype):
        for folder, path in processes.shard(folders.items()):
            with failures.collected(path):
                infer(model, path, folder, args)
    Failures(sum(processes.gather(list(failures)), [])).report(len(folders))


def infer(model: models.SaliencyModel, path: Path, folder: Path, args: argparse.Namespace) -> None:
    """Write the maps of one clip that are not yet in the folder.

    Raises InputError for a source that can't be read or a folder with other maps, and RunError at
    the end where some frames of the source are damaged.
    """
    with advice("--coverage"):
        reader = read_frames(path, model.spec, args.fps, args.stereo, args.coverage)
    for note in reader.info.notes:
        print(f"note: {path}: {note}", file=sys.stderr)
    facts = source_facts(reader.info) | {
        "map_width": model.spec.width,
        "map_height": model.spec.height,
        "model": model.name,
        "motion": model.spec.motion,
        "sampling": model.arguments.get("sampling"),
        "quality": args.quality,
        "checkpoint": str(args.ckpt_path),
        "checkpoint_sha256": sha256(args.ckpt_path),
        "normalisation": NORMALISATIONS[args.normalise],
        "npy": args.save_npy,
    }
    if folder.resolve() in (path.resolve(), *path.resolve().parents):
        raise InputError(f"{path}: lies in the output folder {folder}; choose another --output_dir")
    with lock(folder):
        record = complete_record(folder, facts) if args.export and args.overwrite != "all" else None
        record = record or write_maps(model, reader, folder, facts, args.overwrite)
        for name in args.export:
            target = name if len(args.video_path) == 1 else folder / name
            export(target, folder, record, args.peaks, args.tiles)
    if str(reader.damage):
        raise RunError(f"{path}: {reader.damage}")


def write_maps(
    model: models.SaliencyModel,
    reader: FrameReader,
    folder: Path,
    facts: dict,
    overwrite: str | None,
) -> dict:
    """Write the maps of a source into a folder, of which this process has the lock.

    Returns what saliency.json says about them.
    """
    work = working_folder(folder, facts, overwrite)
    write_json(work / RECORD, facts | {"frame_count": None, "complete": False})
    done = 0  # frames, counted from the first, that have all their maps
    peaks = array("f")  # maxima of the maps, by frame: 10 MB for a day of video
    while all((work / f"sal_{done + 1:04d}{kind}").exists() for kind in map_kinds(facts)):
        done += 1
        peaks.append(read_peak(work / f"sal_{done:04d}.png"))
    info, times, start = reader.info, array("d"), time.perf_counter()
    covered = None
    if not info.layout.whole:
        covered = info.layout.covered(facts["map_height"], facts["map_width"])
    as_density = facts["normalisation"] == NORMALISATIONS["density"]

    def write(numbered: tuple[int, np.ndarray]) -> tuple[int, float | None]:
        """Write one map that is not there yet; return its number and maximum."""
        number, saliency = numbered
        if number <= done or number in reader.damage.unreadable:
            return number, None
        path = work / f"sal_{number:04d}.png"
        return number, write_map(path, saliency, facts["npy"], as_density)

    maps = models.predict(
        model,
        ahead(timed(reader, times)),
        needed=lambda frame: frame.number + len(frame.times) > done + 1,
    )
    written = behind(write, interpolate(maps, covered))
    length = info.frames or round((info.seconds or 0) * info.fps) or None
    bar = {"total": length, "initial": done, "unit": "frame", "disable": not processes.is_main()}
    for number, peak in tqdm(written, facts["video"], **bar):
        if peak is not None:
            peaks.extend([math.nan] * (number - 1 - len(peaks)))  # of unreadable frames
            peaks.append(peak)

    count, seconds = reader.decoded, time.perf_counter() - start
    peaks.extend([math.nan] * (count - len(peaks)))
    facts = facts | {
        "frame_count": count,
        "unreadable": sorted(reader.damage.unreadable),
        "complete": True,
        "peaks": [None if math.isnan(peak) else float(f"{peak:.5g}") for peak in peaks],
        "times": None if steady(times, facts["fps"]) else [round(t, 4) for t in times],
    }
    write_json(work / RECORD, facts)
    if work != folder:
        replace_maps(folder, work, facts)
    new = count - done
    made = counted(count, "map")
    print(f"{made} in {folder} ({new} new in {seconds:.1f} s, {new / seconds:.1f} frames/s)")
    return facts


def export(target: Path, folder: Path, record: dict, peaks: int, tiles: tuple[int, int]) -> None:
    """Write the maps in a folder as one file, of the kind that its name ends with.

    record: what saliency.json says, of a run that is complete.
    """
    if lost := record["unreadable"]:
        numbers = f"{', '.join(map(str, lost[:5]))}{', …' * (len(lost) > 5)}"
        frames = counted(len(lost), "unreadable frame")
        print(f"note: {target}: no map of {frames} ({numbers})", file=sys.stderr)
    shape = record["frame_count"], record["map_height"], record["map_width"]
    bar = {"unit": "frame", "total": shape[0], "disable": not processes.is_main()}
    maps = tqdm(read_maps(folder, record), target.name, **bar)
    try:
        target = KINDS[target.suffix.lower()](target, maps, shape, peaks, tiles)
    except ValueError as error:
        raise RunError(f"{target}: {error}; choose another kind of file") from error
    print(f"{target}: {counted(shape[0], 'frame')}")


def output_folders(clips: list[Path], folder: Path) -> dict[Path, Path]:
    """Return {folder for the maps: clip}. Raises InputError for two clips of the same name."""
    if len(clips) == 1:
        return {folder: clips[0]}
    folders: dict[Path, Path] = {}
    for path in clips:
        name = path.stem if path.is_file() else path.resolve().name
        if (other := folders.setdefault(folder / name, path)) is not path:
            raise InputError(f"{path}: has the same name as {other}; infer them one by one")
    return folders


if __name__ == "__main__":
    run_script(processes.session(main))
