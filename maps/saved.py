"""The saliency maps of a clip as files: sal_0001.png …

A PNG contains a map divided by its maximum, which is stored in a text chunk called "peak" and in
saliency.json. Optionally, sal_0001.npy contains the map itself as float32.
"""

import math
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from common.errors import RunError
from common.files import atomic, write_array
from maps.attention import density
from video.pictures import open_picture

MAP_NAME = re.compile(r"sal_\d{4,}\.(png|npy)")
PNG_HEADER = 33  # bytes before the first chunk that may contain a text
# Differences to the row above make files smaller and faster to read; old OpenCVs lack the option.
HAS_FILTERS = hasattr(cv2, "IMWRITE_PNG_FILTER")
PNG_OPTIONS = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP] if HAS_FILTERS else []


def write_map(path: Path, saliency: np.ndarray, save_npy: bool, as_density: bool = False) -> float:
    """Write a map, (H, W), as PNG and optionally as float32, and return its maximum."""
    if not np.isfinite(saliency).all():
        raise RunError(f"{path}: the model's map is not finite; use fp32 or another checkpoint")
    if as_density:
        saliency = density(saliency)
    peak = saliency.max()
    if save_npy:
        write_array(path.with_suffix(".npy"), saliency)
    with atomic(path, durable=False) as temporary:
        picture = np.rint(saliency * (255 / peak if peak > 0 else 0)).astype(np.uint8)
        png = cv2.imencode(".png", picture, PNG_OPTIONS)[1].tobytes()
        text = b"tEXtpeak\0" + f"{peak:.9g}".encode()
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        temporary.write_bytes(png[:PNG_HEADER] + chunk + png[PNG_HEADER:])
    return float(peak)


def read_peak(path: Path) -> float:
    """Return the maximum of a map before it was written as a PNG, NaN if unknown."""
    with open_picture(path) as image:
        peak = float(image.info.get("peak", "nan"))
        return peak if 0 <= peak < 1e30 else math.nan


def map_path(folder: Path, number: int, kind: str = ".png") -> Path:
    return folder / f"sal_{number:04d}{kind}"


def holds_map(path: Path) -> bool:
    """Return whether a map exists; after a power cut, a file can be empty."""
    return path.is_file() and path.stat().st_size > 0


def common_scale(peaks: list[float]) -> list[float]:
    """Return factors for one scale, which ends at the 95th percentile of the maps' maxima."""
    maxima = np.array(peaks, np.float64)
    return (maxima / (np.percentile(maxima, 95) or 1.0)).tolist()
