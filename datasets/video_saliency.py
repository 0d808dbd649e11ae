"""Clips with ground truth for training and evaluation, in the layouts of datasets/layouts.py."""

from collections import Counter
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import Dataset, default_collate

from common.components import MOTIONS
from common.errors import InputError
from datasets.gaze import fixation_map
from datasets.layouts import ClipFixations, File, find_layout, list_clips, read_truth, unbroken_runs
from datasets.rates import ClipRates
from datasets.splits import PUBLISHED, published_split, read_splits
from video.decoding import Damage, decode_pictures
from video.pictures import unit
from video.reader import Frame, read_pictures, sampling_step
from video.spec import HIGHEST_FPS, Spec


class Sample(NamedTuple):
    """Consecutive sampled frames of an unbroken run, from its position `start` on."""

    clip: str
    run: list[File]
    start: int
    files: list[File]


class SaliencyVideos(Dataset):
    """Runs of `spec.clip_length` consecutive sampled frames with motion and ground truth.

    root: data set in one of the layouts of datasets/layouts.py.
    split: "train", "val" or "test"; or one of datasets.splits.PUBLISHED, for its test clips.
    skip_frames: number of sampled frames to leave out at the start of each clip.
    fps: frame rate of the data set, instead of the rate that datasets/rates.py reads. If a rate is
        known, frames are sampled as by `read_frames`.
    spec: None to list every frame, for scoring.
    fixations: whether to read fixations.
    eight_bits: whether frames, and motion if it has 8-bit values, are uint8 in [0, 255], in a
        quarter of the memory; `unit` converts them to the same floats.

    An item is a dict of
        frames     (T, 3, H, W) RGB in [0, 1]
        motion     (T, M, H, W) in [0, 1], since the previous frame; none at the start of a run
        target     (T, 1, H, W) in [0, 1], each map scaled by its own maximum
        valid      (T,) bool: the frame was readable and its ground truth usable
        numbers    (T,) frame numbers
        name       name of the clip
        irregular  problems found while reading: list of (kind, file)
        fixations  (T, 1, H, W) counts, only if the data set has fixations

    The data set's own `irregular` lists problems with file names: missing clips, frames without
    ground truth, gaps in the numbering, frames at the end of a run that do not fill a sample.
    An unreadable frame is replaced as by `read_frames`, an unreadable flow picture by an estimate,
    and an unusable map is all zero.

    Raises InputError if the root or the split does not exist, if there is no ground truth, or if
    the data set is packed for another size or rate.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        spec: Spec | None,
        skip_frames: int = 0,
        fps: Fraction | None = None,
        eight_bits: bool = False,
        fixations: bool = True,
    ):
        self.root, self.split, self.eight_bits = Path(root), split, eight_bits
        self.spec = spec or Spec(fps=HIGHEST_FPS)
        self.samples: list[Sample] = []
        splits = read_splits(self.root)
        if split in PUBLISHED:
            splits = {split: published_split(split, sum(splits.values(), []))["test"]}
        if not splits.get(split):
            path = self.root / "splits.json"
            filled = ", ".join(name for name, clips in splits.items() if clips) or "none"
            raise InputError(f"{path}: split '{split}' has no clips; choose one of: {filled}")
        names, listed = list(dict.fromkeys(splits[split])), Counter(sum(splits.values(), []))
        self.fixations, self.rates = ClipFixations(self.root), ClipRates(self.root, fps)
        self.clips = list_clips(self.root, names)
        if spec:
            self.check_packed(spec)
        self.irregular = [("clip listed more than once", n) for n in names if listed[n] > 1]
        self.irregular += [("clip without frames", n) for n in names if not self.clips.get(n)]
        self.with_fixations = fixations and self.fixations.any
        for name, files in self.clips.items():
            self._add_clip(name, files, skip_frames)
            if self.with_fixations and (given := self.fixations.of(name)):
                self.irregular += [("unusable fixation", problem) for problem in given.problems]
                if absent := set(given.frames.tolist()) - {file.number for file in files}:
                    number = f"{name}: {min(absent)} and {len(absent) - 1} more"
                    self.irregular.append(("fixations without a frame", number))
        if not self.samples:
            what = f"{self.spec.clip_length} frames in a row with ground truth after {skip_frames}"
            problems = f"skip_frames ({summarise(self.irregular)})"
            expected = "expected <clip>/0001.jpg and 0001_gt.npy"
            raise InputError(f"{self.root}: split '{split}' has no {what} {problems}; {expected}")

    def check_packed(self, spec: Spec) -> None:
        """Raise InputError if the data set is packed for another size or rate than a model's."""
        if not (made := find_layout(self.root).packed_format(self.root)):
            return
        stated, clips = ClipRates(self.root), list(self.clips)
        steps = [sampling_step(stated.of(clip), made["fps"]) for clip in clips]
        same_rate = steps == [sampling_step(self.rates.of(clip), spec.fps) for clip in clips]
        if (made["height"], made["width"]) != (spec.height, spec.width) or not same_rate:
            packed = f"{made['height']}×{made['width']} pixels, {made['fps']:g} frames a second"
            wanted = f"{spec.height}×{spec.width}, {spec.fps:g}"
            advice = "pack the original for this model, or use the original"
            raise InputError(f"{self.root}: packed for {packed}, not {wanted}; {advice}")

    def _add_clip(self, name: str, files: list[File], to_skip: int) -> None:
        """Add the samples of a clip, and the problems with its files."""
        runs = unbroken_runs(files)
        problems = [("no ground truth", file.picture.name) for file in files if not file.truth]
        for run, rest in pairwise(runs):
            gap = f"{rest[0].picture.name} comes after {run[-1].picture.name}"
            problems.append(("gap in the numbering", gap))
        length, step = self.spec.clip_length, sampling_step(self.rates.of(name), self.spec.fps)
        for run in (run[::step] for run in runs):
            for start in range(to_skip, len(run), length):
                sample = Sample(name, run, start, run[start : start + length])
                if len(sample.files) < length:
                    unfilled = [file.picture.name for file in sample.files]
                    problems += [("too few frames for a sample", picture) for picture in unfilled]
                elif any(file.truth for file in sample.files):
                    self.samples.append(sample)
            to_skip = max(0, to_skip - len(run))
        self.irregular += [(kind, f"{name}/{what}") for kind, what in problems]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        sample = self.samples[index]
        frames, damage = self.frames(sample)
        irregular = damage.problems()
        item = {
            "frames": torch.stack([f.bits if self.eight_bits else f.rgb for f in frames]),
            "motion": torch.stack([frame.motion for frame in frames]),
            **self.truths(sample, irregular),
            "numbers": torch.tensor([file.number for file in sample.files]),
            "name": sample.clip,
            "irregular": irregular,
        }
        for number in damage.unreadable:
            item["valid"][number - 1] = False
        if self.eight_bits and MOTIONS[self.spec.motion].eight_bits:
            item["motion"] = item["motion"].mul_(255).round_().byte()
        return item

    def frames(self, sample: Sample) -> tuple[list[Frame], Damage]:
        """Return the frames of a sample as `read_frames` does, and their problems."""
        pictures = [file.picture for file in sample.run]
        start, end = sample.start, sample.start + len(sample.files)
        reader = read_pictures(pictures[start:end], self.spec, before=pictures[:start])
        with suppress(InputError):  # no frame so far is readable
            return [frame for frame in reader for _ in frame.times], reader.damage
        stand_in = reader.first_readable(decode_pictures(pictures[end:], Fraction(1)))
        if stand_in is None:
            stand_in = torch.zeros(3, self.spec.height, self.spec.width, dtype=torch.uint8)
        rgb = unit(stand_in)
        frame = Frame(1, 0.0, rgb, reader.motion(None, rgb), bits=stand_in)
        return [frame] * len(sample.files), reader.damage

    def truths(self, sample: Sample, irregular: list[tuple[str, str]]) -> dict:
        """Return target, valid (regardless of readable frames) and fixations of an item."""
        size = self.spec.height, self.spec.width
        absent, valid = torch.zeros(1, 1, 1).expand(1, *size), [False] * len(sample.files)
        targets = [absent] * len(sample.files)
        for n, file in enumerate(sample.files):
            if file.truth:
                try:
                    targets[n], valid[n] = read_truth(file.truth, *size), True
                except InputError as error:
                    irregular.append(("unusable ground truth", str(error)))
        item = {"target": torch.stack(targets), "valid": torch.tensor(valid)}
        if self.with_fixations:
            fixations = self.fixations.of(sample.clip)
            places = (fixations.at(f.number) if fixations else ((), ()) for f in sample.files)
            item["fixations"] = torch.stack([fixation_map(x, y, *size)[None] for x, y in places])
        return item


def summarise(irregular: list[tuple[str, str]]) -> str:
    """Return the number of problems by kind: '3 × unreadable frame (first: 217/0004.jpg: …)'."""
    first = dict(reversed(irregular))
    counts = Counter(kind for kind, _ in irregular)
    return "; ".join(f"{n} × {kind} (first: {first[kind]})" for kind, n in counts.items())


def collate(items: list[dict]) -> dict:
    """Stack items into a batch; `name` becomes a list, `irregular` one list for the batch."""
    irregular: list = sum((item.pop("irregular") for item in items), [])
    return {**default_collate(items), "irregular": irregular}
