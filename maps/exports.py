"""Exports of a clip's maps for other programs: peaks, tiles, arrays.

Files are written map by map, in constant memory, and atomically. Maps are given in order as
(number from 1, seconds, map), one for each frame of the clip; None for an unreadable one, of which
a table has no rows and an array NaN.
"""

import argparse
import csv
import math
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from common.files import atomic

Maps = Iterable[tuple[int, float, np.ndarray | None]]


def write_peaks(path: Path, maps: Maps, count: int) -> None:
    """Write at most `count` highest peaks of each map as a table.

    Its columns are time in seconds, frame, rank from 1, longitude and latitude in degrees, and the
    share of attention within 10°.
    """
    from maps.attention import peaks, share  # slow to import

    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("time", "frame", "rank", "longitude", "latitude", "share"))
        for number, seconds, saliency in maps:
            if saliency is None:
                continue
            for rank, place in enumerate(peaks(saliency, count), 1):
                degrees = (f"{math.degrees(angle):.4f}" for angle in place)
                row = number, rank, *degrees, f"{share(saliency, *place):.5f}"
                table.writerow((f"{seconds:.4f}", *row))


def write_tiles(path: Path, maps: Maps, frames: int, rows: int, columns: int) -> None:
    """Write the share of attention in each tile as an .npz file.

    Arrays: tiles (frames, rows, columns) float32, time in seconds, and the tiles' edges in degrees,
    latitude (rows + 1,) and longitude (columns + 1,).
    """
    from maps.attention import tiles  # slow to import

    times = []

    def shares() -> Iterable[np.ndarray | None]:
        for _, seconds, saliency in maps:
            times.append(seconds)
            yield None if saliency is None else tiles(saliency, rows, columns)

    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("tiles.npy", "w", force_zip64=True) as file:
            _write_arrays(file, shares(), (frames, rows, columns))
        edges = np.linspace(90, -90, rows + 1), np.linspace(-180, 180, columns + 1)
        for name, array in zip(("time", "latitude", "longitude"), (np.array(times), *edges)):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array)


def write_maps(path: Path, maps: Maps, frames: int, height: int, width: int) -> None:
    """Write maps as one .npy file, (frames, H, W) float32."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        _write_arrays(file, (m for _, _, m in maps), (frames, height, width))


def _write_arrays(file: IO[bytes], arrays: Iterable[np.ndarray | None], shape: tuple) -> None:
    """Write arrays as one of a shape (count, ...) with the header of an .npy file."""
    facts = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)
    for array in arrays:
        array = np.full(shape[1:], np.nan) if array is None else array
        file.write(array.astype("<f4").tobytes())


# Writers by file name suffix. Their arguments are path, maps, their shape (frames, H, W), number of
# peaks, and (rows, columns) of tiles.
KINDS = {
    ".csv": lambda path, maps, shape, peaks, tiles: write_peaks(path, maps, peaks),
    ".npz": lambda path, maps, shape, peaks, tiles: write_tiles(path, maps, shape[0], *tiles),
    ".npy": lambda path, maps, shape, peaks, tiles: write_maps(path, maps, *shape),
}


def export_path(text: str) -> Path:
    """Return the path of an export, an argparse type."""
    path = Path(text)
    if path.suffix.lower() not in KINDS or path.is_dir():
        wanted = ", ".join(KINDS)
        raise argparse.ArgumentTypeError(f"{text}: give a name that ends with one of {wanted}")
    return path


def grid(text: str) -> tuple[int, int]:
    """Return (rows, columns) of a grid such as 6x12, an argparse type."""
    if not (match := re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,2})", text)):
        raise argparse.ArgumentTypeError(f"{text}: give rows x columns, such as 6x12")
    return int(match[1]), int(match[2])
