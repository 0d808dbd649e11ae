"""The two layouts of data sets on disk: which files belong to a clip and how its maps are read.

docs/data.md draws them. That of 360_Saliency_dataset_2018ECCV (Zhang et al., ECCV 2018) has a
folder for each clip, with 0001.jpg, 0001_gt.npy, a saliency map, and 0001_flow.png, optical flow.
That of SST-Sal (DataLoader360Video.py of edurnebernal/SST-Sal) has a folder for each kind of file:
frames/0001/0001_1023.png, saliency_maps/0001/1023.png or 0001_1023.png, and optical_flow like
frames; the folders of clips may be missing. Pictures of the flow are optional, and so are
fixations (datasets/gaze_files.py); both layouts have splits.json (datasets/splits.py).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError
from common.files import read_array
from datasets.gaze_files import Fixations, read_fixations_csv, read_vinfo
from video.pictures import FLOW, OPTICAL_FLOW, PICTURES, read_exr, read_picture, resize


@dataclass(frozen=True)
class File:
    """The files of one frame of a clip."""

    number: int
    picture: Path
    truth: Path | None  # saliency map
    flow: Path | None  # picture of the optical flow since the frame before


def list_clips(root: Path, names: list[str] | None = None) -> dict[str, list[File]]:
    """Return the frames of those of the named clips that exist, sorted by frame number.

    names: None for all clips on disk, whatever their split, but for hidden ones.
    """
    clips: dict[str, list[File]] = {}
    if (root / "frames").is_dir():
        truths, flows = dict(_named(root / "saliency_maps")), dict(_named(root / OPTICAL_FLOW))
        for name, path in _named(root / "frames"):
            if path.suffix.lower() in PICTURES:
                file = File(name[1], path, truths.get(name), flows.get(name))
                clips.setdefault(name[0], []).append(file)
    else:
        folders = root.glob("[!.]*") if names is None else (root / name for name in names)
        for folder in filter(Path.is_dir, folders):
            paths = {path.name: path for path in folder.iterdir()}
            clips[folder.name] = [
                File(int(p.stem), p, paths.get(f"{p.stem}_gt.npy"), paths.get(p.stem + FLOW))
                for p in paths.values()
                if p.stem.isdecimal() and p.suffix.lower() in PICTURES
            ]
    for files in clips.values():
        files.sort(key=lambda file: (file.number, file.picture.name))
    names = sorted(clips) if names is None else names
    return {name: clips[name] for name in names if name in clips}


def _named(folder: Path) -> Iterator[tuple[tuple[str, int], Path]]:
    """Yield (clip, number) and path of the files folder/clip_0001.png and folder/clip/….png."""
    for path in folder.glob("[!.]*"):
        nested = path.is_dir()
        for file in path.glob("[!.]*") if nested else [path]:
            name, _, number = file.stem.rpartition("_")
            clip = path.name if nested else name
            if clip and number.isdecimal():
                yield (clip, int(number)), file


def unbroken_runs(files: list[File]) -> list[list[File]]:
    """Split a clip's frames where the numbering jumps by more than its most frequent step.

    Raises InputError for two frames of one number.
    """
    for before, after in pairwise(files):
        if before.number == after.number:
            raise InputError(f"{after.picture}: numbered as {before.picture.name}; delete one")
    steps = [b.number - a.number for a, b in zip(files, files[1:])]
    step = Counter(steps).most_common(1)[0][0] if steps else 1
    runs = [files[:1]]
    for file, jump in zip(files[1:], steps, strict=True):
        if jump > step:
            runs.append([])
        runs[-1].append(file)
    return runs


def read_map(path: Path) -> np.ndarray:
    """Return the saliency map in a .npy array, an OpenEXR file or a grey picture: (H, W) float32.

    Raises InputError for a file that is unreadable or not a map.
    """
    readers = {".npy": read_array, ".exr": read_exr}
    saliency = readers.get(path.suffix, partial(read_picture, mode="F"))(path)
    if (squeezed := np.squeeze(saliency)).ndim != 2:
        raise InputError(f"{path}: expected a map (H, W), got {saliency.shape}; make it again")
    with np.errstate(over="ignore"):  # an infinite value is found by the caller
        return squeezed.astype(np.float32)


def read_truth(path: Path, height: int, width: int) -> Tensor:
    """Return a saliency map, resized and scaled by its own maximum: (1, H, W) float32 in [0, 1].

    Raises InputError as `read_map` does, and for a map that is all zero, negative or not finite.
    """
    saliency = read_map(path)
    if not (saliency.min() >= 0 and 0 < saliency.max() < np.inf):
        raise InputError(f"{path}: the map is all zero, negative or not finite; delete it")
    truth = torch.from_numpy(resize(saliency / saliency.max(), height, width))[None]
    return truth / truth.max()


def fixations_csv(root: Path, clip: str) -> Path | None:
    """Return the CSV file of a clip's fixations in either layout, None where there is none."""
    paths = root / clip / "fixations.csv", root / "fixations" / f"{clip}.csv"
    return next(filter(Path.is_file, paths), None)


class ClipFixations:
    """The fixations of a data set by clip. any: whether the data set has fixations at all."""

    def __init__(self, root: Path):
        self.root = root
        places = "vinfo.pkl", "fixations", "*/fixations.csv"
        self.any = any(path for place in places for path in root.glob(place))
        self._by_clip: dict[str, Fixations | None] = {}

    def of(self, clip: str) -> Fixations | None:
        """Return a clip's fixations, None without any. Raises InputError for an invalid file."""
        if clip not in self._by_clip:
            path = fixations_csv(self.root, clip)
            self._by_clip[clip] = read_fixations_csv(path) if path else self._vinfo.get(clip)
        return self._by_clip[clip]

    @cached_property
    def _vinfo(self) -> dict[str, Fixations]:
        path = self.root / "vinfo.pkl"
        return read_vinfo(path) if path.is_file() else {}
