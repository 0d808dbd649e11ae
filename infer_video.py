"""Predict saliency maps of 360° videos, folders of frames or pictures: one for each frame.

An interrupted run continues where it stopped when it is started again. Several clips on several
GPUs: torchrun --nproc_per_node 4 infer_video.py --video_path *.mp4 …
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import math
import re
import shutil
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from common.errors import Failures, advice, counted, run_script
from common.files import write_json
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

NORMALISATIONS = {  # what the float maps are, of which each PNG is divided by its maximum
    "max": "each map divided by its maximum",
    "density": "densities per steradian, integral 1 over the sphere; each PNG by its maximum",
}
EXPORTS = (".csv", ".npz", ".npy", ".bin")  # ends of names, see maps.exports


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
    add("--normalise", choices=list(NORMALISATIONS), default="max", help="what float maps hold; "
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


def export_path(text: str) -> Path:
    """Return the path of a file to export to, an argparse type."""
    path = Path(text)
    is_map = re.fullmatch(r"sal_\d{4,}\.npy", path.name)
    if path.suffix.lower() not in EXPORTS or path.is_dir() or is_map:
        *kinds, last = EXPORTS
        wanted = f"{', '.join(kinds)} or {last}, not that of a map"
        raise argparse.ArgumentTypeError(f"{text}: give a name that ends with {wanted}")
    return path


def grid(text: str) -> tuple[int, int]:
    """Return (rows, columns) of a grid such as 6x12, an argparse type."""
    if not (match := re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,2})", text)):
        raise argparse.ArgumentTypeError(f"{text}: give rows x columns, such as 6x12")
    return int(match[1]), int(match[2])


if __name__ == "__main__":  # help and wrong options need none of the slow imports
    run_script(parse_args)

import numpy as np
from torch import Tensor
from tqdm import tqdm

import models
from common import processes
from common.devices import autocast, choose_device, choose_precision
from common.errors import InputError, RunError
from common.files import fingerprint
from common.locks import lock
from maps import exports
from maps.saved import (
    MAP_NAME,
    NEW,
    RECORD,
    SAME_RUN,
    complete_record,
    map_kinds,
    our_maps,
    read_maps,
    read_peak,
    read_record,
    replace_maps,
    write_map,
)
from models.checkpoint import sha256
from models.predict import not_negative
from models.registry import find_model
from video.ahead import ahead, behind
from video.reader import Frame, read_frames


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
    layout = reader.info.layout
    for note in reader.info.notes:
        print(f"note: {path}: {note}", file=sys.stderr)
    facts = {
        "video": path.resolve().name,
        "video_bytes": path.stat().st_size if path.is_file() else None,
        "fingerprint": fingerprint(reader.info.files),
        "fps": float(reader.info.fps),
        "width": reader.info.width,
        "height": reader.info.height,
        "stereo": layout.stereo if layout.stereo != "none" else None,
        "coverage": None if layout.whole else list(layout.coverage),
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


def write_maps(model, reader, folder: Path, facts: dict, overwrite: str | None) -> dict:
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
    start, count, times = time.perf_counter(), 0, array("d")
    maps = models.predict(
        model, ahead(timed(reader, times)), lambda frame: frame.number + len(frame.times) > done + 1
    )
    length = reader.info.frames or round((reader.info.seconds or 0) * reader.info.fps) or None
    size, layout = (facts["map_height"], facts["map_width"]), reader.info.layout
    covered = None if layout.whole else layout.covered(*size)
    as_density = facts["normalisation"] == NORMALISATIONS["density"]
    bar = {"desc": facts["video"], "unit": "frame", "disable": not processes.is_main()}

    def write(numbered: tuple[int, np.ndarray]) -> tuple[int, float | None]:
        """Write one map that is not there yet; return its number and maximum."""
        number, saliency = numbered
        if number <= done or number in reader.damage.unreadable:
            return number, None
        path = work / f"sal_{number:04d}.png"
        return number, write_map(path, saliency, facts["npy"], as_density)

    written = behind(write, interpolate(maps, covered))
    for count, peak in tqdm(written, total=length, initial=done, **bar):
        if peak is not None:
            peaks.extend([math.nan] * (count - 1 - len(peaks)))  # of unreadable frames
            peaks.append(peak)

    count, seconds = reader.decoded, time.perf_counter() - start
    end = {
        "frame_count": count,
        "unreadable": sorted(reader.damage.unreadable),
        "complete": True,
        "peaks": [float(f"{peak:.5g}") if peak == peak else None for peak in peaks],
        "times": None if steady(times, facts["fps"]) else [round(t, 4) for t in times],
    }
    write_json(work / RECORD, facts | end)
    if work != folder:
        replace_maps(folder, work, facts)
    new = count - done
    made = counted(count, "map")
    print(f"{made} in {folder} ({new} new in {seconds:.1f} s, {new / seconds:.1f} frames/s)")
    return facts | end


def timed(frames: Iterable[Frame], times: array) -> Iterator[Frame]:
    """Yield frames, and put the seconds of those of the source at their numbers in `times`."""
    for frame in frames:
        times.extend([math.nan] * (frame.number - 1 - len(times)))  # unreadable ones at the start
        times.extend(frame.times)
        yield frame


def steady(times: array, fps: float) -> bool:
    """Return whether frames are shown at multiples of 1/fps, as closely as files state it."""
    return all(abs(t - n / fps) < 0.002 or t != t for n, t in enumerate(times))


def interpolate(
    maps: Iterable[tuple[Frame, Tensor]], covered: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, map) of all frames from the first sampled one on; maps: (H, W) float32.

    maps: sampled frames with theirs, (1, H, W). covered: where the source shows something, (H, W)
    bool; elsewhere maps become zero. Between two of them, maps are interpolated
    linearly in time; after the last one, its map is repeated.
    """
    sampled, before = None, None
    for frame, saliency in maps:
        after = not_negative(saliency[0]).numpy()
        after = after if covered is None else after * covered
        if sampled:
            start, steps, change = sampled.seconds, len(sampled.times), after - before
            for k, seconds in enumerate(sampled.times):
                rising = start <= seconds < frame.seconds  # else the clock of the file jumps
                share = (seconds - start) / (frame.seconds - start) if rising else k / steps
                yield sampled.number + k, before + np.float32(share) * change
        sampled, before = frame, after
    if sampled:
        for k in range(len(sampled.times)):
            yield sampled.number + k, before


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
        target = exports.KINDS[target.suffix.lower()](target, maps, shape, peaks, tiles)
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


def working_folder(folder: Path, facts: dict, overwrite: str | None) -> Path:
    """Return where to write maps: `folder`, or NEW in it until maps there can be replaced.

    facts["npy"] is set where the run that is continued saved .npy files.
    Raises InputError for a folder with maps of another run, unless `overwrite`, and for maps that
    infer_video.py did not write.
    """
    new, record = folder / NEW, read_record(folder)
    ours = our_maps(folder, record)
    for path in sorted(folder.glob("sal_*")):
        is_map = MAP_NAME.fullmatch(path.name) and path.suffix in map_kinds(facts)
        if is_map and path not in ours:
            raise InputError(f"{path}: not written by infer_video.py; choose another --output_dir")
    differing = [f"{key} {record.get(key)}" for key in SAME_RUN if record.get(key) != facts[key]]
    if overwrite == "other" and not differing:
        overwrite = None
    if ours and not overwrite and differing:
        raise InputError(
            f"{folder}: holds maps of another run ({differing[0]}); choose another --output_dir or "
            "use --overwrite"
        )
    if not overwrite or any(read_record(new).get(key) != facts[key] for key in SAME_RUN):
        shutil.rmtree(new, ignore_errors=True)
    if ours and overwrite:
        new.mkdir(exist_ok=True)
        folder = new
    elif ours:
        facts["npy"] |= record.get("npy", False)
    for left in folder.glob(".sal_*.partial.*"):  # of a run that was killed
        left.unlink()
    return folder


if __name__ == "__main__":
    run_script(processes.session(main))
