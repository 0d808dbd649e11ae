"""Predict saliency maps of 360° videos, folders of frames or pictures: one for each frame.

An interrupted run continues where it stopped when it is started again. Several clips on several
GPUs: torchrun --nproc_per_node 4 infer_video.py --video_path *.mp4 …
"""

import startup  # noqa: F401  # isort: skip

import argparse
import math
import os
import re
import shutil
import struct
import sys
import time
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import cli
import distributed
import models
from cli import InputError, RunError
from files import fingerprint, lock, read_json, write_array
from models.checkpoint import find_model, sha256
from models.predict import not_negative
from video.motion import MOTIONS
from video.pictures import list_pictures, open_picture
from video.reader import Frame, read_frames

RECORD = "saliency.json"
SAME_RUN = ("fingerprint", "checkpoint_sha256", "motion", "sampling", "width", "height", "fps")
SAME_RUN += ("stereo", "coverage")
MAP_NAME = re.compile(r"sal_\d{4,}\.(png|npy)")
PNG_HEADER = 33  # bytes up to the first chunk that may hold a text
NEW = ".saliency_new"  # folder of the maps that replace others when all of them are there


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    add = parser.add_argument
    add("--video_path", type=Path, nargs="+", required=True, metavar="PATH",
        help="video, folder of frames, or picture; several are allowed")  # fmt: skip
    add("--ckpt_path", type=Path, default=cli.CHECKPOINT, help="checkpoint")
    add("--model", metavar="package.module:Class", help="model of the checkpoint "
        "where it is one of your own, whose code is then run")  # fmt: skip
    add("--output_dir", type=Path, default="outputs/infer", help="folder for the maps; of "
        "several clips, each gets a folder of its name in it")  # fmt: skip
    add("--save_npy", action="store_true", help="also write float32 maps, not normalised")
    add("--motion", choices=list(MOTIONS), help="how motion between frames is estimated "
        "(default: as the model was trained)")  # fmt: skip
    cli.add_sampling_option(add)
    cli.add_machine_options(add)
    add("--fps", type=cli.frame_rate, help="pictures a second of a folder of frames (default: 8, "
        "with a note); a video has its own rate")  # fmt: skip
    cli.add_layout_options(add)
    add("--overwrite", nargs="?", const="all", choices=["all", "other"], help="replace maps that "
        "are already there, once all new ones are made; other: only those of another source or "
        "checkpoint, and keep or complete those of the same")  # fmt: skip
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = cli.choose_device(args.device)
    dtype = cli.choose_precision(args.precision, device)
    kind = find_model(args.model) if args.model else models.SaliencyModel
    sampling = {"sampling": args.sampling} if args.sampling else {}
    model = models.load(args.ckpt_path, device, **sampling)
    if not isinstance(model, kind):
        raise InputError(f"{args.ckpt_path}: holds a {model.name}; leave out --model")
    with cli.advice(f"--motion {args.motion}"):
        model.use_motion(args.motion)
    folders = output_folders(args.video_path, args.output_dir)
    failures = cli.Failures()
    with cli.autocast(device, dtype):
        for folder, path in distributed.shard(folders.items()):
            with failures.collected():
                infer(model, path, folder, args)
    cli.Failures(sum(distributed.gather(list(failures)), [])).report(len(folders))


def infer(model: models.SaliencyModel, path: Path, folder: Path, args: argparse.Namespace) -> None:
    """Write the maps of one clip that are not yet in the folder.

    Raises InputError for a source that can't be read or a folder with other maps, and RunError at
    the end where some frames of the source are damaged.
    """
    with cli.advice("--coverage"):
        reader = read_frames(path, model.spec, args.fps, args.stereo, args.coverage)
    layout = reader.info.layout
    for note in reader.info.notes:
        print(f"note: {path}: {note}", file=sys.stderr)
    facts = {
        "video": path.resolve().name,
        "video_bytes": path.stat().st_size if path.is_file() else None,
        "fingerprint": fingerprint(list_pictures(path) or [path]),
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
        "checkpoint": str(args.ckpt_path),
        "checkpoint_sha256": sha256(args.ckpt_path),
        "normalisation": "each map divided by its maximum",
        "npy": args.save_npy,
    }
    if folder.resolve() in (path.resolve(), *path.resolve().parents):
        raise InputError(f"{path}: lies in the output folder {folder}; choose another --output_dir")
    with lock(folder):
        write_maps(model, reader, folder, facts, args.overwrite)
    if str(reader.damage):
        raise RunError(f"{path}: {reader.damage}")


def write_maps(model, reader, folder: Path, facts: dict, overwrite: str | None) -> None:
    """Write the maps of a source into a folder, of which this process has the lock."""
    work = working_folder(folder, facts, overwrite)
    cli.write_json(work / RECORD, facts | {"frame_count": None, "complete": False})
    done = 0  # frames, counted from the first, that have all their maps
    peaks = array("f")  # maxima of the maps, by frame: 10 MB for a day of video
    while all((work / f"sal_{done + 1:04d}{kind}").exists() for kind in map_kinds(facts)):
        done += 1
        peaks.append(read_peak(work / f"sal_{done:04d}.png"))
    start, count = time.perf_counter(), 0
    maps = models.predict(model, reader, lambda frame: frame.number + len(frame.times) > done + 1)
    length = reader.info.frames or round((reader.info.seconds or 0) * reader.info.fps) or None
    size, layout = (facts["map_height"], facts["map_width"]), reader.info.layout
    covered = None if layout.whole else layout.covered(*size)
    bar = {"desc": facts["video"], "unit": "frame", "disable": not distributed.is_main()}
    for count, saliency in tqdm(interpolate(maps, covered), total=length, initial=done, **bar):
        if count > done and count not in reader.damage.unreadable:
            write_map(work / f"sal_{count:04d}.png", saliency, facts["npy"])
            peaks.extend([math.nan] * (count - 1 - len(peaks)))  # of unreadable frames
            peaks.append(saliency.max())

    count, seconds = reader.decoded, time.perf_counter() - start
    end = {
        "frame_count": count,
        "unreadable": sorted(reader.damage.unreadable),
        "complete": True,
        "peaks": [float(f"{peak:.5g}") if peak == peak else None for peak in peaks],
    }
    cli.write_json(work / RECORD, facts | end)
    if work != folder:
        replace_maps(folder, work, facts)
    new = count - done
    made = cli.counted(count, "map")
    print(f"{made} in {folder} ({new} new in {seconds:.1f} s, {new / seconds:.1f} frames/s)")


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
            start, steps = sampled.seconds, len(sampled.times)
            for k, seconds in enumerate(sampled.times):
                rising = start <= seconds < frame.seconds  # else the clock of the file jumps
                share = (seconds - start) / (frame.seconds - start) if rising else k / steps
                yield sampled.number + k, before + np.float32(share) * (after - before)
        sampled, before = frame, after
    if sampled:
        for k in range(len(sampled.times)):
            yield sampled.number + k, before


def write_map(path: Path, saliency: np.ndarray, save_npy: bool) -> None:
    """Write a map, (H, W), as an 8-bit PNG and, if wanted, the map itself as float32.

    The PNG is the map divided by its maximum, which is kept in a text chunk called "peak".
    Raises RunError for a map that is not finite.
    """
    peak = saliency.max()
    if not np.isfinite(peak):
        mixed = torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu")
        cure = "use --precision fp32" if mixed else "use another checkpoint"
        raise RunError(f"{path}: the model's map is not finite; {cure}")
    if save_npy:
        write_array(path.with_suffix(".npy"), saliency)
    with cli.atomic(path, durable=False) as temporary:
        picture = np.rint(saliency * (255 / peak if peak > 0 else 0)).astype(np.uint8)
        png = cv2.imencode(".png", picture)[1].tobytes()
        text = b"tEXtpeak\0" + f"{peak:.9g}".encode()
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        temporary.write_bytes(png[:PNG_HEADER] + chunk + png[PNG_HEADER:])


def read_peak(path: Path) -> float:
    """Return the maximum that a map had before it became a PNG, NaN where it is not known."""
    with open_picture(path) as image:
        peak = float(image.info.get("peak", "nan"))
        return peak if 0 <= peak < 1e30 else math.nan


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


def replace_maps(folder: Path, new: Path, facts: dict) -> None:
    """Replace the maps in a folder; one that is killed while it does so leaves no mixture."""
    for path in our_maps(folder, read_record(folder)):
        path.unlink()
    cli.write_json(folder / RECORD, facts | {"frame_count": None, "complete": False})
    for path in our_maps(new, facts):
        os.replace(path, folder / path.name)
    os.replace(new / RECORD, folder / RECORD)
    shutil.rmtree(new)


def our_maps(folder: Path, record: dict) -> set[Path]:
    """Return the maps that the run of a record wrote into a folder."""
    kinds, paths = map_kinds(record), folder.glob("sal_*.*") if record else ()
    return {p for p in paths if MAP_NAME.fullmatch(p.name) and p.suffix in kinds}


def map_kinds(record: dict) -> tuple[str, ...]:
    """Return the endings of the maps of a run; one without "npy" is of a version before."""
    return (".png", ".npy") if record.get("npy", True) else (".png",)


def read_record(folder: Path) -> dict:
    """Return what saliency.json says, nothing where there is none."""
    return read_json(folder / RECORD, npy=bool) if (folder / RECORD).exists() else {}


if __name__ == "__main__":
    cli.run_script(distributed.session(main))
