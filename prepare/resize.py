"""Write a data set once more at a model's frame size, so that training decodes small pictures.

    python -m prepare.resize --data_root DATA --output SMALL --height 240 --width 480

SMALL has the ECCV 2018 layout of datasets/layouts.py, whichever of the two layouts DATA has:

    SMALL/<clip>/0001.png         frame, compressed without loss
    SMALL/<clip>/0001_gt.npy      saliency map divided by its maximum: float16 (H, W)
    SMALL/<clip>/0001_flow.png    flow picture, where DATA has one or --motion estimates one
    SMALL/<clip>/fixations.csv    copy; SMALL/vinfo.pkl likewise
    SMALL/resized.json            what SMALL was made from and what was left out
    SMALL/splits.json             copy; written last

Training on SMALL at this size gets the same frames and motion as training on DATA, and the same
maps up to rounding to float16.
"""

import argparse
import json
import os
import shutil
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from cli import HelpFormatter, InputError, atomic, run_script, write_json
from datasets.layouts import (
    HOW_TO_GET_DATA,
    File,
    fixations_csv,
    list_clips,
    read_splits,
    read_truth,
    unbroken_runs,
)
from datasets.video_saliency import motion_estimator, summarise
from video.motion import MOTIONS
from video.reader import read_picture, resize, to_tensor

RECORD = "resized.json"
FLOWS = [name for name, motion in MOTIONS.items() if motion.channels == 3]

Problem = tuple[str, str]  # what was left out: (kind, file)


def resize_dataset(
    root: Path, output: Path, height: int, width: int, motion: str = "none", workers: int = 1
) -> list[Problem]:
    """Write the clips of all splits at another size, and return what was left out as unusable.

    motion: how to estimate the flow where `root` has no picture of it, "none" for not at all.
    workers: threads.
    Files that are in `output` already are kept, so an interrupted run is continued.
    Raises InputError where `root` is no data set, or `output` was made from something else.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such data set; {HOW_TO_GET_DATA}")
    splits = read_splits(root)
    names = list(dict.fromkeys(chain.from_iterable(splits.values())))
    clips = list_clips(root, names)
    motion_estimator(motion)  # raises InputError now where RAFT has no weights
    options = {"height": height, "width": width, "motion": motion}
    facts = {"source": str(root.resolve()), **options}
    claim(output, facts)
    problems = [("clip missing", name) for name in names if name not in clips]
    total = sum(map(len, clips.values()))
    with ThreadPoolExecutor(workers) as pool, tqdm(total=total, unit="frame") as bar:
        for clip, files in clips.items():
            problems += write_clip(output / clip, files, pool, **options)
            if fixations := fixations_csv(root, clip):
                copy(fixations, output / clip / "fixations.csv")
            bar.update(len(files))
    if (root / "vinfo.pkl").exists():
        copy(root / "vinfo.pkl", output / "vinfo.pkl")
    write_json(output / RECORD, {**facts, "left_out": problems})
    write_json(output / "splits.json", splits)
    return problems


def claim(output: Path, facts: dict) -> None:
    """Record in the output folder what it is made from, and delete what a killed run left.

    Raises InputError where the folder was made from something else, or not by this command.
    """
    record = output / RECORD
    if record.exists():
        known = json.loads(record.read_text(encoding="utf-8"))
        for name, value in facts.items():
            if known.get(name) != value:
                raise InputError(
                    f"{output}: was made with {name} {known.get(name)}, not {value}; "
                    "choose another output folder"
                )
    elif output.is_dir() and any(not path.name.startswith(".") for path in output.iterdir()):
        raise InputError(f"{output}: contains other files; choose another output folder")
    output.mkdir(parents=True, exist_ok=True)
    for temporary in output.glob("*/.*.partial.*"):
        temporary.unlink()
    write_json(record, facts)


def write_clip(
    folder: Path, files: list[File], pool: Executor, height: int, width: int, motion: str
) -> list[Problem]:
    """Write the frames, maps and flow pictures of a clip that do not exist yet."""
    folder.mkdir(exist_ok=True)

    def path(file: File, end: str) -> Path:
        return folder / f"{file.number:04d}{end}"

    def write_frame(file: File) -> list[Problem]:
        try:
            resize_picture(file.picture, path(file, ".png"), height, width)
        except InputError as error:
            return [("unreadable frame", str(error))]
        try:
            if file.truth and not path(file, "_gt.npy").exists():
                truth = read_truth(file.truth, height, width)[0].numpy()
                with atomic(path(file, "_gt.npy"), durable=False) as temporary:
                    np.save(temporary, truth.astype(np.float16))
        except InputError as error:
            return [("unusable ground truth", str(error))]
        return []

    def write_flow(file: File, previous: File | None) -> list[Problem]:
        problems = []
        if file.flow:
            try:
                resize_picture(file.flow, path(file, "_flow.png"), height, width)
            except InputError as error:
                problems.append(("unreadable flow", str(error)))
        if motion in FLOWS and not path(file, "_flow.png").exists():
            images = (f and to_tensor(read_picture(path(f, ".png"))) for f in (previous, file))
            flow = motion_estimator(motion)(*images)
            picture = (flow * 255).round().byte().permute(1, 2, 0).numpy()
            write_picture(path(file, "_flow.png"), picture)
        return problems

    one_each = {file.number: file for file in files}
    found = [
        [("second frame of one number", str(file.picture))]
        for file in files
        if file is not one_each[file.number]
    ]
    found += pool.map(write_frame, one_each.values())
    for run in unbroken_runs(list(one_each.values())):
        written = [file for file in run if path(file, ".png").exists()]
        found += pool.map(write_flow, written, [None, *written])  # flow since the last readable
    return list(chain.from_iterable(found))


def resize_picture(source: Path, target: Path, height: int, width: int) -> None:
    """Write a picture at another size, unless it exists. Raises InputError if unreadable."""
    if not target.exists():
        write_picture(target, resize(read_picture(source), height, width))


def write_picture(path: Path, picture: np.ndarray) -> None:
    with atomic(path, durable=False) as temporary:
        Image.fromarray(picture).save(temporary, compress_level=1)


def copy(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m prepare.resize",
        description="Write a data set once more at a model's frame size. Run the same command "
        "again to continue after an interruption.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--data_root", type=Path, required=True, help="data set")
    add("--output", type=Path, required=True, help="folder of the resized data set")
    add("--height", type=int, default=240, help="height of a frame in pixels")
    add("--width", type=int, default=480, help="width of a frame in pixels")
    add("--motion", default="none", choices=["none", *FLOWS],
        help="optical flow to estimate where the data set has no picture of it")  # fmt: skip
    add("--workers", type=int, default=os.cpu_count() or 1, help="threads")
    args = parser.parse_args()
    for name in ("height", "width", "workers"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} must be at least 1, got {getattr(args, name)}")
    return args


def main() -> None:
    args = parse()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    size = args.height, args.width
    problems = resize_dataset(args.data_root, args.output, *size, args.motion, args.workers)
    frames = sum(1 for _ in args.output.glob("*/*[0-9].png"))
    print(f"{args.output}: {frames} frames at {args.height}×{args.width}")
    if problems:
        print(f"left out, listed in {args.output / RECORD}: {summarise(problems)}")


if __name__ == "__main__":
    run_script(main)
