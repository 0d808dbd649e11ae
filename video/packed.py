"""Packed clips: all frames of a clip at a model's size in one memory-mapped file.

The file is an array of records in NumPy's format, one for each frame, ordered by number:

    number   int64, of the frame
    has      (3,) bool: existing PARTS
    map      (h, w) float32, its saliency map
    picture  (3, H, W) uint8 RGB
    flow     (3, H, W) uint8 RGB, only if the clip has flow

In paths, the file is like a folder: <clip>/packed.npy/0001_picture, …, 0001_map and 0001_flow.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from common.errors import InputError
from common.files import reading

PACKED = "packed.npy"
PARTS = ("map", "picture", "flow")


def record_type(map_size: tuple, size: tuple, flow: bool) -> np.dtype:
    """Return the type of a record. map_size: (h, w); size: (H, W)."""
    pictures = [(part, "u1", (3, *size)) for part in PARTS[1 : 2 + flow]]
    return np.dtype([("number", "<i8"), ("map", "<f4", map_size), *pictures, ("has", "?", 3)])


@lru_cache(4096)
def open_packed(path: Path) -> tuple[np.ndarray, dict[int, int]]:
    """Return the records of a packed clip, not read yet, and the row of each frame's number.

    Raises InputError for any other file.
    """
    # Mapped as private, since torch warns of tensors on read-only pages.
    with reading(path, "not a packed clip ({}); delete it and pack the data set again"):
        records = np.load(path, mmap_mode="c", allow_pickle=False)
        kind = records.dtype
        if kind != record_type(kind["map"].shape, kind["picture"].shape[1:], "flow" in kind.names):
            raise ValueError(f"its records are {kind}")
        rows = {number: row for row, number in enumerate(records["number"].tolist())}
        return np.asarray(records), rows


def is_packed(path: Path) -> bool:
    return path.parent.name == PACKED


def packed_part(path: Path) -> np.ndarray | None:
    """Return a part of a packed frame, not read yet, None where it does not have it."""
    records, rows = open_packed(path.parent)
    number, _, part = path.name.partition("_")
    record = records[rows[int(number)]]
    return record[part] if record["has"][PARTS.index(part)] else None


def read_packed(path: Path) -> np.ndarray:
    """Return a part of a packed frame: (H, W, 3) uint8, of a map (h, w) float32.

    Raises InputError where the original was unreadable.
    """
    if (part := packed_part(path)) is None:
        raise InputError(f"{path}: its original was unreadable; make it and the packed clip again")
    return part if part.ndim == 2 else part.transpose(1, 2, 0)
