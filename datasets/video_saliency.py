"""Clips with ground truth for training and evaluation, in two layouts.

That of 360_Saliency_dataset_2018ECCV (Zhang et al., ECCV 2018):

    <root>/<clip>/0001.jpg …       frames, equirectangular, any size
    <root>/<clip>/0001_gt.npy …    saliency maps: float (H, W), (1, H, W) or (H, W, 1)
    <root>/<clip>/0001_flow.png    optical flow as colours; optional, else it is estimated

That of SST-Sal (Bernal-Berdun et al. 2022), with the same names in three folders:

    <root>/frames/0001_1023.png    frame 1023 of clip 0001
    <root>/saliency_maps/…         its map as a grey picture
    <root>/optical_flow/…          optional, else it is estimated

And in both <root>/splits.json: {"train": [clip, …], "val": […], "test": […]}. Without it the
clips must be those of ECCV 2018, whose split is built in.
"""

import json
import random
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from datasets.motion import MOTIONS
from datasets.video import read_picture, resize, to_tensor
from files import InputError

HOW_TO_GET_DATA = (
    "get 360_Saliency_dataset_2018ECCV from its authors (Zhang et al., ECCV 2018: "
    "github.com/xuyanyu-shh/Saliency-detection-in-360-video) and put it there as "
    "<root>/<clip>/0001.jpg with 0001_gt.npy beside it, or make synthetic scenes with "
    "'python -m datasets.synthetic --output synthetic_360' and train on them with "
    "--data_root synthetic_360"
)


def eccv2018_split() -> dict[str, list[str]]:
    """The split that the published re-implementations use: 80 of the 104 clips train.

    Eight of the 80, the first ones drawn, are kept for validation, so that the best
    checkpoint is not chosen on the test clips.
    """
    names = [str(n) for n in range(217, 321)]
    drawn = random.Random(367643).sample(names, 80)
    test = sorted(set(names) - set(drawn))
    return {"train": sorted(drawn[8:]), "val": sorted(drawn[:8]), "test": test}


def read_split(root: Path, split: str) -> list[str]:
    """Names of the clips of a split. Raises InputError where it can't be told."""
    path = root / "splits.json"
    if path.exists():
        try:
            splits = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: not valid JSON ({error}); mend or delete it") from error
    else:
        splits = eccv2018_split()
        if not any((root / name).is_dir() for names in splits.values() for name in names):
            raise InputError(
                f"{root}: no splits.json and no clip of ECCV 2018 (217 … 320) in it; write "
                'splits.json as {"train": [clip folders], "val": [...], "test": [...]}'
            )
    if not splits.get(split):
        raise InputError(f"{path}: has no clips for split '{split}', only for {list(splits)}")
    return list(splits[split])


PICTURE = r"\.(?:jpg|jpeg|png|bmp|webp|tif|tiff)"


@dataclass(frozen=True)
class File:
    """One frame of a clip on disk, with the picture of its flow where there is one."""

    number: int
    picture: Path
    truth: Path | None
    flow: Path | None


def list_clips(root: Path, names: list[str]) -> dict[str, list[File]]:
    """The frames of those clips that are there, in the order of their numbers."""
    clips: dict[str, list[File]] = {}
    if (root / "frames").is_dir():
        frame_name = re.compile(rf"(.+)_(\d+){PICTURE}", re.IGNORECASE)
        truths, flows = (
            {path.name for path in (root / folder).glob("*")}
            for folder in ("saliency_maps", "optical_flow")
        )
        for path in (root / "frames").iterdir():
            match = frame_name.fullmatch(path.name)
            if match and match[1] in names:
                truth = root / "saliency_maps" / path.name if path.name in truths else None
                flow = root / "optical_flow" / path.name if path.name in flows else None
                clips.setdefault(match[1], []).append(File(int(match[2]), path, truth, flow))
    else:
        frame_name = re.compile(rf"(\d+){PICTURE}", re.IGNORECASE)
        for folder in (root / name for name in names if (root / name).is_dir()):
            files = clips.setdefault(folder.name, [])
            there = {path.name for path in folder.iterdir()}
            for match in filter(None, map(frame_name.fullmatch, there)):
                truth, flow = (
                    folder / name if name in there else None
                    for name in (f"{match[1]}_gt.npy", f"{match[1]}_flow.png")
                )
                files.append(File(int(match[1]), folder / match[0], truth, flow))
    return {name: sorted(files, key=lambda file: file.number) for name, files in clips.items()}


def unbroken_runs(files: list[File]) -> list[list[File]]:
    """Frames split where the numbering jumps by more than its most frequent step."""
    steps = [b.number - a.number for a, b in zip(files, files[1:])]
    step = Counter(steps).most_common(1)[0][0] if steps else 1
    runs = [files[:1]]
    for file, jump in zip(files[1:], steps, strict=True):
        if jump > step:
            runs.append([])
        runs[-1].append(file)
    return runs


def read_truth(path: Path, height: int, width: int) -> Tensor:
    """A ground-truth map resized and scaled by its own maximum: (1, H, W) float32.

    path: an array (.npy) or a grey picture.
    Raises InputError for a file that can't be read or whose map is empty or not a map.
    """
    try:
        if path.suffix == ".npy":
            truth = np.load(path, allow_pickle=False)
        else:
            truth = read_picture(path)[..., 0]
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: the map can't be read; delete it or make it again") from error
    shape, truth = truth.shape, np.squeeze(truth)
    if truth.ndim != 2 or truth.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected a map (H, W), got {shape} of {truth.dtype}")
    truth = truth.astype(np.float32)
    if not np.isfinite(truth).all() or truth.min() < 0 or truth.max() <= 0:
        raise InputError(f"{path}: the map is all zero, negative or not finite; delete it")
    truth = torch.from_numpy(resize(truth / truth.max(), height, width))[None]
    return truth / truth.max()


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

    What file names tell is in the data set's own `irregular` at once: missing clips, frames
    without ground truth, gaps in the numbering (no run spans one). Unreadable frames (the
    frame before stands in), unusable maps and frames of another size than the one before
    are met when they are read; the first two are never valid. Frames at the end that make
    no whole run are left out and counted.

    Raises InputError where the root or the split is missing, or no ground truth is left.
    """

    def __init__(self, root: str | Path, split: str, spec):
        self.root, self.split, self.spec = Path(root), split, spec
        self.irregular: list[tuple[str, str]] = []
        self.samples: list[tuple[str, File | None, list[File]]] = []  # clip, frame before, run
        if not self.root.is_dir():
            raise InputError(f"{self.root}: no such data set; {HOW_TO_GET_DATA}")
        names = read_split(self.root, split)
        clips = list_clips(self.root, names)
        for name in names:
            if name in clips:
                self._add_clip(clips[name], name)
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
        previous, size = None, None
        if before and self.motion_of.channels:
            previous, size = self._read_frame(before, None, None, irregular)
            irregular.clear()  # told where that frame is itself part of a run
        item = {"frames": [], "motion": [], "target": [], "valid": []}
        for file in files:
            rgb, new_size = self._read_frame(file, previous, size, irregular)
            target, usable = torch.zeros(1, height, width), new_size is not None
            if file.truth:
                try:
                    target = read_truth(file.truth, height, width)
                except InputError as error:
                    irregular.append(("unusable ground truth", str(error)))
                    usable = False
            item["frames"].append(rgb)
            item["motion"].append(self._read_motion(file, previous, rgb, irregular))
            item["target"].append(target)
            item["valid"].append(torch.tensor(usable and file.truth is not None))
            previous, size = rgb, new_size or size
        return {
            **{name: torch.stack(tensors) for name, tensors in item.items()},
            "numbers": torch.tensor([file.number for file in files]),
            "name": name,
            "irregular": irregular,
        }

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
