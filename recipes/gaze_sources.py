"""Photographs and flat video clips with the fixations of real people, and their splits.

A folder of sources holds any of

    osie/           650 photographs, 15 people       Xu et al., Journal of Vision 2014
    eyecrowd/       500 photographs, 16 people       Jiang et al., ECCV 2014
    scene500/       500 photographs, 12 people       Yanakz/Scene on GitHub
    emod/           190 photographs, 8 people        DilaraAlbayrak/Task-based-eye-fixation-dataset
    hevc33_video/   33 clips, 32 people              Xu et al. 2017, remega/video_database

A set of photographs is images/ and fixations.npz with the `names` of the pictures and one row for
each fixation: `image` (index into names), `order` (0 for the first fixation of a person), `x` and
`y` (fractions of width and height). emod/ has blurred maps instead: maps/ of its own photographs
and, of eight more people, eyecrowd_extra_maps/. Each cell of a map counts as a fixation, whose mass
is the cell's share of the map. The clips are frames/ and fixations.npz with their `names`; for each
fixation `video` (index into names), `time_ms`, `duration_ms`, `x` and `y`; and for each frame
`frame_file`, `frame_video` and `frame_time_ms`.

Left out are the first fixation of each person, because people are made to start at the centre; the
first half second of each clip for the same reason; screen recordings; and RaceHorsesD, which is a
smaller copy of RaceHorsesC, a test clip.

The positions in the clips were recorded on pictures 512 pixels wide (description.txt of
remega/video_database: 467, 319 in ChinaSpeed, which is 1024×768). There are copies that divide
them by the width of the original clip, so that all fixations are in the upper left corner. Where no
fixation of a clip lies beyond 512 / width for one of the clips' widths, this is corrected.

People in front of a screen prefer its centre whatever it shows (Tatler, Journal of Vision 2007).
The weight of a fixation is the inverse square root of how often people looked at its place in all
pictures of its set, at most 2: half of the preference is taken to be the viewers', and half the
photographer's.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from common.errors import InputError
from common.files import read_json
from video.pictures import read_picture

LICENCES = {
    "osie": "OSIE, Xu et al., Journal of Vision 2014; MIT",
    "eyecrowd": "Eye fixations in crowd, Jiang et al., ECCV 2014; MIT",
    "scene500": "Yanakz/Scene; MIT",
    "emod": "DilaraAlbayrak/Task-based-eye-fixation-dataset; MIT",
    "hevc33_video": "remega/video_database, Xu et al. 2017; free to use, to be cited",
}
CLIPS, MAPS = "hevc33_video", "emod"
# Indices into names, first and last + 1; negative ones count from the end. Others are for training.
HELD_OUT = {
    "osie": {"val": (550, 600), "test": (600, None)},
    "eyecrowd": {"val": (-40, None)},
    "scene500": {"val": (-40, None)},
}
CLIP_SPLIT = {
    **dict.fromkeys(("Kimono", "RaceHorsesC", "FourPeople", "BQMall", "PeopleOnStreet"), "test"),
    **dict.fromkeys(("ParkScene", "BasketballPass"), "val"),
    **dict.fromkeys(("ChinaSpeed", "SlideEditing", "SlideShow", "RaceHorsesD"), None),
}
RECORDED_WIDTH, ORIGINAL_WIDTHS = 512, (1920, 1280, 1024, 832)  # pixels
ONSET = 500  # milliseconds
AROUND = 250  # milliseconds around a frame's time in which fixations count for it
MAP_CELLS = 24, 32  # rows and columns to which a map is reduced
MAP_MASS = 120.0  # fixations that a map stands for: eight people's, as many each as in eyecrowd
CELLS = 8  # rows and columns in which the preference for the centre is counted
PLACES = 64  # rows and columns to which it is interpolated
# Columns of fixations.npz beside the names; those of one tuple have the same number of rows.
FIXATIONS = "image", "order", "x", "y"
CLIP_FIXATIONS = "video", "time_ms", "duration_ms", "x", "y"
CLIP_FRAMES = "frame_file", "frame_video", "frame_time_ms"


class Picture(NamedTuple):
    """The file of a photograph or of a clip's frame, and the fixations in it.

    x, y: (N,) fractions of width and height. weights: (N,), positive.
    people: (K, 4) left, top, right and bottom of the people in it, as fractions.
    """

    path: Path
    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    people: np.ndarray = np.empty((0, 4))

    def on_people(self) -> np.ndarray:
        """Return which fixations (N,) are on somebody."""
        left, top, right, bottom = self.people.T[..., None]
        x, y = self.x, self.y
        return ((left <= x) & (x <= right) & (top <= y) & (y <= bottom)).any(axis=0)


class Sources(NamedTuple):
    """The photographs of one split, and its clips as lists of frames."""

    photographs: list[Picture]
    clips: list[list[Picture]]


def read_sources(root: str | Path, people: str | Path | None = None) -> dict[str, Sources]:
    """Return the sources below a folder by split: "train", "val", "test".

    people: file of recipes/people.py, without which nobody is known to be in a picture.

    Raises InputError where there is no source, and where one is incomplete or damaged.
    """
    root = Path(root)
    splits = {split: Sources([], []) for split in ("train", "val", "test")}
    found = [name for name in LICENCES if (root / name).is_dir()]
    if not found:
        raise InputError(
            f"{root}: holds none of the folders {', '.join(LICENCES)}; give another folder"
        )
    for name in found:
        if name == CLIPS:
            for split, clip in _clips(root / name):
                splits[split].clips.append(clip)
        else:
            for split, photograph in _photographs(root / name):
                splits[split].photographs.append(photograph)
    if people is not None:
        boxes = read_json(people)
        for part in splits.values():
            for pictures in (part.photographs, *part.clips):
                pictures[:] = [_with_people(picture, root, boxes) for picture in pictures]
    return splits


def _with_people(picture: Picture, root: Path, boxes: dict) -> Picture:
    name = picture.path.relative_to(root).as_posix()
    return picture._replace(people=np.array(boxes.get(name, []), float).reshape(-1, 4))


def _photographs(folder: Path):
    """Yield the split and the Picture of each photograph of a set."""
    columns, maps = _fixations(folder), folder / "maps"
    if folder.name != MAPS:
        maps = folder.parent / MAPS / f"{folder.name}_extra_maps"
    names, image, x, y = (columns[key] for key in ("names", "image", "x", "y"))
    mass = np.ones(len(image))
    split = np.full(len(names), "train", "U5")
    for held, (first, last) in HELD_OUT.get(folder.name, {}).items():
        split[first:last] = held
    _check_files(folder / "images", names)
    for index, name in enumerate(names):
        if (path := maps / f"{Path(name).stem}.png").is_file():
            *places, share = _read_map(path)
            added = np.full(len(share), index), *places, MAP_MASS * share
            image, x, y, mass = map(np.append, (image, x, y, mass), added)
    weights = mass * _weights(x, y, mass * (split[image] == "train"))
    for index, name in enumerate(names):
        rows = np.flatnonzero(image == index)
        if not len(rows):
            held = maps if folder.name == MAPS else folder / "fixations.npz"
            raise InputError(f"{held}: no fixation on {name} except first ones; remove it")
        picture = Picture(folder / "images" / name, x[rows], y[rows], weights[rows])
        yield str(split[index]), picture


def _fixations(folder: Path) -> dict[str, np.ndarray]:
    """Return names, image, x and y of a set of photographs, without the first fixations."""
    if folder.name == MAPS:
        names = np.array(sorted(path.name for path in (folder / "images").glob("*.jpg")), str)
        return {"names": names, "image": np.empty(0, int), "x": np.empty(0), "y": np.empty(0)}
    columns = _read(folder / "fixations.npz", FIXATIONS)
    _check_index(folder, columns["image"], len(columns["names"]), "image")
    later = columns.pop("order") > 0
    return {key: column if key == "names" else column[later] for key, column in columns.items()}


def _read_map(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and share (N,) of the cells of a map that people looked at; shares sum to 1."""
    cells = cv2.resize(read_picture(path, "L"), MAP_CELLS[::-1], interpolation=cv2.INTER_AREA)
    row, column = np.nonzero(cells)
    x, y = (column + 0.5) / MAP_CELLS[1], (row + 0.5) / MAP_CELLS[0]
    return x, y, cells[row, column] / cells.sum(dtype=float)


def _clips(folder: Path):
    """Yield the split and the list of Pictures of each clip."""
    columns = _read(folder / "fixations.npz", CLIP_FIXATIONS, CLIP_FRAMES)
    names, video, x, y = (columns[key] for key in ("names", "video", "x", "y"))
    files, of_video, times = (columns[f"frame_{key}"] for key in ("file", "video", "time_ms"))
    split = [CLIP_SPLIT.get(name, "train") for name in names]
    _check_index(folder, video, len(names), "video")
    _check_index(folder, of_video, len(names), "frame_video")
    _check_files(folder / "frames", files)
    x, y = _corrected(x, y, video)
    begin, end = columns["time_ms"], columns["time_ms"] + columns["duration_ms"]
    weights = _weights(x, y, np.array([part == "train" for part in split], float)[video])
    for index in (index for index, part in enumerate(split) if part):
        frames = np.flatnonzero((of_video == index) & (times >= ONSET))
        clip = []
        for frame in frames[np.argsort(times[frames], kind="stable")]:
            live = (begin <= times[frame] + AROUND) & (end >= times[frame] - AROUND)
            rows = np.flatnonzero(live & (video == index) & (begin >= AROUND))
            path = folder / "frames" / files[frame]
            clip.append(Picture(path, x[rows], y[rows], weights[rows]))
        if not any(len(picture.x) for picture in clip):
            raise InputError(
                f"{folder / 'fixations.npz'}: no fixation on a frame of {names[index]} after its "
                "first half second; remove it from names"
            )
        yield split[index], clip


def _corrected(x: np.ndarray, y: np.ndarray, video: np.ndarray):
    """Return x and y (N,) of fixations as fractions of the whole picture, see above."""
    x, y = x.copy(), y.copy()
    for index in np.unique(video):
        rows = video == index
        largest = max(x[rows].max(), y[rows].max())
        extents = (RECORDED_WIDTH / width for width in ORIGINAL_WIDTHS)
        extent = next((extent for extent in extents if largest <= extent), 1)
        x[rows], y[rows] = x[rows] / extent, y[rows] / extent
    return x, y


def _weights(x: np.ndarray, y: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the weights (N,) of fixations: (frequency of their place / mean)^−½, at most 2.

    counted: (N,) what each fixation counts in the frequencies.
    """
    cells = np.histogram2d(y, x, bins=CELLS, range=((0, 1), (0, 1)), weights=counted)[0]
    frequent = (cells + 1) / (cells + 1).mean()
    fine = cv2.resize(frequent, (PLACES, PLACES), interpolation=cv2.INTER_LINEAR)
    row, column = ((a * PLACES).astype(int).clip(max=PLACES - 1) for a in (y, x))
    return (fine[row, column] ** -0.5).clip(max=2)


def _read(path: Path, *tables: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the names and the columns of these tables in an .npz file.

    Raises InputError where a column is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; copy the set again or remove its folder")
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {key: file[key] for key in ("names", *sum(tables, ()))}
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]}; copy it again") from error
    except (OSError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable .npz file; copy it again") from error
    for key, column in columns.items():
        if column.dtype.kind in "iu":  # sums and differences of times must not overflow
            columns[key] = column.astype(np.int64)
    for table in tables:
        if len({columns[key].shape for key in table}) > 1:
            raise InputError(f"{path}: {', '.join(table)} differ in length; copy it again")
    for key in "xy":
        if not ((columns[key] >= 0) & (columns[key] <= 1)).all():
            raise InputError(f"{path}: {key} holds values outside 0 … 1; give fractions")
    return columns


def _check_index(folder: Path, index: np.ndarray, count: int, key: str) -> None:
    if len(index) and not (index.min() >= 0 and index.max() < count):
        raise InputError(
            f"{folder / 'fixations.npz'}: {key} exceeds its {count} names; copy it again"
        )


def _check_files(folder: Path, names: np.ndarray) -> None:
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if missing := [name for name in names if name not in present]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{folder / missing[0]}: missing{more}; copy the set again")
