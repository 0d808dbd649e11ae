"""Predict saliency maps of 360° videos, folders of frames or pictures: one for each frame.

An interrupted run continues where it stopped when it is started again. Several clips on several
GPUs: torchrun --nproc_per_node 4 infer_video.py --video_path *.mp4 …
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor
from tqdm import tqdm

import cli
import distributed
import models
from cli import InputError
from models.checkpoint import sha256
from video.motion import MOTIONS
from video.reader import Frame, FrameReader, read_frames


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    add = parser.add_argument
    add("--video_path", type=Path, nargs="+", required=True, metavar="PATH",
        help="video, folder of frames, or picture; several are allowed")  # fmt: skip
    add("--ckpt_path", type=Path, default="checkpoints/cube_unet_best.pth", help="checkpoint")
    add("--output_dir", type=Path, default="outputs/infer", help="folder for the maps; of "
        "several clips, each gets a folder of its name in it")  # fmt: skip
    add("--save_npy", action="store_true", help="also write float32 maps, not normalised")
    add("--motion", choices=list(MOTIONS), help="how motion between frames is estimated "
        "(default: as the model was trained)")  # fmt: skip
    cli.add_machine_options(add)
    add("--overwrite", action="store_true", help="replace maps that are already there")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = cli.choose_device(args.device)
    model = models.load(args.ckpt_path, device)
    with cli.advice(f"--motion {args.motion}"):
        model.use_motion(args.motion)
    folders = output_folders(args.video_path, args.output_dir)
    with cli.autocast(device, cli.choose_precision(args.precision, device)):
        for folder, path in distributed.shard(folders.items()):
            infer(model, path, folder, args)


def infer(model: models.SaliencyModel, path: Path, folder: Path, args: argparse.Namespace) -> None:
    """Write the maps of one clip that are not yet in the folder."""
    reader = read_frames(path, model.spec)
    facts = {
        "video": path.name,
        "video_bytes": path.stat().st_size if path.is_file() else None,
        "fps": float(reader.info.fps),
        "width": reader.info.width,
        "height": reader.info.height,
        "map_width": model.spec.width,
        "map_height": model.spec.height,
        "model": model.name,
        "motion": model.spec.motion,
        "checkpoint": str(args.ckpt_path),
        "checkpoint_sha256": sha256(args.ckpt_path),
        "normalisation": "each map divided by its maximum",
    }
    clean_folder(folder, facts, args.overwrite)
    cli.write_json(folder / "saliency.json", facts | {"frame_count": None, "complete": False})

    done = count_maps(folder, (".png", ".npy") if args.save_npy else (".png",))
    skip = done // reader.step  # sampled frames whose maps are not needed any more
    start = time.perf_counter()
    maps = interpolate(models.predict(model, reader, skip), reader)
    length = reader.info.frames or round((reader.info.seconds or 0) * reader.info.fps) or None
    bar = {"desc": path.name, "unit": "frame", "disable": not distributed.is_main()}
    for number, saliency in tqdm(maps, total=length, initial=skip * reader.step, **bar):
        if number > done:
            write_map(folder / f"sal_{number:04d}.png", saliency, args.save_npy)

    count, seconds = reader.decoded, time.perf_counter() - start
    cli.write_json(folder / "saliency.json", facts | {"frame_count": count, "complete": True})
    new, rate = count - done, (count - done) / seconds
    print(f"{count} maps in {folder} ({new} new in {seconds:.1f} s, {rate:.1f} frames/s)")


def interpolate(
    maps: Iterable[tuple[Frame, Tensor]], reader: FrameReader
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, map) of all frames from the first sampled one on; maps: (H, W) float32.

    maps: the sampled frames of `reader` with theirs, (1, H, W). Between two of them, maps are
    interpolated linearly in time; after the last one, its map is repeated.
    """
    number, before = 0, None
    for frame, saliency in maps:
        after = saliency[0].numpy()
        if before is not None:
            steps = frame.number - number
            for k in range(steps):
                yield number + k, before + np.float32(k / steps) * (after - before)
        number, before = frame.number, after
    if before is not None:
        for last in range(number, reader.decoded + 1):
            yield last, before


def write_map(path: Path, saliency: np.ndarray, save_npy: bool) -> None:
    """Write a map, (H, W), as an 8-bit picture and, if wanted, the map itself as float32.

    Raises InputError for a map that is not finite.
    """
    peak = saliency.max()
    if not np.isfinite(peak):
        raise InputError(f"{path}: the model's map is not finite; use --precision fp32")
    if save_npy:
        with cli.atomic(path.with_suffix(".npy"), durable=False) as temporary:
            np.save(temporary, saliency)
    with cli.atomic(path, durable=False) as temporary:
        picture = np.rint(saliency * (255 / peak if peak > 0 else 0)).astype(np.uint8)
        temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


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


def clean_folder(folder: Path, facts: dict, overwrite: bool) -> None:
    """Make the folder and remove partial files of a killed run, and all maps if `overwrite`.

    Raises InputError for a folder with maps of another clip or checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in (".sal_*.partial.*", *["sal_*.png", "sal_*.npy"] * overwrite):
        for path in folder.glob(pattern):
            path.unlink()
    if not any(folder.glob("sal_*.png")):
        return
    try:
        found = json.loads((folder / "saliency.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        found = {}
    for key in ("video", "video_bytes", "checkpoint_sha256", "motion", "width", "height"):
        if found.get(key) != facts[key]:
            raise InputError(
                f"{folder}: holds maps of another run ({key} {found.get(key)} instead of "
                f"{facts[key]}); choose another --output_dir or use --overwrite"
            )


def count_maps(folder: Path, suffixes: tuple[str, ...]) -> int:
    """Return how many frames, counted from the first, have all their files."""
    done = 0
    while all((folder / f"sal_{done + 1:04d}{suffix}").exists() for suffix in suffixes):
        done += 1
    return done


if __name__ == "__main__":
    cli.run_script(distributed.session(main))
