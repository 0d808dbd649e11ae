"""Files of gaze and fixations: CSV in degrees, and the vinfo.pkl of the ECCV 2018 data set.

A CSV file is in UTF-8, with a header and commas. Columns are in any order, others are ignored:

    time,longitude,latitude,observer     gaze: seconds since the first frame, degrees, any name
    frame,longitude,latitude,observer    <root>/<clip>/fixations.csv: frame numbers from 1
    frame,u,v,id                         the same as written by edurnebernal/D-SAV360: frame
                                         numbers from 0, and fractions of width and height from
                                         the upper left corner

Longitude is in degrees to the right of straight ahead, within ±360 and wrapped into ±180. Latitude
is in degrees upwards, within ±90.
"""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from common.errors import InputError
from common.files import reading, write_text
from common.restricted_pickle import containers, numpy_arrays, read_pickle

T = TypeVar("T")
MAX_BAD_SHARE = 0.1  # share of invalid lines above which a file is refused
NO_OBSERVER = -1  # observer in a file without observers
MAX_VINFO_BYTES = 1 << 30  # of vinfo.pkl, far more than 104 clips need
GAZE = ("time", "longitude", "latitude", "observer")
FIXATIONS = ("frame", "longitude", "latitude", "observer")
D_SAV360 = ("frame", "u", "v", "id")
LIMITS = {  # lowest and highest value of a column
    "video": (0, 1e9), "time": (-1e9, 1e9), "frame": (0, 1e9), "longitude": (-360, 360),
    "latitude": (-90, 90), "x": (0, 1), "y": (0, 1), "u": (-0.5, 1.5), "v": (0, 1),
}  # fmt: skip


class Gaze(NamedTuple):
    """Gaze samples of observers, (N,) each."""

    seconds: np.ndarray  # float64, since the first frame
    longitudes: np.ndarray  # float64 radians, in ±π
    latitudes: np.ndarray  # float64 radians, in ±π/2
    observers: np.ndarray  # int64
    problems: tuple[str, ...] = ()  # omitted lines, with reasons


class Fixations(NamedTuple):
    """Fixations of observers in frames, (N,) each."""

    frames: np.ndarray  # int64, from 0
    longitudes: np.ndarray  # float64 radians, in ±π
    latitudes: np.ndarray  # float64 radians, in ±π/2
    observers: np.ndarray  # int64; NO_OBSERVER where the source has none
    problems: tuple[str, ...] = ()  # omitted lines or places, with reasons

    def at(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the longitudes and latitudes of one frame's fixations."""
        here = self.frames == frame
        return self.longitudes[here], self.latitudes[here]


def to_angles(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return longitudes and latitudes, (N,) radians, for fractions of width and height, (N,).

    x, y: in [0, 1] from the upper left corner.
    """
    return (x - 0.5) * 2 * math.pi, (0.5 - y) * math.pi


def read_gaze_csv(path: str | Path) -> Gaze:
    """Return the gaze of one video. Raises InputError for an invalid file or no samples."""
    gaze = Gaze(*_read_csv(path, GAZE))
    if not len(gaze.seconds):
        raise InputError(f"{path}: no gaze after the header; export it again")
    return gaze


def read_fixations_csv(path: str | Path) -> Fixations:
    """Return the fixations of a clip, possibly none. Raises InputError for an invalid file."""
    frames, *others = _read_csv(path, D_SAV360, FIXATIONS)
    return Fixations(frames.astype(np.int64), *others)


def write_fixations_csv(path: str | Path, fixations: Fixations) -> None:
    """Write fixations for `read_fixations_csv`, with a precision of 1e-6 degrees."""
    frames, *angles, observers = fixations[:4]
    columns = (column.tolist() for column in (frames, *np.degrees(angles), observers))
    lines = map("{},{:.6f},{:.6f},{}\n".format, *columns)
    write_text(path, "".join(["frame,longitude,latitude,observer\n", *lines]))


def left_out(path: str | Path, bad: list[str], count: int) -> tuple[str, ...]:
    """Return the problems of a file's invalid lines. count: number of all lines.

    Raises InputError if more than MAX_BAD_SHARE of them are invalid.
    """
    if len(bad) > MAX_BAD_SHARE * count:
        advice = "correct or delete this line" if len(bad) == 1 else "export it again"
        raise InputError(f"{path}, {bad[0]} ({len(bad)} of {count} lines are invalid); {advice}")
    return tuple(f"{path}, {problem}" for problem in bad)


def read_lines(
    path: Path, parse: Callable[[str], T], skip: int = 0
) -> tuple[list[T], tuple[str, ...]]:
    """Return the result of `parse` for each line before trailing blank ones, and the bad lines.

    parse: raises ValueError for an invalid line. skip: header lines. Raises errors like left_out.
    """
    lines, parsed, bad = path.read_text(encoding="utf-8").rstrip().splitlines()[skip:], [], []
    for n, line in enumerate(lines, 1 + skip):
        try:
            parsed.append(parse(line))
        except (ValueError, csv.Error) as error:
            bad.append(f"line {n}: {error if line.strip() else 'it is blank'}")
    return parsed, left_out(path, bad, len(lines))


def read_table(
    path: str | Path,
    parse: Callable[[tuple[str, ...], dict[str, str]], T],
    *formats: tuple[str, ...],
) -> tuple[tuple[str, ...], list[T], tuple[str, ...]]:
    """Return the format of a CSV file, the result of `parse` for each line, and problems.

    parse: function of the format and a line's fields by column. formats: possible columns; the
    first format of which the file has all columns is used. Raises InputError if there is none, and
    errors like left_out.
    """
    expected = f"{{}}; expected CSV in UTF-8 with a header {','.join(formats[-1])}"
    with reading(path, expected) as path:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = [name.strip().lower() for name in next(csv.reader(file, strict=True), [])]
        columns = next((names for names in formats if {*names} <= {*header}), formats[-1])
        if missing := [name for name in columns if name not in header]:
            raise ValueError(f"there is no column {', '.join(missing)}")

        def parse_line(line: str) -> T:
            fields = map(str.strip, next(csv.reader([line], strict=True)))
            return parse(columns, dict(zip(header, fields, strict=True)))

        return columns, *read_lines(path, parse_line, skip=1)


def _read_csv(path: str | Path, *formats: tuple[str, ...]) -> tuple:
    """Return time or frame, longitude and latitude in radians, and observer: (N,) each; problems.

    The first three columns of a format are returned as float64, observers as int64.
    """

    def parse(columns: tuple[str, ...], fields: dict[str, str]) -> tuple[list[float], str]:
        values, observer = [number(n, fields[n]) for n in columns[:3]], fields[columns[3]]
        if columns == FIXATIONS and values[0] < 1:
            raise ValueError(f"frame {fields['frame']} is not a whole number from 1")
        if not observer:
            raise ValueError("no observer")
        return values, observer

    columns, lines, problems = read_table(path, parse, *formats)
    observers = [observer for _, observer in lines]
    times, x, y = np.array([values for values, _ in lines], np.float64).reshape(-1, 3).T
    if columns == D_SAV360:
        x, y = 360 * (x - 0.5), 180 * (0.5 - y)
    x = np.where(abs(x) > 180, x - np.copysign(360, x), x)
    try:
        ids = np.array([int(name) for name in observers], np.int64)
    except (ValueError, OverflowError):  # names are replaced by their alphabetical ranks
        ids = np.unique(observers, return_inverse=True)[1].astype(np.int64)
    return times, np.radians(x), np.radians(y), ids, problems


def number(column: str, text: str) -> float:
    """Return the number in a field. Raises ValueError for one outside the column's LIMITS."""
    value, (low, high) = float(text), LIMITS[column]
    if not low <= value <= high or (column == "frame" and value % 1):  # NaN included
        whole = " or not whole" * (column == "frame")
        raise ValueError(f"{column} {text} is outside {low:g} to {high:g}{whole}")
    return value


def read_vinfo(path: str | Path) -> dict[str, Fixations]:
    """Return the fixations by clip from vinfo.pkl of 360_Saliency_dataset_2018ECCV.

    The structure is taken from its authors' data.py, not from the file itself
    (github.com/xuyanyu-shh/Saliency-detection-in-360-video): {clip: {frame: [(x, y), …]}}. The clip
    is the name of its folder and the frame that of its picture, '0001'; x and y are fractions of
    the width from the left and of the height from the top. No code in the file is imported or
    executed. Raises InputError for any other file.
    """
    otherwise = (
        "not {clip: {'0001': [(x, y), …]}} with x and y in [0, 1], or damaged ({}); use the "
        "vinfo.pkl of 360_Saliency_dataset_2018ECCV"
    )
    with reading(path, otherwise, MAX_VINFO_BYTES) as path:
        clips = read_pickle(path.read_bytes(), path, containers() | numpy_arrays())
        read = {str(clip): _clip_fixations(str(clip), frames) for clip, frames in clips.items()}
        bad = [problem for fixations in read.values() for problem in fixations.problems]
        if len(bad) > MAX_BAD_SHARE * (len(bad) + sum(len(part.frames) for part in read.values())):
            raise ValueError(f"{len(bad)} invalid places, the first: {bad[0]}")
        return read


def _clip_fixations(clip: str, frames: dict) -> Fixations:
    """Return the fixations in {frame: [(x, y), …]}. Raises an error of any kind for another."""
    points = [(int(frame), x, y) for frame, places in frames.items() for x, y in places]
    number, x, y = np.array(points, np.float64).reshape(-1, 3).T
    inside = (number >= 1) & (number <= LIMITS["frame"][1])
    inside &= (abs(x - 0.5) <= 0.5) & (abs(y - 0.5) <= 0.5)
    problem = "clip {}, frame {:.0f}: x {:g}, y {:g} is outside the picture".format
    problems = tuple(problem(clip, *points[n]) for n in np.flatnonzero(~inside))
    angles = to_angles(x[inside], y[inside])
    frame_numbers, unknown = number[inside].astype(np.int64), np.full(inside.sum(), NO_OBSERVER)
    return Fixations(frame_numbers, *angles, unknown, problems)
