"""Gaze and fixations in files: CSV in degrees, and the vinfo.pkl of the ECCV 2018 data set.

A CSV file is UTF-8 with a header and commas. Columns come in any order, others are ignored:

    time,longitude,latitude,observer     gaze: seconds since the first frame, degrees, any name
    frame,longitude,latitude,observer    <root>/<clip>/fixations.csv: frame numbers from 1

Longitude is degrees to the right of straight ahead, within ±360 and wrapped into ±180. Latitude is
degrees upwards, within ±90.
"""

import csv
import math
import re
import reprlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import InputError
from common.files import atomic, reading
from common.restricted_pickle import containers, numpy_arrays, read_pickle

UNKNOWN = -1  # observer where a file has none
MAX_BYTES = 1 << 30  # of vinfo.pkl, far more than 104 clips need
LIMITS = {"longitude": 360, "latitude": 90}  # degrees in a CSV file


class Gaze(NamedTuple):
    """Where observers looked, sample by sample."""

    seconds: np.ndarray  # (N,) float64, since the first frame
    longitudes: np.ndarray  # (N,) float64 radians, in ±π
    latitudes: np.ndarray  # (N,) float64 radians, in ±π/2
    observers: np.ndarray  # (N,) int64


class Fixations(NamedTuple):
    """Where observers looked, frame by frame."""

    frames: np.ndarray  # (N,) int64, from 1
    longitudes: np.ndarray  # (N,) float64 radians, in ±π
    latitudes: np.ndarray  # (N,) float64 radians, in ±π/2
    observers: np.ndarray  # (N,) int64; UNKNOWN where the source has none

    def at(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the longitudes and latitudes of one frame's fixations."""
        there = self.frames == frame
        return self.longitudes[there], self.latitudes[there]


def read_gaze_csv(path: str | Path) -> Gaze:
    """Return the gaze of one video from a file of time,longitude,latitude,observer.

    Raises InputError for an invalid file, naming the line, and for one without samples.
    """
    gaze = Gaze(*_read_csv(path, "time"))
    if not len(gaze.seconds):
        raise InputError(f"{path}: there is no gaze after the header; export it again")
    return gaze


def read_fixations_csv(path: str | Path) -> Fixations:
    """Return the fixations of one clip from a file of frame,longitude,latitude,observer.

    Raises InputError for an invalid file, naming the line. A file without fixations is valid.
    """
    frames, *others = _read_csv(path, "frame")
    return Fixations(frames.astype(np.int64), *others)


def write_fixations_csv(path: str | Path, fixations: Fixations) -> None:
    """Write fixations for `read_fixations_csv`, to the millionth of a degree."""
    frames, *angles, observers = fixations
    columns = (column.tolist() for column in (frames, *np.degrees(angles), observers))
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("frame,longitude,latitude,observer\n")
        file.writelines(map("{},{:.6f},{:.6f},{}\n".format, *columns))


def _read_csv(path: str | Path, first: str) -> tuple[np.ndarray, ...]:
    """Return the column `first`, longitude and latitude in radians, and observer: (N,) each.

    The first three are float64, observers int64. Raises InputError for an invalid file.
    """
    needed = (first, "longitude", "latitude", "observer")
    expected = f"expected a header with {','.join(needed)}"
    rows, observers = [], []
    otherwise = f"not a CSV file in UTF-8 ({{}}); {expected}"
    with reading(path, otherwise), open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in needed if name not in header]:
            raise InputError(f"{path}, line 1: no column {', '.join(missing)}; {expected}")
        columns = [header.index(name) for name in needed]
        for row in filter(None, reader):
            try:
                if len(row) != len(header):
                    raise ValueError(f"{len(row)} columns, but the header has {len(header)}")
                *texts, observer = (row[column].strip() for column in columns)
                if not observer:
                    raise ValueError("no observer")
                rows.append([_number(name, text) for name, text in zip(needed, texts)])
            except ValueError as error:
                raise InputError(
                    f"{path}, line {reader.line_num}: {error}; correct or delete this line"
                ) from error
            observers.append(observer)
    values, longitude, latitude = np.array(rows, np.float64).reshape(-1, 3).T
    longitude = np.where(abs(longitude) > 180, longitude - np.copysign(360, longitude), longitude)
    return values, np.radians(longitude), np.radians(latitude), _observer_numbers(observers)


def _number(column: str, text: str) -> float:
    """Return the number in one field of a column. Raises ValueError for an invalid one."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{column} '{text}' is not a number")
    if abs(value) > LIMITS.get(column, math.inf):
        raise ValueError(f"{column} {text} is outside ±{LIMITS[column]} degrees")
    if column == "frame" and not (value.is_integer() and 1 <= value < 1e9):
        raise ValueError(f"frame '{text}' is not a whole number from 1")
    return value


def _observer_numbers(names: list[str]) -> np.ndarray:
    """Return (N,) int64: the names if all are whole numbers, else their alphabetical ranks."""
    try:
        return np.array([int(name) for name in names], np.int64)
    except (ValueError, OverflowError):
        return np.unique(names, return_inverse=True)[1].astype(np.int64)


def read_vinfo(path: str | Path) -> dict[str, Fixations]:
    """Return the fixations by clip from vinfo.pkl of 360_Saliency_dataset_2018ECCV.

    The structure is that of its authors' data.py, since the file itself was not at hand
    (github.com/xuyanyu-shh/Saliency-detection-in-360-video): {clip: {frame: [(x, y), …]}}, where
    the clip is the name of its folder, the frame that of its picture, '0001', and x and y are
    fractions of the width from the left and of the height from the top. There are no observers.
    Integers instead of names and NumPy arrays instead of lists are read, too.

    Nothing in the file is imported or executed. Raises InputError for a file that would import
    anything, is damaged or has another structure.
    """
    with reading(path, "not a pickle, or damaged ({}); get it again", MAX_BYTES) as path:
        content = path.read_bytes()
        clips = read_pickle(content, path, containers() | numpy_arrays())
    if not isinstance(clips, dict) or not clips:
        raise _other_structure(path, "the file", clips)
    found, count = {}, 0
    for clip, frames in clips.items():
        found[str(clip)] = _clip_fixations(path, clip, frames)
        count += len(found[str(clip)].frames)
        if count > len(content):  # the same list again and again
            raise InputError(f"{path}: more fixations than bytes; get it from the data set again")
    return found


def _clip_fixations(path, clip, frames) -> Fixations:
    if not isinstance(frames, dict):
        raise _other_structure(path, f"clip {clip!r}", frames)
    numbers, positions = [], []
    for frame, points in frames.items():
        if not re.fullmatch(r"0*[1-9]\d{0,8}", str(frame)):
            raise _other_structure(path, f"clip {clip!r}", frames)
        try:
            points = [(float(x), float(y)) for x, y in points]
            valid = all(0 <= x <= 1 and 0 <= y <= 1 for x, y in points)
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise _other_structure(path, f"frame {frame!r} of clip {clip!r}", points)
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
