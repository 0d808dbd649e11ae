"""The frames of a data set at a model's size, kept on disk.

A cache holds what decoding, resizing and optical flow made of each clip, once for all runs
that feed frames of the same size and flow:

    <folder>/<data set>-<hash of its path>-240x480[-dis]/<clip>/
        <fingerprint>.npy     a record for each frame, read through a memory map:
                              size    (2,) int32: height and width of the picture on disk
                              target  (H, W) float16, scaled by its maximum; zero where unusable
                              rgb     (3, H, W) uint8
                              motion  (3, H, W) uint8, for models that take flow
        <fingerprint>.json    what the records are, and which files can't be used
        lock                  held while a process writes here

The fingerprint is taken of all that the records depend on: names, sizes and times of the
clip's files, size and kind of the records. A clip that changes gets another one, so what is
stale is never read; it is deleted when the clip is written again. A file has its name only
when it is whole, and a killed process holds no lock: the next one deletes what it left.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from cli import InputError, atomic, write_json
from datasets.layouts import File, unbroken_runs
from video.motion import MOTIONS

VERSION = 1  # of the records; another one makes every cache stale
FRAMES_A_WORKER = 32  # are read in the time that a process takes to start
OPEN_CLIPS = 64  # at most, in a process: each map takes one of its few file handles


class FrameCache:
    """What FrameFiles reads, from a cache. Clips that are absent or stale are written first.

    folder: of caches; root: of the data set; files: its FrameFiles (see video_saliency.py);
    clips: those that may be read, with all their frames.

    Frames, motion and errors are the same, targets are rounded to float16. Of motion, only
    flow is stored: |grey_t − grey_{t−1}| is exact and cheap when taken of cached frames.
    Processes that build a cache at the same time divide its clips among them.

    Raises InputError where there is no room for it, and OSError where it can't be written.
    """

    def __init__(self, folder: str | Path, root: Path, files, clips: dict[str, list[File]]):
        self.files, self.clips, spec = files, clips, files.spec
        self.flow = spec.motion if MOTIONS[spec.motion].channels == 3 else None
        self.record = record_type(spec.height, spec.width, self.flow is not None)
        root = root.resolve()
        name = f"{root.name}-{digest(str(root))[:8]}-{spec.height}x{spec.width}"
        self.folder = Path(folder) / (f"{name}-{self.flow}" if self.flow else name)
        self.paths = {clip: self.folder / clip / f"{self._fingerprint(clip)}.npy" for clip in clips}
        self.errors: dict[str, dict] = {}  # of each clip: kind of file → position → text
        self.places = {f.picture: (clip, i) for clip in clips for i, f in enumerate(clips[clip])}
        missing = [clip for clip in clips if not self._is_complete(clip)]
        if missing:
            self._build(missing)
        for clip in missing:
            if not self._is_complete(clip):
                raise InputError(
                    f"{self.paths[clip]}: was replaced at once by another process, which found "
                    f"other files in {root}; start again when they no longer change"
                )

    def picture(self, file: File) -> tuple[Tensor, tuple[int, int]]:
        self._raise_stored("picture", file)
        size = tuple(self._stored("size", file).tolist())
        return self._stored("rgb", file).float().div_(255), size

    def motion(
        self, file: File, previous: Tensor | None, rgb: Tensor
    ) -> tuple[Tensor, InputError | None]:
        if not self.flow:
            return self.files.motion(file, previous, rgb)
        flaw = None
        try:
            self._raise_stored("flow", file)
        except InputError as error:
            flaw = error
        return self._stored("motion", file).float().div_(255), flaw

    def target(self, file: File) -> Tensor:
        self._raise_stored("truth", file)
        return self._stored("target", file).float()[None]

    def _stored(self, field: str, file: File) -> Tensor:
        clip, position = self.places[file.picture]
        return torch.from_numpy(np.array(open_records(self.paths[clip])[field][position]))

    def _raise_stored(self, kind: str, file: File) -> None:
        """The error that the file raised when the cache was built."""
        clip, position = self.places[file.picture]
        text = self.errors[clip][kind].get(str(position))
        if text is not None:
            raise InputError(f"{getattr(file, kind)}{text}")

    def _fingerprint(self, clip: str) -> str:
        spec, kinds = self.files.spec, ("picture", "truth")
        facts = [VERSION, spec.height, spec.width, self.flow]
        if self.flow:
            kinds += ("flow",)
            facts.append(file_facts(getattr(self.files.motion_of, "path", None)))  # RAFT's weights
        facts += [file_facts(getattr(file, kind)) for file in self.clips[clip] for kind in kinds]
        return digest(json.dumps(facts))[:16]

    def _is_complete(self, clip: str) -> bool:
        """Whether the clip is there and whole; then what is wrong in it is known, too."""
        path = self.paths[clip]
        try:
            self.errors[clip] = json.loads(path.with_suffix(".json").read_text("utf-8"))["errors"]
            records = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return False
        return (records.dtype, len(records)) == (self.record, len(self.clips[clip]))

    def _build(self, clips: list[str]) -> None:
        frames = sum(len(self.clips[clip]) for clip in clips)
        size = frames * self.record.itemsize
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise InputError(
                f"{self.folder}: {frames} frames take {size / 1e9:.2f} GB and {free / 1e9:.2f} GB "
                "are free; free some space, choose another folder, or go without a cache"
            )
        workers = min(cores(), len(clips), frames // FRAMES_A_WORKER)
        if str(getattr(self.files.motion_of, "device", "cpu")) != "cpu":
            workers = 0  # forked processes can't use a GPU
        pool = DataLoader(  # of processes; a clip is a batch, and collating is writing it
            clips,
            batch_size=None,
            collate_fn=self._try_write,
            num_workers=workers,
            generator=torch.Generator(),  # spares the state of PyTorch's own
        )
        title = f"caching {size / 1e9:.2f} GB"
        quiet = os.environ.get("RANK", "0") != "0"  # with torchrun, the first process tells
        progress = tqdm(total=frames, desc=title, unit="frame", disable=quiet)
        with one_opencv_thread(), progress as bar:
            left = []
            for clip, written in zip(clips, pool):
                if isinstance(written, Exception):
                    raise written
                if written:
                    bar.update(len(self.clips[clip]))
                else:
                    left.append(clip)
            for clip in left:
                while not self._write(clip):
                    time.sleep(0.1)
                bar.update(len(self.clips[clip]))

    def _try_write(self, clip: str) -> bool | Exception:
        """As _write, but returns an error: raised in a DataLoader, it would lose its details."""
        try:
            return self._write(clip)
        except (InputError, OSError) as error:
            return error

    def _write(self, clip: str) -> bool:
        """Write a clip unless it is there. False where another process is writing it."""
        path, files = self.paths[clip], self.clips[clip]
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name("lock")) as ours:
            if ours and not self._is_complete(clip):
                for old in path.parent.iterdir():  # stale, or left by a killed process
                    if old.name != "lock":
                        old.unlink()
                errors = {"picture": {}, "flow": {}, "truth": {}}
                with atomic(path) as temporary, open(temporary, "wb") as npy:
                    descr = np.lib.format.dtype_to_descr(self.record)
                    header = {"descr": descr, "fortran_order": False, "shape": (len(files),)}
                    np.lib.format.write_array_header_1_0(npy, header)
                    for record in self._records(files, errors):
                        npy.write(record.tobytes())  # a full disk kills who writes to a map
                spec = self.files.spec
                facts = {"clip": clip, "frames": len(files), "fingerprint": path.stem}
                facts |= {"height": spec.height, "width": spec.width, "flow": self.flow}
                write_json(path.with_suffix(".json"), {**facts, "errors": errors})
        return ours

    def _records(self, files: list[File], errors: dict) -> Iterator[np.ndarray]:
        """A clip's records in order. The errors of its files are added, without their paths."""
        position = 0
        for run in unbroken_runs(files):
            previous = None
            for file in run:
                record, flaws = np.zeros((), self.record), {}
                try:
                    rgb, record["size"] = self.files.picture(file)
                except InputError as error:
                    flaws["picture"] = error
                    rgb = torch.zeros(record["rgb"].shape) if previous is None else previous
                record["rgb"] = eight_bits(rgb)
                if self.flow:
                    motion, flaws["flow"] = self.files.motion(file, previous, rgb)
                    record["motion"] = eight_bits(motion)
                if file.truth:
                    try:
                        record["target"] = self.files.target(file)[0]
                    except InputError as error:
                        flaws["truth"] = error
                for kind, error in flaws.items():
                    if error:
                        text = str(error).removeprefix(str(getattr(file, kind)))
                        errors[kind][str(position)] = text
                yield record
                previous = previous if "picture" in flaws else rgb
                position += 1


def record_type(height: int, width: int, flow: bool) -> np.dtype:
    """Of one frame, with each number where the processor wants it."""
    fields = [("size", "<i4", 2), ("target", "<f2", (height, width))]
    images = ("rgb", "motion") if flow else ("rgb",)
    return np.dtype([*fields, *((name, "u1", (3, height, width)) for name in images)], align=True)


@lru_cache(OPEN_CLIPS)
def open_records(path: Path) -> np.ndarray:
    """A clip's records as a memory map: (frames,). The name tells the content, for good.

    Raises FileNotFoundError where another run, which met other files, has replaced them: an
    InputError would pass for that of a frame.
    """
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def eight_bits(image: Tensor) -> Tensor:
    """The uint8 image that was divided by 255, exactly."""
    return (image * 255).round().to(torch.uint8)


def file_facts(path: Path | None) -> list | None:
    """What changes when a file does: its name, bytes, and time in ns."""
    if path is None or not path.exists():
        return None
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether the lock is ours, for the block. The system takes it from a killed process."""
    with open(path, "a") as file:
        try:
            import fcntl  # Windows has none

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except BlockingIOError:
            ours = False
        except (ImportError, OSError) as error:
            raise InputError(f"{path}: can't be locked; put the cache on a local disk") from error
        yield ours


def cores() -> int:
    """CPU cores for this process; with torchrun, its share."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (available or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Forked processes then work with one, too. They would hang if they changed it themselves."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
