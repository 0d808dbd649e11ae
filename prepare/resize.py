"""Write a data set once more at a model's frame size, so that training decodes small pictures.

    python -m prepare.resize --data_root DATA --output SMALL --height 240 --width 480

SMALL has the ECCV 2018 layout of datasets/layouts.py, whichever of the two layouts DATA has:

    SMALL/<clip>/0001.png         frame, compressed without loss
    SMALL/<clip>/0001_gt.npy      saliency map divided by its maximum: float16 (H, W)
    SMALL/<clip>/0001_flow.png    flow picture, where DATA has one or --motion estimates one
    SMALL/<clip>/fixations.csv    copy; SMALL/vinfo.pkl likewise
    SMALL/<clip>/prepared.json    what the clip was made from and what was left out
    SMALL/dataset.json            copy
    SMALL/splits.json             copy; written last

Training on SMALL at this size gets the same frames and motion as training on DATA, and the same
maps up to rounding to float16. Where dataset.json states the frame rate, flow is estimated between
frames as models see them that sample 8 frames a second.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import InputError, RunError, counted, run_script
from common.files import copy, write_array, write_json
from common.locks import lock
from common.options import HelpFormatter, add_size_options, worker_count
from datasets.frames import motion_estimator
from datasets.layouts import File, fixations_csv, list_clips, read_truth, unbroken_runs
from datasets.rates import FACTS, ClipRates
from datasets.splits import read_splits
from datasets.video_saliency import summarise
from prepare.records import RECORD, begin_clip, finish_clip, read_record, save_picture, to_picture
from video.motion import MOTIONS
from video.pictures import FLOW, read_picture, resize, to_tensor
from video.spec import Spec


def resize_dataset(
    root: Path, output: Path, height: int, width: int, motion: str = "none", workers: int = 1
) -> list[tuple[str, str]]:
    """Write the clips of all splits at another size, and return what was left out: (kind, file).

    motion: how to estimate the flow where `root` has no picture of it, "none" for not at all.
    workers: threads, each of which writes one clip at a time.
    Raises InputError where `root` is no data set, or a clip's folder contains other frames.
    """
    splits = read_splits(root)
    if output.resolve() == root.resolve():
        raise InputError(f"{output}: is the data set itself; choose another output folder")
    names = list(dict.fromkeys(sum(splits.values(), [])))
    clips = list_clips(root, names)
    motion_estimator(motion)  # raises InputError now where RAFT has no weights
    facts = {"source": str(root.resolve()), "height": height, "width": width, "motion": motion}
    rates = ClipRates(root)

    def write(name: str) -> list[list[str]]:
        step = rates.step(name, Spec().fps) if MOTIONS[motion].channels else 1
        step = {"step": step} if step > 1 else {}
        write_clip(output / name, clips[name], fixations_csv(root, name), facts | step)
        return read_record(output / name)["left_out"]

    output.mkdir(parents=True, exist_ok=True)
    left_out = [("clip without frames", name) for name in names if not clips.get(name)]
    with ThreadPoolExecutor(workers) as pool:
        for problems in tqdm(pool.map(write, clips), str(output), len(clips), unit="clip"):
            left_out += map(tuple, problems)
    for name in ("vinfo.pkl", FACTS):
        if (root / name).exists():
            copy(root / name, output / name)
    write_json(output / "splits.json", splits)
    return left_out


def write_clip(folder: Path, files: list[File], fixations: Path | None, facts: dict) -> None:
    """Write one clip unless it is complete.

    fixations: CSV file to copy. facts: source, height, width and motion, as in `resize_dataset`;
    step: of the frames that a model sees, 1 if missing.
    """
    if not begin_clip(folder, facts):
        return
    left_out = []

    def read(reader: Callable, path: Path | None, otherwise: str):
        """Return a file's content, or None; if it is unusable, it is left out as `otherwise`."""
        try:
            return path and reader(path, facts["height"], facts["width"])
        except InputError as error:
            left_out.append((otherwise, str(error)))

    for run in unbroken_runs(files):
        recent: deque[Tensor] = deque(maxlen=facts.get("step", 1))  # readable frames of the run
        for file in run:
            frame = read(read_resized, file.picture, "unreadable frame")
            if frame is None:
                continue
            truth = read(read_truth, file.truth, "unusable ground truth")
            flow = read(read_resized, file.flow, "unreadable flow")
            rgb = to_tensor(frame)
            if flow is None:
                previous = recent[0] if recent else None
                flow = to_picture(motion_estimator(facts["motion"])(previous, rgb))
            name = f"{file.number:04d}"
            save_picture(folder / f"{name}.png", frame, compress_level=1)
            if flow.size:  # else there is no motion
                save_picture(folder / (name + FLOW), flow, compress_level=1)
            if truth is not None:
                write_array(folder / f"{name}_gt.npy", truth[0].numpy().astype(np.float16))
            recent.append(rgb)
    if fixations:
        copy(fixations, folder / "fixations.csv")
    finish_clip(folder, {**facts, "left_out": left_out})


def read_resized(path: Path, height: int, width: int) -> np.ndarray:
    return resize(read_picture(path), height, width)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m prepare.resize",
        description="Write a data set once more at a model's frame size. Run the same command "
        "again to continue after an interruption.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--data_root", type=Path, required=True, help="data set")
    add("--output", type=Path, required=True, help="folder of the resized data set")
    add_size_options(add)
    flows = [name for name, motion in MOTIONS.items() if motion.channels == 3]
    add("--motion", default="none", choices=["none", *flows],
        help="optical flow to estimate where the data set has no picture of it")  # fmt: skip
    add("--workers", type=worker_count, default=os.cpu_count() or 1, help="threads")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    options = args.height, args.width, args.motion, args.workers
    with lock(args.output):
        left_out = resize_dataset(args.data_root, args.output, *options)
    frames = sum(1 for _ in args.output.glob("*/*[0-9].png"))
    print(f"{args.output}: {counted(frames, 'frame')} at {args.height}×{args.width}")
    if left_out:
        print(f"left out, listed in each clip's {RECORD}: {summarise(left_out)}")
    if unreadable := [problem for problem in left_out if problem[0].startswith("unreadable")]:
        raise RunError(f"the others are done: {summarise(unreadable)}; make these files again")


if __name__ == "__main__":
    run_script(main)
