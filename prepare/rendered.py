"""Writing rendered clips in the layout of the ECCV 2018 data, in parallel and to be continued."""

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from cli import InputError, atomic, write_json
from datasets.gaze_files import Fixations, write_fixations_csv

FIXATIONS = "fixations.csv"


def source_hash(*modules: str) -> str:
    """Twelve digits that change with the source of modules, such as "prepare.worlds"."""
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
    """Write one clip unless it is there already, whole and with the same facts.

    facts: whatever determines the clip, with its number of "frames"; becomes scene.json.
    render: yields for each frame RGB uint8 (H, W, 3) and attention (A, 2A) and, if `fixations`,
    their longitudes and latitudes, (N,) radians each.
    quality: of the JPEG files.
    """
    names = {f"{n:04d}{end}" for n in range(1, facts["frames"] + 1) for end in (".jpg", "_gt.npy")}
    names |= {FIXATIONS} if fixations else set()
    ours = (".jpg", "_gt.npy", FIXATIONS)
    there = {path.name for path in folder.glob("[0-9f]*") if path.name.endswith(ours)}
    record = folder / "scene.json"
    if there and not record.exists():
        raise InputError(f"{folder}: holds frames of another origin; choose another --output")
    if there == names and json.loads(record.read_text()) == facts:
        return
    for name in there:
        (folder / name).unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, facts)
    places = []
    for n, (frame, target, *place) in enumerate(render(), start=1):
        with atomic(folder / f"{n:04d}.jpg") as path:
            Image.fromarray(frame).save(path, quality=quality)
        with atomic(folder / f"{n:04d}_gt.npy") as path:
            np.save(path, target)
        places.append(place)
    if fixations:
        write_fixations_csv(folder / FIXATIONS, as_fixations(places))


def as_fixations(places: Sequence[Sequence[np.ndarray]]) -> Fixations:
    """Longitudes and latitudes of frames 1, 2, …, of people who are not told apart."""
    counts = [len(longitudes) for longitudes, _ in places]
    frames = np.repeat(np.arange(1, len(places) + 1), counts)
    longitudes, latitudes = (np.concatenate(axis) for axis in zip(*places, strict=True))
    return Fixations(frames, longitudes, latitudes, np.full(len(frames), -1))


def split(names: list[str], share: float = 1 / 8) -> dict[str, list[str]]:
    """The same share to validate and to test, at least one of three or more; the rest to train."""
    held = max(1, round(len(names) * share)) if len(names) >= 3 else 0
    first, second = len(names) - 2 * held, len(names) - held
    return {"train": names[:first], "val": names[first:second], "test": names[second:]}


def quiet_worker() -> None:
    """One thread for each process; Ctrl-C is for the parent, which lets clips be finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def write_clips(root: Path, write: Callable, jobs: list[tuple], workers: int) -> None:
    """write(*job) for every job, in `workers` processes, with a bar of progress."""
    spawn = multiprocessing.get_context("spawn")  # a forked copy of torch's threads can hang
    with tqdm(total=len(jobs), unit="clip", desc=str(root)) as bar:
        if workers == 1:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as in a worker: sums are rounded the same way
            try:
                for job in jobs:
                    write(*job)
                    bar.update()
            finally:
                torch.set_num_threads(threads)
            return
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read where a worker starts
        with ProcessPoolExecutor(workers, spawn, quiet_worker) as pool:
            try:
                for done in as_completed([pool.submit(write, *job) for job in jobs]):
                    done.result()
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)  # or it would render all that are waiting
                raise
