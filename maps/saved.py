"""The saliency maps of a clip as files: sal_0001.png …

A PNG holds a map divided by its maximum, which is kept in a text chunk called "peak" and in
saliency.json. Beside it may lie sal_0001.npy, the map itself as float32.
"""

import math
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from common.errors import InputError, RunError, counted
from common.files import atomic, fingerprint, read_array, write_array
from maps.attention import density
from video.decoding import VideoInfo
from video.pictures import open_picture, read_picture

RERUN = "run infer_video.py on this video again"
MAP_NAME = re.compile(r"sal_\d{4,}\.(png|npy)")
PNG_HEADER = 33  # bytes up to the first chunk that may hold a text
# Differences to the row above make smaller files, faster to read; old OpenCVs have no such option.
HAS_FILTERS = hasattr(cv2, "IMWRITE_PNG_FILTER")
FILTER = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP] if HAS_FILTERS else []


def write_map(path: Path, saliency: np.ndarray, save_npy: bool, as_density: bool = False) -> float:
    """Write a map, (H, W), as a PNG and, if wanted, as float32, and return its maximum.

    as_density: make it a density first. Raises RunError for a map that is not finite.
    """
    if not np.isfinite(saliency).all():
        cure = "use precision fp32 or another checkpoint"
        raise RunError(f"{path}: the model's map is not finite; {cure}")
    if as_density:
        saliency = density(saliency)
    peak = saliency.max()
    if save_npy:
        write_array(path.with_suffix(".npy"), saliency)
    with atomic(path, durable=False) as temporary:
        picture = np.rint(saliency * (255 / peak if peak > 0 else 0)).astype(np.uint8)
        png = cv2.imencode(".png", picture, FILTER)[1].tobytes()
        text = b"tEXtpeak\0" + f"{peak:.9g}".encode()
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        temporary.write_bytes(png[:PNG_HEADER] + chunk + png[PNG_HEADER:])
    return float(peak)


def read_peak(path: Path) -> float:
    """Return the maximum of a map before it became a PNG, NaN where it is not known."""
    with open_picture(path) as image:
        peak = float(image.info.get("peak", "nan"))
        return peak if 0 <= peak < 1e30 else math.nan


def map_path(folder: Path, number: int, kind: str = ".png") -> Path:
    return folder / f"sal_{number:04d}{kind}"


def holds_map(path: Path) -> bool:
    """Return whether there is a map; after a power cut, a file may have no content."""
    return path.is_file() and path.stat().st_size > 0


def read_maps(folder: Path, record: dict) -> Iterator[tuple[int, float, np.ndarray | None]]:
    """Yield number, seconds and map of each frame, None for none, from a folder of infer_video.py.

    record: content of saliency.json. Without float maps, a map is the PNG times its maximum.
    Raises InputError for a file that can't be read or is no map.
    """
    shape, times = (record["map_height"], record["map_width"]), record["times"]
    for number, peak in enumerate(record["peaks"], 1):
        seconds = times[number - 1] if times else (number - 1) / record["fps"]
        if peak is None:
            yield number, seconds, None
            continue
        if record["npy"]:
            path = map_path(folder, number, ".npy")
            saliency = read_array(path).astype(np.float32)
        else:
            path = map_path(folder, number)
            saliency = read_picture(path, "L") * np.float32(peak / 255)
        if saliency.shape != shape or not 0 <= saliency.min() <= saliency.max() < math.inf:
            raise InputError(f"{path}: no longer the map that was written; delete it, and {RERUN}")
        yield number, seconds, saliency


def find_maps(
    folder: Path, info: VideoInfo, record: dict, scale: str
) -> dict[int, tuple[Path, float]]:
    """Return the map of each frame of the video by its number, and the factor for its values.

    record: what saliency.json says; empty for maps of another program, one for each frame.
    scale: "clip" (one for all maps) or "frame".
    Raises InputError for maps that are incomplete or of another video.
    """
    maps = (path for path in folder.glob("sal_*.png") if MAP_NAME.fullmatch(path.name))
    paths = {int(path.stem[4:]): path for path in maps}
    if not paths:
        raise InputError(f"{folder}: no saliency maps (sal_0001.png …) in this folder; {RERUN}")
    if record and not record["complete"]:
        raise InputError(f"{folder}: not complete yet; {RERUN} to finish")
    times = "precision" not in record  # records without this entry predate digests of pictures
    if record and record.get("fingerprint") != fingerprint(info.files, record["unreadable"], times):
        other = f"these maps are of another video ({record.get('video')}), not of {info.path}"
        raise InputError(f"{folder}: {other}; {RERUN} or choose its folder")
    frames = len(paths) if record or not info.frames else info.frames
    if abs(frames - len(paths)) > max(2, len(paths) // 100):  # headers err
        counts = f"{counted(len(paths), 'map')} for {counted(frames, 'frame')}"
        raise InputError(f"{folder}: {counts}; {RERUN}")
    peaks = record["peaks"] if record else [1.0] * len(paths)
    known = {number: peak for number, peak in enumerate(peaks, 1) if peak is not None}
    if differing := paths.keys() ^ known.keys():
        which = "one too many, of" if min(differing) in paths else "no map for"
        raise InputError(f"{folder}: {which} frame {min(differing)}; {RERUN}")
    factors = common_scale(list(known.values())) if scale == "clip" else [1.0] * len(known)
    return {number: (paths[number], factor) for number, factor in zip(known, factors)}


def common_scale(peaks: list[float]) -> list[float]:
    """Return the factor for each map of a clip that brings all of them to one scale.

    peaks: the maxima by which the maps were divided. The scale ends at their 95th percentile, so
    that a few hot moments do not fade all others.
    """
    maxima = np.array(peaks, np.float64)
    return (maxima / (np.percentile(maxima, 95) or 1.0)).tolist()
