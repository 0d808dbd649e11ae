"""Clips with ground truth for training and evaluation, in the layouts of datasets/layouts.py."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from cli import InputError
from datasets.gaze import fixation_map
from datasets.layouts import (
    HOW_TO_GET_DATA,
    ClipFixations,
    File,
    list_clips,
    read_split,
    read_truth,
    unbroken_runs,
)
from video.motion import MOTIONS
from video.reader import Frame, read_picture, resize, to_tensor


class Sample(NamedTuple):
    """Consecutive frames of a clip's unbroken run."""

    clip: str
    run: list[File]
    start: int
    stop: int

    @property
    def files(self) -> list[File]:
        return self.run[self.start : self.stop]

    @property
    def before(self) -> list[File]:
        """What precedes them in the run."""
        return self.run[: self.start]


class FrameFiles:
    """What the files of a data set hold, at the size and with the motion of a Spec."""

    def __init__(self, spec):
        self.spec = spec

    def picture(self, file: File) -> tuple[Tensor, tuple[int, int]]:
        """RGB in [0, 1], (3, H, W), and (height, width) of the picture on disk.

        Raises InputError where it is unreadable.
        """
        picture = read_picture(file.picture)
        return self._at_size(picture), picture.shape[:2]

    def motion(
        self, file: File, previous: Tensor | None, rgb: Tensor
    ) -> tuple[Tensor, InputError | None]:
        """Motion since the last readable frame of the run, (M, H, W) in [0, 1].

        The picture of the flow beside the frame where the model takes flow, else an estimate,
        which comes with an error where that picture is unreadable.
        """
        flaw = None
        if file.flow and self.motion_of.channels == 3:
            try:
                return self._at_size(read_picture(file.flow)), None
            except InputError as error:
                flaw = error
        return self.motion_of(previous, rgb), flaw

    def target(self, file: File) -> Tensor:
        """The ground truth scaled by its maximum, (1, H, W). InputError where unusable."""
        return read_truth(file.truth, self.spec.height, self.spec.width)

    @cached_property
    def motion_of(self):
        return MOTIONS[self.spec.motion]()

    def _at_size(self, picture: np.ndarray) -> Tensor:
        return to_tensor(resize(picture, self.spec.height, self.spec.width)).contiguous()

    def __getstate__(self) -> dict:
        """Without what estimates flow, which can't be sent to another process."""
        return {name: value for name, value in vars(self).items() if name != "motion_of"}


class SaliencyVideos(Dataset):
    """Runs of `spec.clip_length` consecutive frames with motion and ground truth.

    An item is a dict of
        frames     (T, 3, H, W) RGB in [0, 1]
        motion     (T, M, H, W) in [0, 1]; between consecutive frames, zero at a start
        target     (T, 1, H, W) in [0, 1], each map scaled by its own maximum
        valid      (T,) bool: the frame was readable and its ground truth usable
        numbers    (T,) frame numbers
        name       of the clip
        irregular  what was wrong in it: list of (kind, file)
        fixations  (T, 1, H, W) counts, where the data set has fixations

    What file names tell is in the data set's own `irregular` at once: missing clips, frames
    without ground truth, gaps in the numbering (no run spans one). Unreadable frames (the
    last readable one of the run stands in), unusable maps and frames of another size than
    the one before are met when they are read; the first two are never valid. Frames at the
    end that make no whole run are left out and counted.

    cache: folder for the frames at the model's size, see cache.py; without one, each item
    decodes its files.

    Raises InputError where the root or the split is missing, or no ground truth is left.
    """

    def __init__(self, root: str | Path, split: str, spec, skip_frames: int = 0):
        self.root, self.split, self.spec = Path(root), split, spec
        self.skip_frames = skip_frames
        self.fixations = ClipFixations(self.root)
        self.irregular: list[tuple[str, str]] = []
        self.samples: list[Sample] = []
        if not self.root.is_dir():
            raise InputError(f"{self.root}: no such data set; {HOW_TO_GET_DATA}")
        names = read_split(self.root, split)
        self.clips = list_clips(self.root, names)
        for name in names:
            if name in self.clips:
                self._add_clip(self.clips[name], name)
            else:
                self.irregular.append(("clip missing", name))
        if not self.samples:
            raise InputError(
                f"{self.root}: split '{split}' holds no {spec.clip_length} frames in a row with "
                f"ground truth ({self.summary()}); expected <clip>/0001.jpg and 0001_gt.npy"
            )
        self.source = FrameFiles(spec)

    def _add_clip(self, files: list[File], name: str) -> None:
        length = self.spec.clip_length
        if not files:
            self.irregular.append(("clip without frames", name))
            return
        for file in files:
            if file.truth is None:
                self.irregular.append(("no ground truth", f"{name}/{file.picture.name}"))
        runs = unbroken_runs(files)
        for before, after in zip(runs, runs[1:]):
            gap = f"{name}/{before[-1].picture.name} to {after[0].picture.name}"
            self.irregular.append(("gap in the numbering", gap))
        to_skip = self.skip_frames
        for run in runs:
            first = min(to_skip, len(run))
            to_skip -= first
            starts = range(first, len(run) - length + 1, length)
            for start in starts:
                sample = Sample(name, run, start, start + length)
                if any(file.truth for file in sample.files):
                    self.samples.append(sample)
            for file in run[first + length * len(starts) :]:
                self.irregular.append(("no whole clip", f"{name}/{file.picture.name}"))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        sample = self.samples[index]
        name, files = sample.clip, sample.files
        height, width = self.spec.height, self.spec.width
        irregular: list[tuple[str, str]] = []
        item = {"frames": [], "motion": [], "target": [], "valid": []}
        for file, (frame, usable) in zip(files, self.read_run(sample.before, files, irregular)):
            target = torch.zeros(1, height, width)
            if file.truth:
                try:
                    target = self.source.target(file)
                except InputError as error:
                    irregular.append(("unusable ground truth", str(error)))
                    usable = False
            item["frames"].append(frame.rgb)
            item["motion"].append(frame.motion)
            item["target"].append(target)
            item["valid"].append(torch.tensor(usable and file.truth is not None))
        if self.fixations.any:
            item["fixations"] = [self.fixation_counts(name, f.number, height, width) for f in files]
        return {
            **{name: torch.stack(tensors) for name, tensors in item.items()},
            "numbers": torch.tensor([file.number for file in files]),
            "name": name,
            "irregular": irregular,
        }

    def fixation_counts(self, name: str, number: int, height: int, width: int) -> Tensor:
        """Fixations in each pixel of a frame: (1, H, W) counts, all zero where none is known."""
        fixations = self.fixations.of(name)
        places = fixations.at(number) if fixations else ((), ())
        return fixation_map(*places, height, width)[None]

    def read_run(
        self, before: list[File] | None, files: list[File], irregular: list[tuple[str, str]]
    ) -> Iterator[tuple[Frame, bool]]:
        """Frames of an unbroken run as the model takes them, and whether each was readable.

        before: the frames that precede in it, for the motion of the first one.
        irregular: what is found wrong is added to it.
        """
        previous, size = None, None
        if before and MOTIONS[self.spec.motion].channels:
            previous, size = self._last_readable(before)
        for index, file in enumerate(files):
            try:
                rgb, new_size = self.source.picture(file)
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
            motion, flaw = self.source.motion(file, previous, rgb)
            if flaw:
                irregular.append(("unreadable flow", str(flaw)))
            yield Frame(file.number, index / float(self.spec.fps), rgb, motion), readable
            if readable:
                previous, size = rgb, new_size

    def _last_readable(self, files: list[File] | None) -> tuple[Tensor | None, tuple | None]:
        """The frame and its size on disk; None twice where there is none."""
        for file in reversed(files or []):
            with suppress(InputError):  # told where it is in a sample
                return self.source.picture(file)
        return None, None

    def targets(self, index: int) -> list[Tensor]:
        """The usable ground-truth maps of an item, (1, H, W) each, without its frames."""
        maps = []
        for file in self.samples[index].files:
            if file.truth:
                with suppress(InputError):
                    maps.append(self.source.target(file))
        return maps

    def summary(self) -> str:
        """What the file names told, counted: '3 × no ground truth (217/0004.jpg, …)'."""
        return summarise(self.irregular)


def summarise(irregular: list[tuple[str, str]]) -> str:
    """Counts by kind, with the first file of each."""
    first = dict(reversed(irregular))
    counts = Counter(kind for kind, _ in irregular)
    return "; ".join(f"{n} × {kind} (first: {first[kind]})" for kind, n in counts.items())


def collate(items: list[dict]) -> dict:
    """Default batches, with names and irregularities as plain lists."""
    lists = {key: [item.pop(key) for item in items] for key in ("name", "irregular")}
    return {
        **default_collate(items),
        "name": lists["name"],
        "irregular": sum(lists["irregular"], []),
    }
