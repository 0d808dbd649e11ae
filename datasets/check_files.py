"""What one file of a data set looks like, without decoding it where that can be avoided.

The header of a picture tells its size, the last bytes whether it is whole. Only a file that is
small enough to be a constant picture is decoded (see SMALL). Damage inside a file that keeps its
beginning and its end is met only by whoever decodes it.
"""

import math
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy
from PIL import Image, UnidentifiedImageError

from datasets.layouts import File
from video.reader import read_picture

# Bytes of a picture over those of its pixels, headers left out. A constant one has at most 0.012
# in JPEG (grey: 6 bits for each 8×8 block; 0.0091 in colour without subsampling) and 0.009 in PNG,
# where it is compressed at all; one grey level of noise makes it 0.018 in JPEG of quality 95.
# Photographic panoramas of 960×480 have 0.02 (quality 50) to 0.15 (95), in PNG 0.38 to 0.6.
SMALL = 0.02
TABLES = 1024  # more, for what lies between the scans of a progressive JPEG
FAINT = 4  # of 255 levels: a frame with no more contrast in any channel shows nothing
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"\x00\x00\x00\x00IEND\xaeB`\x82"}
TAIL = 1024  # bytes in which the end marker is looked for; some writers pad


class Seen(NamedTuple):
    """What a file looks like. size: height and width; None where it can't be used at all."""

    path: Path
    size: tuple[int, int] | None
    wrong: tuple[str, str] | None = None  # kind and detail

    @classmethod
    def through(cls, look: Callable[[Path], tuple], path: Path | None) -> "Seen | None":
        if path is None:
            return None
        try:
            if path.stat().st_size == 0:
                return cls(path, None, ("empty", "0 bytes"))
            return cls(path, *look(path))
        except UnidentifiedImageError:
            return cls(path, None, ("unreadable", "no picture of a known format"))
        except Exception as error:  # a broken file can fail in any way; that is what is reported
            detail = " ".join((str(error.__cause__ or error) or type(error).__name__).split())
            kind = "truncated" if re.search("truncated|^EOF", detail, re.I) else "unreadable"
            return cls(path, None, (kind, detail))


class Look(NamedTuple):
    """A frame with what belongs to it."""

    frame: Seen
    truth: Seen | None
    flow: Seen | None

    @classmethod
    def at(cls, file: File) -> "Look":
        is_array = file.truth is not None and file.truth.suffix == ".npy"
        return cls(
            Seen.through(partial(_look_at_picture, flaw=_frame_flaw), file.picture),
            Seen.through(
                _look_at_array if is_array else partial(_look_at_picture, flaw=_map_flaw),
                file.truth,
            ),
            Seen.through(partial(_look_at_picture, flaw=_no_flaw), file.flow),
        )

    @property
    def usable(self) -> bool:
        return bool(self.frame.size and self.truth and not self.truth.wrong)


def _look_at_picture(path: Path, flaw: Callable[[Path], tuple | None]) -> tuple:
    """Size, and what is wrong. flaw: decodes a picture that may be constant, or of no known end."""
    with open(path, "rb") as file, Image.open(file) as image:
        size, end = (image.height, image.width), ENDS.get(image.format)
        uncompressed = image.height * image.width * len(image.getbands())
        header = file.tell()  # PIL has read up to the first pixels
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - TAIL))
        whole = end is not None and end in file.read()
    if whole and SMALL * uncompressed + TABLES < length - header < uncompressed:
        return size, None
    if end and not whole:
        if end not in path.read_bytes():
            return None, ("truncated", f"{length} bytes without the end of a {image.format} file")
        read_picture(path)  # more than padding follows: harmless if it decodes
    return size, flaw(path)


def _frame_flaw(path: Path) -> tuple[str, str] | None:
    """Decodes an eighth of the size where the format can, and the whole only if that is faint."""
    for scale in (8, 1):
        with Image.open(path) as image:
            image.draft("RGB", (max(1, image.width // scale), max(1, image.height // scale)))
            ranges = image.convert("RGB").getextrema()
        if max(high - low for low, high in ranges) > FAINT:
            return None
    levels = ", ".join(f"{low} to {high}" for low, high in ranges)
    return "constant", f"red, green and blue are {levels} of 255"


def _no_flaw(path: Path) -> None:
    read_picture(path)


def _map_flaw(path: Path) -> tuple[str, str] | None:
    values = read_picture(path)[..., 0]
    return _flaw_of_range(values.min(), values.max())


def _look_at_array(path: Path) -> tuple:
    """Size of the map in a .npy file, and what is wrong with it."""
    with open(path, "rb") as file:
        headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, _, dtype = headers[npy.read_magic(file)](file)
        size = tuple(n for n in shape if n != 1)
        if len(size) != 2 or min(size) < 1 or dtype.kind not in "fiu":
            return None, ("mismatched", f"{shape} of {dtype} is no map (H, W)")
        expected = math.prod(shape) * dtype.itemsize
        there = os.fstat(file.fileno()).st_size - file.tell()
        if there < expected:
            return None, ("truncated", f"{there} of {expected} bytes of {shape} {dtype}")
        values = np.fromfile(file, dtype, math.prod(shape))
    return size, _flaw_of_range(values.min(), values.max())


def _flaw_of_range(low, high) -> tuple[str, str] | None:
    with np.errstate(over="ignore"):
        low, high = np.float32(low), np.float32(high)  # as training takes them
    if not (np.isfinite(low) and np.isfinite(high)):
        return "not finite", "NaN or infinite values"
    if low < 0:
        return "negative", f"values down to {low:g}"
    return ("constant", f"all values are {high:g}") if low == high else None
