"""Clips with ground truth for training and evaluation, in the layouts of datasets/layouts.py."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from common.errors import InputError
from datasets.gaze import fixation_map
from datasets.layouts import ClipFixations, File, list_clips, read_truth, unbroken_runs
from datasets.splits import read_splits
from video.motion import MOTIONS
from video.pictures import read_picture, resize, to_tensor
from video.reader import Frame


class Sample(NamedTuple):
    """Consecutive frames of an unbroken run of a clip, from position `start` in the run."""

    clip: str
    run: list[File]
    start: int
    files: list[File]


class SaliencyVideos(Dataset):
    """Runs of `spec.clip_length` consecutive frames with motion and ground truth.

    root: data set in one of the layouts of datasets/layouts.py; split: "train", "val" or "test".
    spec: models.base.Spec, or anything with its height, width, clip_length, fps and motion.
    skip_frames: frames at the start of each clip that are not in any sample.

    An item is a dict of
        frames     (T, 3, H, W) RGB in [0, 1]
        motion     (T, M, H, W) in [0, 1], since the frame before; none at the start of a run
        target     (T, 1, H, W) in [0, 1], each map scaled by its own maximum
        valid      (T,) bool: the frame was readable and its ground truth usable
        numbers    (T,) frame numbers
        name       name of the clip
        irregular  problems found while reading: list of (kind, file)
        fixations  (T, 1, H, W) counts, only where the data set has fixations

    Problems that follow from file names are in the data set's own `irregular` from the start:
    missing clips, frames without ground truth, gaps in the numbering (no sample spans one), and
    frames at the end of a run that do not fill a sample. Problems inside files are found when an
    item is read: an unreadable frame is replaced by the last readable one of its run, a frame of
    another size than the one before is resized, an unreadable flow picture is estimated, an
    unusable map is all zero. Unreadable frames and unusable maps are never valid.

    Raises InputError where the root or the split does not exist, or no ground truth is left.
    """

    def __init__(self, root: str | Path, split: str, spec, skip_frames: int = 0):
        self.root, self.split, self.spec = Path(root), split, spec
        self.irregular: list[tuple[str, str]] = []
        self.samples: list[Sample] = []
        splits = read_splits(self.root)
        if not splits.get(split):
            path = self.root / "splits.json"
            filled = ", ".join(name for name, clips in splits.items() if clips) or "none"
            raise InputError(f"{path}: split '{split}' has no clips; choose one that has: {filled}")
        self.fixations = ClipFixations(self.root)
        listed = splits[split]
        names = list(dict.fromkeys(listed))
        self.irregular += [("clip listed twice", c) for c, n in Counter(listed).items() if n > 1]
        for other, clips in splits.items():
            shared = sorted({*names} & {*clips}) if other != split else ()
            self.irregular += [(f"clip of '{split}' that is in '{other}' too", c) for c in shared]
        self.clips = list_clips(self.root, names)
        for name in names:
            if name in self.clips:
                self._add_clip(name, self.clips[name], skip_frames)
            else:
                self.irregular.append(("clip missing", name))
        if not self.samples:
            runs = [run for files in self.clips.values() for run in unbroken_runs(files)]
            longest = max((len(run) for run in runs if any(file.truth for file in run)), default=0)
            cause = f"({self.summary()}); expected <clip>/0001.jpg and 0001_gt.npy"
            if skip_frames and longest >= spec.clip_length:
                cause = (
                    f"once the first {skip_frames} frames of each clip are skipped (skip_frames "
                    f"{skip_frames}), the longest run has {longest}; give a smaller skip_frames"
                )
            raise InputError(
                f"{self.root}: split '{split}' has no {spec.clip_length} frames in a row with "
                f"ground truth {cause}"
            )

    def _add_clip(self, name: str, files: list[File], to_skip: int) -> None:
        if not files:
            self.irregular.append(("clip without frames", name))
            return
        found = [("no ground truth", file.picture.name) for file in files if file.truth is None]
        runs = unbroken_runs(files)
        for before, after in zip(runs, runs[1:]):
            gap = f"{before[-1].picture.name} to {after[0].picture.name}"
            found.append(("gap in the numbering", gap))
        length = self.spec.clip_length
        for run in runs:
            first = min(to_skip, len(run))
            to_skip -= first
            starts = range(first, len(run) - length + 1, length)
            for start in starts:
                sample = Sample(name, run, start, run[start : start + length])
                if any(file.truth for file in sample.files):
                    self.samples.append(sample)
            left = run[first + length * len(starts) :]
            found += [("too few frames for a sample", file.picture.name) for file in left]
        self.irregular += [(kind, f"{name}/{what}") for kind, what in found]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        sample = self.samples[index]
        size = self.spec.height, self.spec.width
        irregular: list[tuple[str, str]] = []
        frames = self.read_run(sample.files, irregular, sample.run[: sample.start])
        item = {"frames": [], "motion": [], "target": [], "valid": []}
        for file, (frame, usable) in zip(sample.files, frames, strict=True):
            target = None
            if file.truth:
                try:
                    target = read_truth(file.truth, *size)
                except InputError as error:
                    irregular.append(("unusable ground truth", str(error)))
            item["frames"].append(frame.rgb)
            item["motion"].append(frame.motion)
            item["target"].append(torch.zeros(1, *size) if target is None else target)
            item["valid"].append(torch.tensor(usable and target is not None))
        if self.fixations.any:
            known = self.fixations.of(sample.clip)
            places = (known.at(file.number) if known else ((), ()) for file in sample.files)
            item["fixations"] = [fixation_map(*place, *size)[None] for place in places]
        return {
            **{name: torch.stack(tensors) for name, tensors in item.items()},
            "numbers": torch.tensor([file.number for file in sample.files]),
            "name": sample.clip,
            "irregular": irregular,
        }

    def read_run(
        self, files: list[File], irregular: list[tuple[str, str]], before: Sequence[File] = ()
    ) -> Iterator[tuple[Frame, bool]]:
        """Yield the frames of an unbroken run as a model takes them, and whether each was readable.

        irregular: problems found are added to this list.
        before: frames that precede `files` in the run, for the motion of the first one.
        """
        previous, size = None, None
        if MOTIONS[self.spec.motion].channels:
            previous, size = self._last_readable(before)
        for index, file in enumerate(files):
            try:
                rgb, new_size = self._read_picture(file.picture)
                readable = True
            except InputError as error:
                irregular.append(("unreadable frame", str(error)))
                if previous is None:
                    previous, size = self._last_readable(before)
                black = torch.zeros(3, self.spec.height, self.spec.width)
                rgb, new_size = black if previous is None else previous, size
                readable = False
            if size and new_size != size:
                sizes = f"{new_size[1]}×{new_size[0]} after {size[1]}×{size[0]}"
                irregular.append(("frame of another size", f"{file.picture}: {sizes}"))
            motion = self._motion(file, previous, rgb, irregular)
            yield Frame(file.number, index / float(self.spec.fps), rgb, motion), readable
            if readable:
                previous, size = rgb, new_size

    def _last_readable(self, files: Sequence[File]) -> tuple[Tensor | None, tuple | None]:
        """Return the last readable frame with its size on disk, or None twice."""
        for file in reversed(files):
            with suppress(InputError):  # noted where the frame is part of a sample
                return self._read_picture(file.picture)
        return None, None

    def _read_picture(self, path: Path) -> tuple[Tensor, tuple[int, int]]:
        """Return RGB in [0, 1], (3, H, W), and (height, width) of the picture on disk."""
        picture = read_picture(path)
        resized = resize(picture, self.spec.height, self.spec.width)
        return to_tensor(resized).contiguous(), picture.shape[:2]

    def _motion(self, file: File, previous: Tensor | None, rgb: Tensor, irregular: list) -> Tensor:
        """Return the motion since `previous`, (M, H, W): the flow picture, else an estimate."""
        if file.flow and MOTIONS[self.spec.motion].channels == 3:
            try:
                return self._read_picture(file.flow)[0]
            except InputError as error:
                irregular.append(("unreadable flow", str(error)))
        return motion_estimator(self.spec.motion)(previous, rgb)

    def targets(self, index: int) -> list[Tensor]:
        """Return the usable ground-truth maps of an item, (1, H, W) each, without its frames."""
        maps = []
        for file in self.samples[index].files:
            if file.truth:
                with suppress(InputError):
                    maps.append(read_truth(file.truth, self.spec.height, self.spec.width))
        return maps

    def summary(self) -> str:
        """Count the problems known from file names: '3 × no ground truth (first: 217/0004.jpg)'."""
        return summarise(self.irregular)


def motion_estimator(name: str):
    """Return the estimator of a motion, made once in each thread of each process.

    OpenCV's optical flow can be neither shared between threads nor sent to another process.
    """
    return _motion_estimator(name, threading.get_ident())


@cache
def _motion_estimator(name: str, thread: int):
    return MOTIONS[name]()


def summarise(irregular: list[tuple[str, str]]) -> str:
    """Count problems by kind, and name the first file of each kind."""
    first = dict(reversed(irregular))
    counts = Counter(kind for kind, _ in irregular)
    return "; ".join(f"{n} × {kind} (first: {first[kind]})" for kind, n in counts.items())


def collate(items: list[dict]) -> dict:
    """Stack items to a batch; `name` becomes a list, `irregular` one list for the batch."""
    irregular = sum((item.pop("irregular") for item in items), [])
    return {**default_collate(items), "irregular": irregular}
