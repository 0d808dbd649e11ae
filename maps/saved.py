"""The saliency maps of a clip as files: sal_0001.png …, and saliency.json, which describes them.

A PNG holds a map divided by its maximum, which is kept in a text chunk called "peak" and in
saliency.json. Beside it may lie sal_0001.npy, the map itself as float32.
"""

import math
import os
import re
import shutil
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from common.errors import InputError, RunError, counted
from common.files import atomic, fingerprint, read_array, read_json, write_array, write_json
from maps.attention import density
from video.decoding import VideoInfo
from video.layout import SPHERE, Layout
from video.pictures import open_picture, read_picture

MAP_NAME = re.compile(r"sal_\d{4,}\.(png|npy)")
RECORD = "saliency.json"
SAME_RUN = ("fingerprint", "checkpoint_sha256", "motion", "sampling", "quality", "width", "height",
            "fps", "stereo", "coverage", "normalisation")  # fmt: skip
PNG_HEADER = 33  # bytes up to the first chunk that may hold a text
NEW = ".saliency_new"  # folder of the maps that replace others when all of them are there


def write_map(path: Path, saliency: np.ndarray, save_npy: bool, as_density: bool = False) -> float:
    """Write a map, (H, W), as an 8-bit PNG and, if wanted, the map itself as float32.

    as_density: make it a density first. The PNG is the map divided by its maximum, which is kept
    in a text chunk called "peak" and returned. Raises RunError for a map that is not finite.
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
        png = cv2.imencode(".png", picture)[1].tobytes()
        text = b"tEXtpeak\0" + f"{peak:.9g}".encode()
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        temporary.write_bytes(png[:PNG_HEADER] + chunk + png[PNG_HEADER:])
    return float(peak)


def read_peak(path: Path) -> float:
    """Return the maximum that a map had before it became a PNG, NaN where it is not known."""
    with open_picture(path) as image:
        peak = float(image.info.get("peak", "nan"))
        return peak if 0 <= peak < 1e30 else math.nan


def read_record(folder: Path) -> dict:
    """Return what saliency.json says about the maps in a folder, nothing where there is none.

    Raises InputError for a file that can't be read, and for one that infer_video.py did not write.
    """
    path, number = folder / RECORD, (int, float)
    if not path.exists():
        return {}
    again = "delete it and the maps beside it, and run infer_video.py again"
    kinds = {"frame_count": (int, type(None)), "unreadable": list, "peaks": list, "fps": number}
    kinds |= {"stereo": (str, type(None)), "coverage": (list, type(None))}
    kinds |= {"npy": bool, "times": (list, type(None))}
    record = read_json(path, **kinds)
    peaks = (peak for peak in record.get("peaks", []) if peak is not None)
    if not 0.001 <= record.get("fps", 1) <= 1000 or not all(
        isinstance(peak, number) and 0 <= peak < 1e30 for peak in peaks
    ):
        raise InputError(f"{path}: fps or peaks are no such numbers; {again}")
    try:
        Layout(record.get("stereo") or "none", record.get("coverage") or SPHERE)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}; {again}") from error
    return record


def our_maps(folder: Path, record: dict) -> set[Path]:
    """Return the maps that the run of a record wrote into a folder."""
    kinds, paths = map_kinds(record), folder.glob("sal_*.*") if record else ()
    return {p for p in paths if MAP_NAME.fullmatch(p.name) and p.suffix in kinds}


def map_kinds(record: dict) -> tuple[str, ...]:
    """Return the endings of the maps of a run; one without "npy" is of a version before."""
    return (".png", ".npy") if record.get("npy", True) else (".png",)


def complete_record(folder: Path, facts: dict) -> dict | None:
    """Return what saliency.json says where all maps of this run are there, else nothing."""
    record = read_record(folder)
    count, peaks, times = (record.get(name) for name in ("frame_count", "peaks", "times"))
    same = all(record.get(key) == facts[key] for key in (*SAME_RUN, "map_width", "map_height"))
    if not (same and record.get("complete") and peaks and record.get("npy", False) >= facts["npy"]):
        return None
    lost = record.get("unreadable")
    if lost is None or not len(peaks) == len(times or peaks) == count:
        return None
    readable = [n for n in range(1, count + 1) if n not in lost]
    numbers = [peaks[n - 1] for n in readable] + [times[n - 1] for n in readable if times]
    known = all(isinstance(number, (int, float)) and abs(number) < 1e30 for number in numbers)
    kinds = map_kinds(record)
    there = all((folder / f"sal_{n:04d}{kind}").exists() for n in readable for kind in kinds)
    return record if known and there else None


def replace_maps(folder: Path, new: Path, facts: dict) -> None:
    """Replace the maps in a folder; one that is killed while it does so leaves no mixture."""
    for path in our_maps(folder, read_record(folder)):
        path.unlink()
    write_json(folder / RECORD, facts | {"frame_count": None, "complete": False})
    for path in our_maps(new, facts):
        os.replace(path, folder / path.name)
    os.replace(new / RECORD, folder / RECORD)
    shutil.rmtree(new)


def read_maps(folder: Path, record: dict) -> Iterator[tuple[int, float, np.ndarray | None]]:
    """Yield the maps that infer_video.py wrote into a folder: the float ones where they are there,
    else the PNG times the maximum of the map, which has 255 steps.

    record: what saliency.json says. Raises InputError for a map that can't be read.
    """
    for number, peak in enumerate(record["peaks"], 1):
        times, path = record.get("times"), folder / f"sal_{number:04d}.png"
        seconds = times[number - 1] if times else (number - 1) / record["fps"]
        if number in record["unreadable"]:
            yield number, seconds, None
        elif record["npy"]:
            yield number, seconds, read_array(path.with_suffix(".npy")).astype(np.float32)
        else:
            yield number, seconds, read_picture(path, "L") * np.float32(peak / 255)


def find_maps(
    folder: Path, info: VideoInfo, record: dict, scale: str
) -> dict[int, tuple[Path, float]]:
    """Return the map of each frame of the video by its number, and the factor for its values.

    record: what saliency.json says. scale: "clip" (one for all maps) or "frame".
    Raises InputError for maps that are incomplete or of another video.
    """
    again = "run infer_video.py on this video again"
    found = len(list(folder.glob("sal_*.png")))
    if not found:
        raise InputError(f"{folder}: no saliency maps (sal_0001.png …) in this folder; {again}")
    count, unreadable, maps = found, [], counted(found, "map")
    if record:
        if not record.get("complete"):
            raise InputError(f"{folder}: not complete yet; {again} to finish")
        here = {"width": info.width, "height": info.height}
        if "fingerprint" in record:  # there since maps of equal size were once mixed up
            here["fingerprint"] = fingerprint(info.files)
        else:
            here["video_bytes"] = None if info.path.is_dir() else info.path.stat().st_size
        for name, value in here.items():
            if record.get(name) != value:
                raise InputError(
                    f"{folder}: these maps are of another video, {record.get('video')} ({name} "
                    f"{record.get(name)}, for {info.path} {value}); {again} or choose its folder"
                )
        count, unreadable = record.get("frame_count") or found, record.get("unreadable", [])
        frames = counted(count, "frame")
        if count - found > len(unreadable):
            raise InputError(f"{folder}: {maps} for {frames}; {again} to finish")
    elif info.frames and abs(info.frames - found) > max(2, info.frames // 100):  # headers err
        frames = counted(info.frames, "frame")
        raise InputError(f"{folder}: {maps}, {info.path} has {frames}; {again}")
    numbers = [n for n in range(1, count + 1) if n not in unreadable]
    paths = [folder / f"sal_{number:04d}.png" for number in numbers]
    for number, path in zip(numbers, paths):
        if not path.exists():
            raise InputError(f"{folder}: no map for frame {number} of {count}; {again} to finish")
    if found > count:
        raise InputError(f"{folder}: {maps} for {frames}; {again}")
    factors, peaks = [1.0] * len(numbers), record.get("peaks", [])
    if scale == "clip" and record:
        if len(peaks) == count and all(peaks[n - 1] is not None for n in numbers):
            factors = common_scale([peaks[n - 1] for n in numbers])
        else:  # of an older version
            lost = f"saliency.json has no maxima; each map is shown on its own scale; {again}"
            print(f"note: {folder}: {lost}", file=sys.stderr)
    return dict(zip(numbers, zip(paths, factors)))


def common_scale(peaks: list[float]) -> list[float]:
    """Return the factor for each map of a clip that brings all of them to one scale.

    peaks: the maxima by which the maps were divided. The scale ends at their 95th percentile, so
    that a few hot moments do not fade all others; beyond it, maps are cut off.
    """
    return (np.array(peaks) / (np.percentile(peaks, 95) or 1.0)).tolist()
