"""Gaze and fixations in files: CSV in degrees, and the vinfo.pkl of the ECCV 2018 data set.

A CSV file is UTF-8 with a header and commas; columns come in any order, others are ignored:

    time,longitude,latitude,observer     gaze: seconds since the first frame, degrees, any name
    frame,longitude,latitude,observer    <root>/<clip>/fixations.csv: frame numbers from 1

Longitude is to the right of straight ahead, within ±180 or beyond it by less than a turn; latitude
is upwards, within ±90.
"""

import csv
import math
import pickle
import re
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cli import InputError, atomic
from restricted_pickle import PickledArray, containers, numpy_arrays, read_pickle

UNKNOWN = -1  # the observer where a file does not tell
LARGEST = 1 << 30  # bytes of a pickle, far more than 104 clips need


@dataclass(frozen=True)
class Gaze:
    """Where observers looked, sample by sample."""

    seconds: np.ndarray  # (N,) float64, since the first frame
    longitudes: np.ndarray  # (N,) float64 radians
    latitudes: np.ndarray  # (N,) float64 radians, in ±π/2
    observers: np.ndarray  # (N,) int64; names are numbered in their order in the alphabet


@dataclass(frozen=True)
class Fixations:
    """Where observers looked, frame by frame."""

    frames: np.ndarray  # (N,) int64, from 1
    longitudes: np.ndarray  # (N,) float64 radians
    latitudes: np.ndarray  # (N,) float64 radians, in ±π/2
    observers: np.ndarray  # (N,) int64; UNKNOWN where the source does not tell

    def at(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Longitudes and latitudes of one frame's fixations."""
        there = self.frames == frame
        return self.longitudes[there], self.latitudes[there]


def read_gaze_csv(path: str | Path) -> Gaze:
    """Gaze of one video: time,longitude,latitude,observer.

    Raises InputError naming the line where the file is another, and for one without samples.
    """
    gaze = Gaze(*_columns(path, "time", lambda line: _number(line, "time")))
    if not len(gaze.seconds):
        raise InputError(f"{path}: holds no gaze, only a header; export it again")
    return gaze


def read_fixations_csv(path: str | Path) -> Fixations:
    """Fixations of one clip's frames: frame,longitude,latitude,observer. There may be none.

    Raises InputError naming the line where the file is another.
    """
    frames, *others = _columns(path, "frame", _frame)
    return Fixations(frames.astype(np.int64), *others)


def write_fixations_csv(path: str | Path, fixations: Fixations) -> None:
    """Write what `read_fixations_csv` reads, to the millionth of a degree."""
    columns = (
        fixations.frames.tolist(),
        np.degrees(fixations.longitudes).tolist(),
        np.degrees(fixations.latitudes).tolist(),
        fixations.observers.tolist(),
    )
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("frame,longitude,latitude,observer\n")
        for frame, longitude, latitude, observer in zip(*columns, strict=True):
            file.write(f"{frame},{longitude:.6f},{latitude:.6f},{observer}\n")


class _Line(dict):
    """One row of a CSV file by column, which knows where it is."""

    def __init__(self, path, number: int, columns: dict[str, str]):
        super().__init__(columns)
        self.path, self.number = path, number

    def error(self, what: str) -> InputError:
        return InputError(f"{self.path}, line {self.number}: {what}; correct or delete this line")


def _columns(path: str | Path, first: str, read_first: Callable[[_Line], float]):
    """The columns `first`, longitude and latitude, (N,) float64, and observer, (N,) int64."""
    rows, observers = [], []
    for line in _lines(path, (first, "longitude", "latitude", "observer")):
        rows.append((read_first(line), *_direction(line)))
        observers.append(line["observer"])
    numbers = np.array(rows, np.float64).reshape(-1, 3)
    return *numbers.T, _observer_numbers(observers)


def _lines(path: str | Path, needed: tuple[str, ...]) -> Iterator[_Line]:
    wanted = f"expected a header with {','.join(needed)}"
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            if missing := [name for name in needed if name not in header]:
                raise InputError(f"{path}, line 1: no column {', '.join(missing)}; {wanted}")
            index = {name: header.index(name) for name in needed}
            for row in filter(None, reader):
                line = _Line(path, reader.line_num, {})
                if len(row) != len(header):
                    raise line.error(f"{len(row)} columns where the header has {len(header)}")
                line.update({name: row[i].strip() for name, i in index.items()})
                if not line["observer"]:
                    raise line.error("no observer")
                yield line
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no CSV file in UTF-8 ({error}); {wanted}") from error


def _number(line: _Line, column: str) -> float:
    try:
        value = float(line[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise line.error(f"{column} '{line[column]}' is no number")
    return value


def _frame(line: _Line) -> float:
    frame = _number(line, "frame")
    if not (frame.is_integer() and 1 <= frame < 1e9):
        raise line.error(f"frame '{line['frame']}' is no whole number from 1")
    return frame


def _direction(line: _Line) -> tuple[float, float]:
    """Longitude, wrapped into ±π, and latitude in radians."""
    longitude, latitude = _number(line, "longitude"), _number(line, "latitude")
    if abs(longitude) > 360:
        raise line.error(f"longitude {line['longitude']} is outside ±360 degrees")
    if abs(latitude) > 90:
        raise line.error(f"latitude {line['latitude']} is outside ±90 degrees")
    if abs(longitude) > 180:
        longitude -= math.copysign(360, longitude)
    return math.radians(longitude), math.radians(latitude)


def _observer_numbers(names: list[str]) -> np.ndarray:
    """(N,) int64: the names themselves where all are whole numbers, else their order from 0."""
    try:
        return np.array([int(name) for name in names], np.int64)
    except (ValueError, OverflowError):
        return np.unique(names, return_inverse=True)[1].astype(np.int64)


def read_vinfo(path: str | Path) -> dict[str, Fixations]:
    """Return the fixations of each clip from vinfo.pkl of 360_Saliency_dataset_2018ECCV.

    The structure is the one that its authors' data.py reads
    (github.com/xuyanyu-shh/Saliency-detection-in-360-video): {clip: {frame: [(x, y), …]}}, where
    a clip has the name of its folder, a frame that of its picture, '0001', and x and y are
    fractions of the width from the left and of the height from the top. Observers are not named.
    Clips and frames may also be integers, and lists may be NumPy arrays.

    Nothing in the file is imported or executed. Raises InputError for a file that asks for it,
    is damaged or has another structure.
    """
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise InputError(f"{path}: larger than a vinfo.pkl can be; use the one of the data set")
    try:
        clips = read_pickle(content, path, containers() | numpy_arrays())
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: damaged, or no pickle ({error}); download it again") from error
    if not isinstance(clips, dict) or not clips:
        raise _other_structure(path, "the file", clips)
    return {str(clip): _clip_fixations(path, clip, frames) for clip, frames in clips.items()}


def _clip_fixations(path, clip, frames) -> Fixations:
    if not isinstance(frames, dict):
        raise _other_structure(path, f"clip {clip!r}", frames)
    numbers, positions = [], []
    for frame, points in frames.items():
        points, where = _plain(points), f"frame {frame!r} of clip {clip!r}"
        if not re.fullmatch(r"0*[1-9]\d{0,8}", str(frame)):
            raise _other_structure(path, f"clip {clip!r}", frames)
        try:
            points = [(float(x), float(y)) for x, y in points]
        except (TypeError, ValueError):
            raise _other_structure(path, where, points) from None
        if not all(0 <= x <= 1 and 0 <= y <= 1 for x, y in points):
            raise _other_structure(path, where, points)
        numbers += [int(frame)] * len(points)
        positions += points
    x, y = np.array(positions, np.float64).reshape(-1, 2).T
    return Fixations(
        np.array(numbers, np.int64),
        (x - 0.5) * 2 * math.pi,
        (0.5 - y) * math.pi,
        np.full(len(x), UNKNOWN, np.int64),
    )


def _other_structure(path, where: str, found) -> InputError:
    return InputError(
        f"{path}: {where} is {type(found).__name__} {reprlib.repr(found)}; "
        "expected {clip: {'0001': [(x, y), …]}} with x and y in [0, 1]; "
        "use the vinfo.pkl of 360_Saliency_dataset_2018ECCV"
    )


def _plain(points):
    """Return the array, or list of arrays, that objects from a pickle describe."""
    if isinstance(points, PickledArray):
        return points.values
    if isinstance(points, (list, tuple)):
        return [point.values if isinstance(point, PickledArray) else point for point in points]
    return points
