"""Sources of maps to score: a checkpoint's model, and saved maps.

A source has a name, facts for metrics.json, and a method maps(clip, files, irregular, fps), which
yields a map (h, w) or None for each of the clip's files with a ground truth, in order, and appends
problems to the list `irregular` as (kind, file). fps: of the files, None if unknown.
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
    """A checkpoint's model, which predicts as in infer_video.py and restarts after each gap."""

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
            except InputError:  # no frame is readable
                yield from (None for file in run if file.truth)
            irregular += reader.damage.problems()


class SavedMaps:
    """The maps in <folder>/<clip>, one for each frame: .npy, else .exr, else an 8-bit picture.

    The last number in a file name is the frame number, after "sal_" the position, from 1.
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
        irregular.append(("8-bit map, whose ties and zeros may change scores", str(path)))
    try:
        saliency = read_map(path)
        if not 0 <= saliency.min() <= saliency.max() < np.inf:
            raise InputError(f"{path}: has negative or non-finite values; make it again")
    except InputError as error:
        irregular.append(("unusable map", str(error)))
        return None
    if saliency.min() == saliency.max():
        irregular.append(("constant map, scored as uniform", str(path)))
    return saliency
