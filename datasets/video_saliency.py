"""Clips with ground truth for training and evaluation, in the layouts of datasets/layouts.py."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

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
from datasets.motion import MOTIONS
from datasets.video import Frame, read_picture, resize, to_tensor
from files import InputError


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
    frame before stands in), unusable maps and frames of another size than the one before
    are met when they are read; the first two are never valid. Frames at the end that make
    no whole run are left out and counted.

    Raises InputError where the root or the split is missing, or no ground truth is left.
    """

    def __init__(self, root: str | Path, split: str, spec):
        self.root, self.split, self.spec = Path(root), split, spec
        self.fixations = ClipFixations(self.root)
        self.irregular: list[tuple[str, str]] = []
        self.samples: list[tuple[str, File | None, list[File]]] = []  # clip, frame before, run
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
        to_skip = self.spec.skip_frames
        for run in runs:
            first = min(to_skip, len(run))
            to_skip -= first
            starts = range(first, len(run) - length + 1, length)
            for start in starts:
                sample = run[start : start + length]
                if any(file.truth for file in sample):
                    self.samples.append((name, run[start - 1] if start else None, sample))
            for file in run[first + length * len(starts) :]:
                self.irregular.append(("no whole clip", f"{name}/{file.picture.name}"))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        name, before, files = self.samples[index]
        height, width = self.spec.height, self.spec.width
        irregular: list[tuple[str, str]] = []
        item = {"frames": [], "motion": [], "target": [], "valid": []}
        for file, (frame, usable) in zip(files, self.read_run(before, files, irregular)):
            target = torch.zeros(1, height, width)
            if file.truth:
                try:
                    target = read_truth(file.truth, height, width)
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
        self, before: File | None, files: list[File], irregular: list[tuple[str, str]]
    ) -> Iterator[tuple[Frame, bool]]:
        """Frames of an unbroken run as the model takes them, and whether each was readable.

        before: the frame that precedes the run, for the motion of its first one.
        irregular: what is found wrong is added to it.
        """
        previous, size = None, None
        if before and self.motion_of.channels:
            previous, size = self._read_frame(before, None, None, [])  # told where it is in a run
        for index, file in enumerate(files):
            rgb, new_size = self._read_frame(file, previous, size, irregular)
            motion = self._read_motion(file, previous, rgb, irregular)
            seconds = index / float(self.spec.fps)
            yield Frame(file.number, seconds, rgb, motion), new_size is not None
            previous, size = rgb, new_size or size

    @cached_property
    def motion_of(self):
        return MOTIONS[self.spec.motion]()

    def _read_motion(self, file: File, previous, rgb: Tensor, irregular) -> Tensor:
        """The picture of the flow beside the frame where the model takes flow, else estimated."""
        if file.flow and self.motion_of.channels == 3:
            try:
                flow = read_picture(file.flow)
                return to_tensor(resize(flow, self.spec.height, self.spec.width))
            except InputError as error:
                irregular.append(("unreadable flow", str(error)))
        return self.motion_of(previous, rgb)

    def targets(self, index: int) -> list[Tensor]:
        """The usable ground-truth maps of an item, (1, H, W) each, without its frames."""
        maps = []
        for file in self.samples[index][-1]:
            if file.truth:
                with suppress(InputError):
                    maps.append(read_truth(file.truth, self.spec.height, self.spec.width))
        return maps

    def _read_frame(self, file: File, previous, size, irregular) -> tuple[Tensor, tuple | None]:
        """The frame and its size on disk; the frame before and None where it is unreadable."""
        height, width = self.spec.height, self.spec.width
        try:
            picture = read_picture(file.picture)
        except InputError as error:
            irregular.append(("unreadable frame", str(error)))
            return (torch.zeros(3, height, width) if previous is None else previous), None
        if size and picture.shape[:2] != size:
            sizes = f"{picture.shape[1]}×{picture.shape[0]} after {size[1]}×{size[0]}"
            irregular.append(("frame of another size", f"{file.picture}: {sizes}"))
        return to_tensor(resize(picture, height, width)), picture.shape[:2]

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
