"""Sources of scored maps: a checkpoint's model, and saved maps.

A source has a name, facts for metrics.json, and a method maps(clip, files, irregular, fps). It
yields one map (h, w) for each of the clip's files with a ground truth, in order, None where there
is no usable one, and adds the problems that it meets to the list `irregular` as (kind, file). fps:
files a second, None where they are not known.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

import models
from common.errors import InputError
from datasets.layouts import File, read_map, unbroken_runs
from maps.interpolate import interpolate
from models.checkpoint import sha256
from video.reader import read_pictures

Maps = Iterator[np.ndarray | None]


class Network:
    """A checkpoint's model, which predicts as in infer_video.py, and anew after each gap."""

    def __init__(self, path: Path, model: models.SaliencyModel):
        self.model, self.name = model, model.name
        self.facts = {"checkpoint": path.name, "sha256": sha256(path)}

    def maps(self, clip: str, files: list[File], irregular: list, fps: Fraction | None) -> Maps:
        for run in unbroken_runs(files):
            reader = read_pictures([file.picture for file in run], self.model.spec, fps)
            maps = interpolate(models.predict(self.model, reader))
            try:
                for file, (number, saliency) in zip(run, maps, strict=True):
                    if file.truth:
                        yield None if number in reader.damage.unreadable else saliency
            except InputError:  # none can be read
                yield from (None for file in run if file.truth)
            irregular += reader.damage.problems()


class SavedMaps:
    """The maps in <folder>/<clip>, one for each frame: .npy, else .exr, else a picture of 8 bits.

    The last number in a file's name is that of its frame; after "sal_", as infer_video.py writes
    it, it counts the frames from 1.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise InputError(f"--pred_dir {folder}: no such folder; check the path")
        self.folder, self.name = folder, folder.resolve().name
        self.facts = {"maps": folder.name}

    def maps(self, clip: str, files: list[File], irregular: list, fps: Fraction | None) -> Maps:
        paths = self._by_number(clip)
        from_one = any(path.name.startswith("sal_") for path in paths.values())
        for position, file in enumerate(files, 1):
            number = position if from_one else file.number
            path = paths.pop(number, None)
            if file.truth and path:
                yield _read_saved(path, irregular)
            elif file.truth:
                irregular.append(("missing map", f"{self.folder / clip}: {number}"))
                yield None
        irregular += [("map without a matching frame", str(path)) for path in paths.values()]

    def _by_number(self, clip: str) -> dict[int, Path]:
        """Return the maps of a clip by the last number in their names."""
        paths: dict[int, Path] = {}
        for suffix in (".npy", ".exr", ".png"):
            for path in sorted((self.folder / clip).glob(f"[!.]*{suffix}")):
                if digits := re.findall(r"\d+", path.stem):
                    other = paths.setdefault(int(digits[-1]), path)
                    if other is not path and other.suffix == suffix:
                        raise InputError(f"{path}: has the number of {other.name}; rename one")
        return paths


def _read_saved(path: Path, irregular: list) -> np.ndarray | None:
    """Return a saved map, None if it is unusable."""
    if path.suffix == ".png":
        irregular.append(("map of 8 bits, which may change scores by ties and zeros", str(path)))
    try:
        saliency = read_map(path)
        if not 0 <= saliency.min() <= saliency.max() < np.inf:
            raise InputError(f"{path}: its values are negative or not finite; make it again")
    except InputError as error:
        irregular.append(("unusable map", str(error)))
        return None
    if saliency.min() == saliency.max():
        irregular.append(("map of a single value, scored as uniform", str(path)))
    return saliency
