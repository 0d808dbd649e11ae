"""Saliency maps of 360° videos, folders of frames or pictures: one for each frame.

Several clips on several GPUs: torchrun --nproc_per_node 4 infer_video.py --video_path *.mp4 …
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import distributed
import models
from cli import InputError, atomic, run_script, write_json
from models.checkpoint import sha256
from models.devices import PRECISIONS, autocast, choose_device, choose_precision
from video.motion import MOTIONS, with_motion
from video.reader import FrameReader, read_frames


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--video_path", type=Path, nargs="+", required=True, metavar="PATH",
        help="video, folder of frames, or picture; several of them, too")  # fmt: skip
    add("--ckpt_path", type=Path, default="checkpoints/cube_unet_best.pth", help="checkpoint")
    add("--output_dir", type=Path, default="outputs/infer", help="folder for the maps; of "
        "several clips, for a folder each with the clip's name")  # fmt: skip
    add("--save_npy", action="store_true", help="also float32 maps that are not normalised")
    add("--motion", choices=list(MOTIONS), help="how flow is estimated; the model's if not given")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--precision", default="auto", choices=["auto", *PRECISIONS], help="of the network")
    add("--overwrite", action="store_true", help="replace maps that are already there")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = choose_device(args.device)
    model = models.load(args.ckpt_path, device)
    model.spec = with_motion(model.spec, args.motion, args.ckpt_path)
    folders = output_folders(args.video_path, args.output_dir)
    with autocast(device, choose_precision(args.precision, device)):
        for folder, path in distributed.shard(folders.items()):
            infer(model, path, folder, args)


def output_folders(clips: list[Path], folder: Path) -> dict[Path, Path]:
    """Where the maps of each clip go. Raises InputError for two clips of the same name."""
    if len(clips) == 1:
        return {folder: clips[0]}
    folders: dict[Path, Path] = {}
    for path in clips:
        name = path.stem if path.is_file() else path.resolve().name
        if (other := folders.setdefault(folder / name, path)) is not path:
            raise InputError(f"{path}: has the same name as {other}; give them one by one")
    return folders


def infer(model: models.SaliencyModel, path: Path, folder: Path, args: argparse.Namespace) -> None:
    """The maps of one clip, those that are not yet in the folder."""
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
    folder.mkdir(parents=True, exist_ok=True)
    remove_maps(folder, ".sal_*.partial*")  # of a run that was killed
    if args.overwrite:
        remove_maps(folder, "sal_*.*")
    check_folder(folder, facts)
    write_json(folder / "saliency.json", facts | {"frame_count": None, "complete": False})

    done = count_maps(folder, (".png", ".npy") if args.save_npy else (".png",))
    start = time.perf_counter()
    for number, saliency in tqdm(
        maps_of_all_frames(model, reader, done),
        desc=path.name,
        total=reader.info.frames or round((reader.info.seconds or 0) * reader.info.fps) or None,
        initial=done,
        unit="frame",
        disable=not distributed.is_main(),
    ):
        write_map(folder / f"sal_{number:04d}.png", saliency, args.save_npy)
    complete = facts | {"frame_count": reader.decoded, "complete": True}
    write_json(folder / "saliency.json", complete)
    seconds = time.perf_counter() - start
    print(
        f"{reader.decoded} maps in {folder} ({reader.decoded - done} new in "
        f"{seconds:.1f} s, {(reader.decoded - done) / seconds:.1f} frames/s)"
    )


def maps_of_all_frames(
    model: models.SaliencyModel, reader: FrameReader, done: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Maps of the frames after the first `done`: number and (H, W) float32.

    The model sees every `reader.step`-th frame; the maps between two of them are
    interpolated in time, those after the last one repeat it.
    """
    skip = done // reader.step  # sampled frames whose map is not needed any more
    number = 1 + skip * reader.step
    before = None
    for _, saliency in models.predict(model, reader, skip):
        after = saliency[0].numpy()
        if before is not None:
            for k in range(reader.step):
                if number + k > done:
                    share = np.float32(k / reader.step)
                    yield number + k, before + share * (after - before)
            number += reader.step
        before = after
    for last in range(max(number, done + 1), reader.decoded + 1):
        yield last, before


def write_map(path: Path, saliency: np.ndarray, save_npy: bool) -> None:
    """The 8-bit picture of a map, (H, W), and if wanted the map itself.

    Raises InputError for a map that is not finite.
    """
    peak = saliency.max()
    if not np.isfinite(peak):
        raise InputError(f"{path}: the model's map is not finite; use --precision fp32")
    if save_npy:
        with atomic(path.with_suffix(".npy"), durable=False) as temporary:
            np.save(temporary, saliency)
    with atomic(path, durable=False) as temporary:
        picture = np.rint(saliency * (255 / peak if peak > 0 else 0)).astype(np.uint8)
        temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def count_maps(folder: Path, suffixes: tuple[str, ...]) -> int:
    """How many frames, counted from the first, have all their files."""
    done = 0
    while all((folder / f"sal_{done + 1:04d}{suffix}").exists() for suffix in suffixes):
        done += 1
    return done


def check_folder(folder: Path, facts: dict) -> None:
    """Raises InputError where the folder holds maps of another clip or checkpoint."""
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


def remove_maps(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        if path.suffix in (".png", ".npy"):
            path.unlink()


if __name__ == "__main__":
    run_script(distributed.session(main))
