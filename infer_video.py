"""Predict a saliency map for each frame of 360° videos, folders of frames or pictures.

The same command continues an interrupted run. Several clips on several GPUs: torchrun
--nproc_per_node 4 infer_video.py --video_path *.mp4 …
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import os
import shlex
import sys
import time
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from pathlib import Path

from common import options
from common.errors import Failures, advice, counted, run_script
from maps.exports import KINDS, export_path, grid


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    add = parser.add_argument
    add("--video_path", type=Path, nargs="+", required=True, metavar="PATH",
        help="video, folder of frames, or picture; several are allowed")  # fmt: skip
    add("--ckpt_path", type=Path, default=options.CHECKPOINT, help="checkpoint")
    options.add_model_options(add)
    add("--output_dir", type=Path, help="folder for the maps; for several clips, with a subfolder "
        "for each (default: outputs/<name>_saliency)")  # fmt: skip
    add("--save_npy", action="store_true", help="also write float32 maps; see --normalise")
    add("--normalise", choices=["max", "density"], default="max", help="values of float maps; "
        "max: the network's output, unchanged; density: per steradian, integral 1")  # fmt: skip
    add("--export", type=export_path, action="append", default=[], metavar="FILE", help="also "
        "write all maps as one file; .csv: the highest peaks of each; .npz: attention in tiles; "
        ".npy: one array. May be given several times; each clip gets its own")  # fmt: skip
    add("--peaks", type=options.at_least(1, 1001, int), default=5, help="peaks of a map in a .csv")
    add("--tiles", type=grid, default="6x12", help="rows x columns of tiles in an .npz")
    options.add_motion_option(add)
    options.add_sampling_option(add)
    add("--quality", choices=["fast"], help="inference resolution of the cube U-Net; "
        "fast: 75%% of the height and width, also of the maps (default: full size)")  # fmt: skip
    add("--front", type=float, help="strength of the cube U-Net's preference for straight "
        "ahead, where viewers begin, from 0 to 1 (default: the checkpoint's)")  # fmt: skip
    options.add_machine_options(add)
    add("--fps", type=options.frame_rate, help="frame rate of a folder of frames "
        "(default: as in a data set's dataset.json, else 8); videos have their own")  # fmt: skip
    options.add_layout_options(add)
    add("--overwrite", nargs="?", const="all", choices=["all", "other"], help="replace existing "
        "maps once all new ones are finished; other: only maps of another source or checkpoint; "
        "both also replace exports of another clip")  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":  # help and wrong options need none of the slow imports
    given_options = run_script(parse_args)

from tqdm import tqdm

import models
from common import processes
from common.components import MODELS, find_all
from common.devices import autocast, choose_device, choose_kernels, choose_precision
from common.errors import InputError, RunError
from common.files import maps_folder, output_of, protected
from common.locks import lock
from datasets.rates import rate_of_folder
from maps.folder import NORMALISATIONS, MapFolder, fingerprint
from maps.interpolate import interpolate
from models.checkpoint import sha256
from models.predict import predict_from
from video.background import map_in_background, prefetch
from video.reader import read_frames


def main(args: argparse.Namespace | None = None) -> str:
    """Write the maps of all clips and return the command that shows the maps of the first."""
    args = args or parse_args()
    device = choose_device(args.device)
    dtype = choose_precision(args.precision, device)
    choose_kernels(device, dtype)
    find_all(args)
    kind = MODELS.find(args.model) if args.model else models.SaliencyModel
    given = {"sampling": args.sampling, "front": args.front}
    given = {name: value for name, value in given.items() if value is not None}
    model = models.load(args.ckpt_path, device, args.quality, **given)
    if not isinstance(model, kind):
        raise InputError(f"{args.ckpt_path}: contains a {model.name}; leave out --model")
    with advice(f"--motion {args.motion}"):
        model.use_motion(args.motion)
    model = models.deploy(model, dtype)
    folders = output_folders(args.video_path, args.output_dir)
    for path in args.export:
        if len(folders) > 1 and path != Path(path.name):
            raise InputError(f"{path}: each clip gets its own file; give a name without a folder")
    run = {
        "map_width": model.spec.width,
        "map_height": model.spec.height,
        "model": model.name,
        "motion": model.spec.motion,
        "sampling": model.arguments.get("sampling"),
        "quality": args.quality,
        "front": args.front,
        "precision": str(dtype).removeprefix("torch."),
        "checkpoint": str(args.ckpt_path),
        "checkpoint_sha256": sha256(args.ckpt_path),
        "normalisation": NORMALISATIONS[args.normalise],
        "npy": args.save_npy,
    }
    failures = Failures()
    processes.extend_timeout()
    with autocast(device, dtype):
        for folder, path in processes.shard(folders.items()):
            with failures.collected(path):
                rate = args.fps or rate_of_folder(path)
                infer(model, path, rate, folder, run, args)
    Failures(sum(processes.gather(list(failures)), [])).report(len(folders))
    words = ["--original_video", str(args.video_path[0])]
    words += ["--saliency_dir", str(next(iter(folders)))] if args.output_dir else []
    return f"next: {options.python()} make_video.py {shlex.join(words)}"


def output_folders(clips: list[Path], folder: Path | None) -> dict[Path, Path]:
    """Return {folder for the maps: clip}. Raises InputError for two clips of the same name."""
    if folder and len(clips) == 1:
        return {folder: clips[0]}
    folders: dict[Path, Path] = {}
    for path in clips:
        if (other := folders.setdefault(maps_folder(path, folder), path)) is not path:
            raise InputError(f"{path}: has the same name as {other}; process them one by one")
    return folders


def infer(
    model: models.SaliencyModel,
    path: Path,
    fps: Fraction | None,
    folder: Path,
    run: dict,
    args: argparse.Namespace,
) -> None:
    """Write the missing maps of one clip, and its exports.

    fps: frame rate of a folder, None if unknown. run: entries of saliency.json about the run.
    Raises InputError for other maps in the folder, and RunError at the end for damaged frames.
    """
    if folder.resolve() in (path.resolve(), *path.resolve().parents):
        raise InputError(f"{path}: is in the output folder {folder}; choose another --output_dir")
    with advice("--coverage"):
        reader = read_frames(path, model.spec, fps, args.stereo, args.coverage)
    for note in reader.info.notes:
        print(f"note: {path}: {note}", file=sys.stderr)
    targets = [name if len(args.video_path) == 1 else folder / name for name in args.export]
    with ExitStack() as outputs, lock(folder), protected(args.ckpt_path, *reader.info.files):
        for target in targets:
            clip = fingerprint(reader.info.files)
            outputs.enter_context(output_of(clip, target, bool(args.overwrite)))
        maps = MapFolder(folder, reader, run)
        if not args.export or args.overwrite == "all" or not maps.complete:
            maps.begin(args.overwrite)
            write_maps(model, maps)
        for target in targets:
            export(target, maps, args)
    if str(reader.damage):
        raise RunError(f"{path}: {reader.damage}")


def write_maps(model: models.SaliencyModel, maps: MapFolder) -> None:
    """Write the missing maps of a source."""
    reader, start, done = maps.reader, time.perf_counter(), maps.done
    info = reader.info
    predicted = predict_from(model, prefetch(reader), done)
    covered = info.layout.covered(model.spec.height, model.spec.width)
    written = map_in_background(maps.write, interpolate(predicted, covered))
    length = info.frames or round((info.seconds or 0) * info.fps) or None
    bar = {"total": length, "initial": done, "unit": "frame", "disable": not processes.is_main()}
    for _ in tqdm(written, maps.facts["video"], **bar):
        pass
    maps.finish()
    count, seconds = maps.stored["frame_count"], time.perf_counter() - start
    new = count - done
    speed = f"{new} new in {seconds:.1f} s, {new / seconds:.1f} frames/s" if new else "none new"
    print(f"{counted(count, 'map')} in {maps.folder} ({speed})")


def export(target: Path, folder: MapFolder, args: argparse.Namespace) -> None:
    """Write the maps of a complete folder as one file."""
    record = folder.stored
    if unreadable := record["unreadable"]:
        numbers = ", ".join(map(str, unreadable[:5])) + ", …" * (len(unreadable) > 5)
        frames = counted(len(unreadable), "unreadable frame")
        print(f"note: {target}: no map of {frames} ({numbers})", file=sys.stderr)
    shape = record["frame_count"], record["map_height"], record["map_width"]
    bar = {"unit": "frame", "total": shape[0], "disable": not processes.is_main()}
    maps = tqdm(folder.read(), target.name, **bar)
    with protected(*folder.folder.glob("sal_*.*")):
        KINDS[target.suffix.lower()](target, maps, shape, args.peaks, args.tiles)
    print(f"{target}: {counted(shape[0], 'frame')}, {target.stat().st_size / 1e6:,.1f} MB")


if __name__ == "__main__":
    command = run_script(processes.session(partial(main, given_options)))
    if os.environ.get("RANK", "0") == "0":
        print(command)
