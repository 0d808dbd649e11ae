"""Write a data set once more at a model's frame size, so that training decodes small pictures.

    python -m prepare.resize --data_root DATA --output SMALL --height 240 --width 480

SMALL has the ECCV 2018 layout of datasets/layouts.py, whichever of the two layouts DATA has: frames
as PNG, maps divided by their maximum as float16, flow pictures where DATA has them or --motion
estimates them, copies of fixations and dataset.json, and splits.json, which is written last.
SMALL/<clip>/prepared.json says what a clip was made from and what was left out.

Training on SMALL at this size gets the same frames and motion as training on DATA, and the same
maps up to rounding to float16. Where dataset.json states the frame rate, flow is estimated between
frames as models see them that sample 8 frames a second.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from common.errors import InputError, RunError, counted, run_script
from common.files import check_file, copy, json_bytes, write_array
from common.locks import lock
from common.options import HelpFormatter, add_size_options, worker_count
from datasets.layouts import (
    ECCV2018Layout,
    File,
    find_layout,
    list_clips,
    read_truth,
    unbroken_runs,
)
from datasets.rates import FACTS, ClipRates
from datasets.splits import read_splits
from datasets.video_saliency import summarise
from prepare import records
from video.motion import MOTIONS, motion_estimator
from video.pictures import FLOW, read_picture, resize
from video.reader import Frame, read_pictures, sampling_step
from video.spec import Spec


def resize_dataset(
    root: Path, output: Path, height: int, width: int, motion: str = "none", workers: int = 1
) -> list[tuple[str, str]]:
    """Write the clips of all splits at another size, and return what was left out: (kind, file).

    motion: how to estimate the flow where `root` has no picture of it, "none" for not at all.
    workers: threads, each of which writes one clip at a time.
    Raises InputError where `root` is no data set, or `output` contains files of somebody else.
    """
    splits = read_splits(root)
    if output.resolve() == root.resolve():
        raise InputError(f"{output}: is the data set itself; choose another output folder")
    names = list(dict.fromkeys(sum(splits.values(), [])))
    clips, rates, layout = list_clips(root, names), ClipRates(root), find_layout(root)
    copies = [root / name for name in ("vinfo.pkl", FACTS) if (root / name).exists()]
    files = {path.name: check_file(path).read_bytes() for path in copies}
    files["splits.json"] = json_bytes(splits)
    records.write_ours(output, files, only_check=True)
    motion_estimator(motion)  # raises InputError now where RAFT has no weights
    spec = Spec(height, width, motion=motion)
    facts = {"source": str(root.resolve()), "height": height, "width": width, "motion": motion}

    def write(name: str) -> list[list[str]]:
        step = sampling_step(rates.of(name), spec.fps) if MOTIONS[motion].channels else 1
        stepped = facts | ({"step": step} if step > 1 else {})
        record = records.clip_record(output / name, stepped)
        if records.begin_clip(record):
            left_out = write_frames(output / name, clips[name], spec, step)
            if (path := layout.fixations(root, name)).is_file():
                copy(path, ECCV2018Layout().fixations(output, name))
            record.finish(left_out=left_out)
        return record.stored["left_out"]

    output.mkdir(parents=True, exist_ok=True)
    left_out = [("clip without frames", name) for name in names if not clips.get(name)]
    with ThreadPoolExecutor(workers) as pool:
        for problems in tqdm(pool.map(write, clips), str(output), len(clips), unit="clip"):
            left_out += map(tuple, problems)
    records.write_ours(output, files)
    return left_out


def write_frames(folder: Path, files: list[File], spec: Spec, step: int) -> list[tuple[str, str]]:
    """Write a clip's frames, maps and flow, and return what was left out: (kind, file).

    step: the flow of a frame is that since the step-th frame before it.
    """
    left_out: list[tuple[str, str]] = []
    sampled = [run[start::step] for run in unbroken_runs(files) for start in range(step)]
    for run in sampled:
        reader = read_pictures([file.picture for file in run], spec)
        with suppress(InputError):  # none can be read
            frames = (frame for frame in reader for _ in frame.times)
            for number, (file, frame) in enumerate(zip(run, frames), 1):
                if number not in reader.damage.unreadable:
                    left_out += write_frame(folder / f"{file.number:04d}.png", file, frame, spec)
        left_out += reader.damage.problems()
    return left_out


def write_frame(path: Path, file: File, frame: Frame, spec: Spec) -> list[tuple[str, str]]:
    """Write a frame, its map and its flow, and return what was left out: (kind, file)."""
    left_out: list[tuple[str, str]] = []
    records.save_picture(path, frame.rgb, compress_level=1)
    try:
        flow = frame.motion if spec.motion != "none" else None
        if flow is None and file.flow:
            flow = resize(read_picture(file.flow), spec.height, spec.width)
        if flow is not None:
            records.save_picture(path.with_name(path.stem + FLOW), flow, compress_level=1)
    except InputError as error:
        left_out.append(("unreadable flow", str(error)))
    try:
        if file.truth:
            truth = read_truth(file.truth, spec.height, spec.width)[0].numpy()
            write_array(path.with_name(f"{path.stem}_gt.npy"), truth.astype(np.float16))
    except InputError as error:
        left_out.append(("unusable ground truth", str(error)))
    return left_out


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
    flows = [name for name, motion in MOTIONS.items() if motion.from_pictures]
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
        print(f"left out, listed in each clip's {records.RECORD}: {summarise(left_out)}")
    if unreadable := [problem for problem in left_out if problem[0].startswith("unreadable")]:
        raise RunError(f"the others are done: {summarise(unreadable)}; make these files again")


if __name__ == "__main__":
    run_script(main)
