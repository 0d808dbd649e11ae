"""Rendered clips: writing them in the layout of the ECCV 2018 data, in parallel and resumable."""

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from datasets.gaze_files import UNKNOWN, Fixations, write_fixations_csv
from files import write_array
from prepare.records import begin_clip, finish_clip, is_complete, save_picture


def source_hash(*modules: str) -> str:
    """Return twelve digits that change with the source of modules, such as "prepare.worlds"."""
    root = Path(__file__).resolve().parents[1]
    sources = ((root / f"{name.replace('.', '/')}.py").read_bytes() for name in modules)
    return hashlib.sha256(b"".join(sources)).hexdigest()[:12]


def write_clip(
    folder: Path,
    facts: dict,
    render: Callable[[], Iterable[tuple[np.ndarray, ...]]],
    quality: int = 92,
    fixations: bool = False,
) -> None:
    """Write one clip unless it is there already, complete and with the same facts.

    facts: everything that determines the clip; written as its record (prepare/records.py).
    render: yields for each frame RGB uint8 (H, W, 3) and attention (A, 2A) and, if `fixations`,
    their longitudes and latitudes in radians, (N,) each.
    quality: quality of the JPEG files, at most 100.

    Raises: InputError if the folder contains frames that were not rendered here.
    """
    if is_complete(folder, facts):
        return
    begin_clip(folder, facts)
    places = []
    for n, (frame, attention, *place) in enumerate(render(), start=1):
        save_picture(folder / f"{n:04d}.jpg", frame, quality=quality)
        write_array(folder / f"{n:04d}_gt.npy", attention)
        places.append(place)
    if fixations:
        longitudes, latitudes = zip(*places, strict=True)
        frames = np.repeat(np.arange(1, len(places) + 1), [len(at) for at in longitudes])
        where = np.concatenate(longitudes), np.concatenate(latitudes)
        observers = np.full(len(frames), UNKNOWN)
        write_fixations_csv(folder / "fixations.csv", Fixations(frames, *where, observers))
    finish_clip(folder, facts)


def split(names: list[str], share: float = 1 / 8) -> dict[str, list[str]]:
    """Return names of clips by split: the last ones, two equal shares, for "val" and "test".

    Each has at least one of three or more clips; "train" has the rest.
    """
    held = max(1, round(len(names) * share)) if len(names) >= 3 else 0
    first, second = len(names) - 2 * held, len(names) - held
    return {"train": names[:first], "val": names[first:second], "test": names[second:]}


def start_worker() -> None:
    """Use one thread in this process, and leave Ctrl-C to the parent, which finishes clips."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def write_clips(root: Path, write: Callable, jobs: list[tuple], workers: int) -> None:
    """Call write(*job) for every job in `workers` processes and show the progress.

    The first error is raised after the running jobs; those that wait are not started.
    """
    progress = {"total": len(jobs), "unit": "clip", "desc": str(root)}
    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums are rounded as in a worker
        try:
            for job in tqdm(jobs, **progress):
                write(*job)
        finally:
            torch.set_num_threads(threads)
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read where a worker starts
    spawn = multiprocessing.get_context("spawn")  # a forked copy of torch's threads can hang
    with ProcessPoolExecutor(workers, spawn, start_worker) as pool:
        for _ in tqdm(pool.map(write, *zip(*jobs, strict=True)), **progress):
            pass
