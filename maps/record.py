"""saliency.json: which run the maps in a folder are of, whether all are there, and their maxima."""

import os
import shutil
from pathlib import Path

from common.errors import InputError
from common.files import fingerprint, read_json, reading, write_json
from maps.saved import MAP_NAME, map_kinds
from video.decoding import VideoInfo
from video.layout import SPHERE, Layout

RECORD = "saliency.json"
NEW = ".saliency_new"  # folder of the maps that replace others when all of them are there
NORMALISATIONS = {  # what the float maps are, of which each PNG is divided by its maximum
    "max": "each map divided by its maximum",
    "density": "densities per steradian, integral 1 over the sphere; each PNG by its maximum",
}
# Entries in which the maps of one run agree.
SAME_RUN = ("fingerprint", "checkpoint_sha256", "motion", "sampling", "quality", "width", "height",
            "fps", "stereo", "coverage", "normalisation")  # fmt: skip
AGAIN = "delete it and the maps beside it, and run infer_video.py again"


def source_facts(info: VideoInfo) -> dict:
    """Return what saliency.json says about the source of maps."""
    path, layout = info.path, info.layout
    return {
        "video": path.resolve().name,
        "video_bytes": path.stat().st_size if path.is_file() else None,
        "fingerprint": fingerprint(info.files),
        "fps": float(info.fps),
        "width": info.width,
        "height": info.height,
        "stereo": layout.stereo if layout.stereo != "none" else None,
        "coverage": None if layout.whole else list(layout.coverage),
    }


def read_record(folder: Path) -> dict:
    """Return what saliency.json says about the maps in a folder, nothing where there is none.

    Raises InputError for a file that can't be read, and for one that infer_video.py did not write.
    """
    path, none = folder / RECORD, type(None)
    if not path.exists():
        return {}
    kinds = {"frame_count": (int, none), "unreadable": list, "npy": bool, "times": (list, none)}
    record = read_json(path, **kinds)
    with reading(path, "not as infer_video.py wrote it ({}); " + AGAIN):
        Layout(record.get("stereo") or "none", record.get("coverage") or SPHERE)
        peaks = [peak for peak in record.get("peaks", []) if peak is not None]
        if not 0.001 <= record.get("fps", 1) <= 1000 or not all(0 <= p < 1e30 for p in peaks):
            raise ValueError("fps or peaks are out of range")
        if len(record.get("times") or record.get("peaks", [])) != len(record.get("peaks", [])):
            raise ValueError("not as many times as peaks")
    return record


def complete_record(folder: Path, facts: dict) -> dict | None:
    """Return what saliency.json says where all maps of this run are there, else nothing."""
    record = read_record(folder)
    same = all(record.get(key) == facts[key] for key in (*SAME_RUN, "map_width", "map_height"))
    count, peaks = record.get("frame_count"), record.get("peaks", [])
    if not (same and record.get("complete") and len(peaks) == count and "unreadable" in record):
        return None
    if facts["npy"] and not record.get("npy"):
        return None
    readable = [n for n in range(1, count + 1) if n not in record["unreadable"]]
    files = [folder / f"sal_{n:04d}{kind}" for n in readable for kind in map_kinds(record)]
    known = all(peaks[n - 1] is not None for n in readable)
    return record if known and all(path.exists() for path in files) else None


def our_maps(folder: Path, record: dict) -> set[Path]:
    """Return the maps that the run of a record wrote into a folder."""
    kinds, paths = map_kinds(record), folder.glob("sal_*.*") if record else ()
    return {p for p in paths if MAP_NAME.fullmatch(p.name) and p.suffix in kinds}


def working_folder(folder: Path, facts: dict, overwrite: str | None) -> Path:
    """Return where to write maps: `folder`, or NEW in it until maps there can be replaced.

    facts["npy"] is set where the run that is continued saved .npy files.
    Raises InputError for a folder with maps of another run, unless `overwrite`, and for maps that
    infer_video.py did not write.
    """
    new, record = folder / NEW, read_record(folder)
    ours = our_maps(folder, record)
    foreign = our_maps(folder, facts) - ours
    if foreign:
        first = min(foreign)
        raise InputError(f"{first}: not written by infer_video.py; choose another --output_dir")
    differing = [f"{key} {record.get(key)}" for key in SAME_RUN if record.get(key) != facts[key]]
    if overwrite == "other" and not differing:
        overwrite = None
    if ours and differing and not overwrite:
        raise InputError(
            f"{folder}: holds maps of another run ({differing[0]}); choose another --output_dir or "
            "use --overwrite"
        )
    if not overwrite or any(read_record(new).get(key) != facts[key] for key in SAME_RUN):
        shutil.rmtree(new, ignore_errors=True)
    if ours and overwrite:
        new.mkdir(exist_ok=True)
        folder = new
    elif ours:
        facts["npy"] |= record.get("npy", False)
    for partial in folder.glob(".sal_*.partial.*"):  # of a run that was killed
        partial.unlink()
    return folder


def replace_maps(folder: Path, new: Path, facts: dict) -> None:
    """Replace the maps in a folder; an interrupted swap never looks complete."""
    for path in our_maps(folder, read_record(folder)):
        path.unlink()
    write_json(folder / RECORD, facts | {"frame_count": None, "complete": False})
    for path in our_maps(new, facts):
        os.replace(path, folder / path.name)
    os.replace(new / RECORD, folder / RECORD)
    shutil.rmtree(new)
