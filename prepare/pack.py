"""Pack a data set at a model's size into one memory-mapped file for each clip.

    python -m prepare.pack --data_root DATA --output PACKED --height 240 --width 480

PACKED/<clip>/packed.npy contains frames, flow and maps of a clip (video/packed.py). Its fixations
are beside it; vinfo.pkl, dataset.json and splits.json are copied from DATA. packed.json states the
size and rate of PACKED; models with others are refused. PACKED/<clip>/prepared.json lists the
sources of a clip and its unreadable files.

Training and scores are bit-identical to those with DATA. Maps keep their size, but are resized to
the size of the frames if they are larger or differ in size.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from common import options
from common.components import MOTIONS, find_all
from common.errors import InputError, RunError, counted, run_script
from common.files import atomic, check_file, json_bytes
from common.locks import lock
from datasets import layouts
from datasets.layouts import File, list_clips, read_map, read_truth
from datasets.rates import RATES_FILE, ClipRates
from datasets.splits import read_splits
from datasets.video_saliency import summarise
from prepare import records
from video.packed import PACKED, PARTS, record_type
from video.pictures import read_picture, resize
from video.reader import Frame, read_pictures, sampling_step
from video.spec import HIGHEST_FPS, Spec

Problems = list[tuple[str, str]]  # (kind, file)


def pack_dataset(
    root: Path, output: Path, spec: Spec, rates: ClipRates, workers: int = 1
) -> Problems:
    """Pack the clips of all splits for models of a size, rate and motion; return the problems.

    spec: its motion is the flow to estimate if `root` has no flow pictures. workers: threads.
    Raises InputError if `root` is not a data set, or `output` contains files of somebody else.
    """
    splits = read_splits(root)
    if output.resolve() == root.resolve():
        raise InputError(f"{output}: is the data set itself; choose another output folder")
    names = list(dict.fromkeys(sum(splits.values(), [])))
    clips, layout = list_clips(root, names), layouts.find_layout(root)
    if layout.packed_format(root):
        raise InputError(f"{root}: is packed already; give the original data set")
    vinfo = root / "vinfo.pkl"
    files = {vinfo.name: check_file(vinfo).read_bytes()} if vinfo.exists() else {}
    if known := {name: str(rate) for name in clips if (rate := rates.of(name))}:
        files[RATES_FILE] = json_bytes({"fps": known})
    files["splits.json"] = json_bytes(splits)
    records.write_files(output, files, only_check=True)
    packed_format = {"height": spec.height, "width": spec.width, "fps": spec.fps}
    facts = {"source": str(root.resolve()), "motion": spec.motion, **packed_format}

    def write(name: str) -> dict:
        step = sampling_step(rates.of(name), spec.fps)
        record = records.clip_record(output / name, facts | {"step": step})
        if records.begin_clip(record):
            left_out, smaller = pack_clip(output / name / PACKED, clips[name], spec, step)
            if (path := layout.fixations(root, name)).is_file():
                with atomic(output / name / "fixations.csv") as temporary:
                    shutil.copyfile(path, temporary)
            record.finish(left_out=left_out, smaller_maps=smaller)
        return record.stored

    left_out = [("clip without frames", name) for name in names if not clips.get(name)]
    with ThreadPoolExecutor(workers) as pool:
        made = list(tqdm(pool.map(write, clips), str(output), len(clips), unit="clip"))
    packed_format["smaller_maps"] = any(record["smaller_maps"] for record in made)
    records.write_files(output, {layouts.PACKED_FORMAT: json_bytes(packed_format)} | files)
    return left_out + [tuple(problem) for record in made for problem in record["left_out"]]


def pack_clip(path: Path, files: list[File], spec: Spec, step: int) -> tuple[Problems, bool]:
    """Write a clip; return unreadable files, and whether its maps were made smaller."""
    problems, size, shapes = [], (spec.height, spec.width), set()
    for file in files:
        with suppress(InputError):  # reported when it is written
            shapes |= {read_map(file.truth).shape} if file.truth else set()
    as_they_are = len(shapes) == 1 and math.prod(*shapes) <= math.prod(size)
    flow = spec.motion != "none" or any(file.flow for file in files)
    kind = record_type(min(shapes) if as_they_are else size, size, flow)
    rows = {file.number: row for row, file in enumerate(files)}
    with atomic(path, durable=False) as temporary, open(temporary, "wb") as target:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False}
        np.lib.format.write_array_header_2_0(target, header | {"shape": (len(files),)})
        start = target.tell()
        for file, frame in read_clip(files, spec, step, problems):
            record = np.zeros((), kind)
            record["number"] = file.number
            for part, values in parts(file, frame, spec, as_they_are, problems):
                record[part], record["has"][PARTS.index(part)] = values, True
            target.seek(start + rows[file.number] * kind.itemsize)
            target.write(record.tobytes())
    return problems, bool(shapes) and not as_they_are


def read_clip(
    files: list[File], spec: Spec, step: int, problems: Problems
) -> Iterator[tuple[File, Frame | None]]:
    """Yield each file of a clip with its frame, None for an unreadable one."""
    for run in layouts.unbroken_runs(files):
        for sampled in filter(None, (run[start::step] for start in range(step))):
            reader, count = read_pictures([file.picture for file in sampled], spec), 0
            with suppress(InputError):  # no frame is readable
                for frame in (frame for shown in reader for frame in [shown] * len(shown.times)):
                    count += 1
                    yield sampled[count - 1], None if count in reader.damage.unreadable else frame
            yield from ((file, None) for file in sampled[count:])
            problems += reader.damage.problems()


def parts(
    file: File, frame: Frame | None, spec: Spec, as_they_are: bool, problems: Problems
) -> Iterator[tuple[str, Any]]:
    """Yield the existing parts of a frame's record. An unreadable map is all NaN."""
    if frame:
        yield "picture", frame.bits
    try:
        if frame and spec.motion != "none":
            yield "flow", (frame.motion * 255).round().byte()
        elif file.flow:
            flow = resize(read_picture(file.flow), spec.height, spec.width)
            yield "flow", flow.transpose(2, 0, 1)
    except InputError as error:
        problems.append(("unreadable flow", str(error)))
    try:
        if file.truth and as_they_are:
            yield "map", read_map(file.truth)
        elif file.truth:
            yield "map", read_truth(file.truth, spec.height, spec.width)[0].numpy()
    except InputError as error:
        problems.append(("unusable ground truth", str(error)))
        yield "map", np.nan


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m prepare.pack",
        description="Pack a data set at a model's size; the same command resumes a run.",
        formatter_class=options.HelpFormatter,
    )
    add = parser.add_argument
    options.add_data_options(add)
    add("--output", type=Path, required=True, help="folder of the packed data set")
    options.add_size_options(add)
    add("--model_fps", type=options.sampled_rate, default=8.0, metavar="RATE",
        help="frames a second that the model sees, or all")  # fmt: skip
    flows = [name for name, motion in MOTIONS.items() if motion.from_pictures]
    add("--motion", default="none", choices=["none", *flows],
        help="optical flow to estimate if the data set has no flow pictures")  # fmt: skip
    add("--workers", type=options.worker_count, default=os.cpu_count() or 1, help="threads")
    args = parser.parse_args()
    find_all(args)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    spec = Spec(args.height, args.width, args.model_fps, motion=args.motion)
    rates = ClipRates(args.data_root, args.fps)
    with lock(args.output):
        problems = pack_dataset(args.data_root, args.output, spec, rates, args.workers)
    frames = sum(len(files) for files in list_clips(args.output).values())
    rate = "every frame" if spec.fps == HIGHEST_FPS else f"{spec.fps:g} frames a second"
    packed = f"{counted(frames, 'frame')} at {args.height}×{args.width}"
    print(f"{args.output}: {packed}, for models that see {rate}")
    if problems:
        print(f"listed in each clip's {records.RECORD}: {summarise(problems)}")
    if unreadable := [problem for problem in problems if problem[0].startswith("unreadable")]:
        raise RunError(f"the others are done: {summarise(unreadable)}; make these files again")


if __name__ == "__main__":
    run_script(main)
