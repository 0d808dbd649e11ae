"""The two layouts of data sets on disk: which files there are, and what belongs together.

That of 360_Saliency_dataset_2018ECCV (Zhang et al., ECCV 2018):

    <root>/<clip>/0001.jpg …       frames, equirectangular, any size
    <root>/<clip>/0001_gt.npy …    saliency maps: float (H, W), (1, H, W) or (H, W, 1)
    <root>/<clip>/0001_flow.png    optical flow as colours; optional, else it is estimated
    <root>/<clip>/fixations.csv    optional, see datasets/gaze_files.py
    <root>/vinfo.pkl               the fixations of ECCV 2018

That of SST-Sal (Bernal-Berdun et al. 2022), with the same names in three folders:

    <root>/frames/0001_1023.png    frame 1023 of clip 0001
    <root>/saliency_maps/…         its map as a grey picture
    <root>/optical_flow/…          optional, else it is estimated
    <root>/fixations/0001.csv      optional

And in both <root>/splits.json: {"train": [clip, …], "val": […], "test": […]}. Without it the
clips must be those of ECCV 2018, whose split is built in.
"""

import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cli import InputError
from datasets.gaze_files import Fixations, read_fixations_csv, read_vinfo
from video.reader import read_picture, resize

HOW_TO_GET_DATA = (
    "get 360_Saliency_dataset_2018ECCV from its authors (Zhang et al., ECCV 2018: "
    "github.com/xuyanyu-shh/Saliency-detection-in-360-video) and put it there as "
    "<root>/<clip>/0001.jpg with 0001_gt.npy beside it, or make synthetic scenes with "
    "'python -m prepare.synthetic --output synthetic_360' and train on them with "
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


class ClipFixations:
    """The fixations of a data set by clip, each read when it is first asked for.

    any: whether the data set has some.
    """

    def __init__(self, root: Path):
        self.root = root
        self.any = (
            (root / "vinfo.pkl").is_file()
            or (root / "fixations").is_dir()
            or any(root.glob("*/fixations.csv"))
        )
        self._known: dict[str, Fixations | None] = {}

    def of(self, clip: str) -> Fixations | None:
        """None where there are none for this clip. Raises InputError for a broken file."""
        if clip not in self._known:
            paths = self.root / clip / "fixations.csv", self.root / "fixations" / f"{clip}.csv"
            if path := next(filter(Path.is_file, paths), None):
                self._known[clip] = read_fixations_csv(path)
            elif (path := self.root / "vinfo.pkl").is_file() and "" not in self._known:
                self._known = read_vinfo(path) | self._known | {"": None}  # read once
        return self._known.get(clip)
