"""saliency.json: which run the maps in a folder are of, whether all are there, and their maxima."""

import math
import os
import shutil
import sys
from array import array
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import InputError
from common.files import fingerprint, read_json, reading, write_json
from maps.saved import MAP_NAME, holds_map, map_path, read_peak, write_map
from video.decoding import Damage, VideoInfo
from video.layout import SPHERE, Layout

RECORD = "saliency.json"
NEW = ".saliency_new"  # folder of the maps that replace others when all of them are there
NORMALISATIONS = {  # what the float maps are, of which each PNG is divided by its maximum
    "max": "each map divided by its maximum",
    "density": "densities per steradian, integral 1 over the sphere; each PNG by its maximum",
}
MAY_DIFFER = {"video", "model", "checkpoint", "npy"}  # in the maps of one run
READABLE = {"fingerprint": "video", "checkpoint_sha256": "checkpoint"}  # instead of digests
ELSEWHERE = "choose another --output_dir"
RERUN = "delete it and the maps beside it, and run infer_video.py again"


def source_facts(info: VideoInfo, unreadable: Collection[int] = ()) -> dict:
    """Return what saliency.json says about a source, of which some frames can't be read."""
    layout = info.layout
    return {
        "video": info.path.resolve().name,
        "fingerprint": fingerprint(info.files, unreadable),
        "fps": float(info.fps),
        "width": info.width,
        "height": info.height,
        "stereo": layout.stereo if layout.stereo != "none" else None,
        "coverage": None if layout.whole else list(layout.coverage),
    }


def read_record(folder: Path) -> dict:
    """Return what saliency.json says about the maps in a folder, nothing where there is none.

    Raises InputError for a file that infer_video.py can't have written.
    """
    path, none = folder / RECORD, type(None)
    if not path.exists():
        return {}
    record: dict[str, Any] = dict(complete=False, unreadable=[], npy=False, peaks=[], times=None)
    record |= read_json(path, unreadable=list, npy=bool, peaks=list, times=(list, none))
    with reading(path, f"not as infer_video.py wrote it ({{}}); {RERUN}"):
        Layout(record.get("stereo") or "none", record.get("coverage") or SPHERE)
        in_range = 0.001 <= record.get("fps", 1) <= 1000
        in_range &= all(peak is None or 0 <= peak < 1e30 for peak in record["peaks"])
        in_range &= not any(abs(seconds) > 1e9 for seconds in record["times"] or [])
        if not in_range:
            raise ValueError("fps, peaks or times are out of range")
        counts = {len(record["peaks"]), len(record["times"] or record["peaks"])}
        if record["complete"] and counts != {record["frame_count"]}:
            raise ValueError("peaks and times are not those of all frames")
    return record


def differences(record: dict, facts: dict) -> list[str]:
    """Return the entries in which a record is of another run."""
    may_differ = MAY_DIFFER | ({"precision"} if record.get("precision") is None else set())
    return [key for key in facts if key not in may_differ and record.get(key) != facts[key]]


def complete_record(folder: Path, facts: dict) -> dict | None:
    """Return what saliency.json says where all maps of this run are there, else nothing."""
    record = read_record(folder)
    if differences(record, facts) or not record["complete"]:
        return None
    if facts["npy"] and not record["npy"]:
        return None
    numbers = [number for number, peak in enumerate(record["peaks"], 1) if peak is not None]
    paths = [map_path(folder, number, kind) for number in numbers for kind in map_kinds(record)]
    return record if all(map(holds_map, paths)) else None


def map_kinds(facts: dict) -> tuple[str, ...]:
    """Return the endings of the maps of a run."""
    return (".png", ".npy") if facts["npy"] else (".png",)


def our_maps(folder: Path, facts: dict) -> set[Path]:
    """Return the maps in a folder that a run has written or would replace."""
    paths = folder.glob("sal_*.*") if facts else ()
    return {p for p in paths if MAP_NAME.fullmatch(p.name) and p.suffix in map_kinds(facts)}


def working_folder(folder: Path, facts: dict, overwrite: str | None) -> Path:
    """Return where to write maps: `folder`, or NEW in it until maps there can be replaced.

    facts["npy"] is set where the run that is continued saved .npy files. Raises InputError for
    maps of another run, unless `overwrite`, and for files that infer_video.py did not write.
    """
    new, record = folder / NEW, read_record(folder)
    ours, differing = our_maps(folder, record), differences(record, facts)
    foreign = [folder / RECORD] if record and "fingerprint" not in record else []
    foreign += sorted(our_maps(folder, facts) - ours)
    if foreign:
        raise InputError(f"{foreign[0]}: not written by infer_video.py; {ELSEWHERE}")
    if ours and differing and not overwrite:
        key = READABLE.get(differing[0], differing[0])
        was = "not given" if record.get(key) is None else record[key]
        run = f"holds maps of another run ({key} {was})"
        raise InputError(f"{folder}: {run}; {ELSEWHERE} or use --overwrite")
    for partial in folder.glob(".sal_*.partial.*"):  # of a run that was killed
        partial.unlink()
    replacing = ours and (overwrite == "all" or differing)
    if not replacing or differences(read_record(new), facts):
        shutil.rmtree(new, ignore_errors=True)
    if replacing:
        new.mkdir(exist_ok=True)
        return new
    facts["npy"] |= bool(ours) and record["npy"]
    return folder


class MapWriter:
    """Writes the maps of a run and saliency.json; an interrupted run is continued.

    folder: where the maps are in the end. facts: entries of saliency.json that are known before.
    damage: holds the unreadable frames of the source, as they are found.
    done: frames, counted from the first, that have all their maps already.
    """

    def __init__(self, folder: Path, facts: dict, overwrite: str | None, damage: Damage):
        self.folder, self.facts, self.damage = folder, facts, damage
        self.work = working_folder(folder, facts, overwrite)
        self.done, record = 0, read_record(self.work)
        self.peaks = array("f")  # maxima of the maps, by frame: 10 MB for a day of video
        while all(holds_map(map_path(self.work, self.done + 1, k)) for k in map_kinds(facts)):
            self.done += 1
            self.peaks.append(read_peak(map_path(self.work, self.done)))
        if self.done and record.get("precision") is None:  # records without this entry predate it
            if not record["complete"]:
                text = f"maps up to frame {self.done} may be of another precision"
                print(f"note: {folder}: {text} than {facts['precision']}", file=sys.stderr)
            facts["precision"] = None
        write_json(self.work / RECORD, facts | {"frame_count": None, "complete": False})

    def write(self, numbered: tuple[int, np.ndarray]) -> None:
        """Write the map of a frame, (number, (H, W)), if it is not there and the frame readable."""
        number, saliency = numbered
        if number <= self.done or number in self.damage.unreadable:
            return
        as_density = self.facts["normalisation"] == NORMALISATIONS["density"]
        path = map_path(self.work, number)
        peak = write_map(path, saliency, self.facts["npy"], as_density)
        self.peaks.extend([math.nan] * (number - 1 - len(self.peaks)))  # of unreadable frames
        self.peaks.append(peak)

    def finish(self, times: array, source: dict) -> dict:
        """Complete saliency.json and return it.

        times: seconds of all frames. source: source_facts without the unreadable ones.
        """
        count = len(times)
        self.peaks.extend([math.nan] * (count - len(self.peaks)))
        fps = self.facts["fps"]  # at whose multiples most clips' frames are, as stated in files
        steady = all(abs(t - n / fps) < 0.002 or math.isnan(t) for n, t in enumerate(times))
        record = self.facts | source | {
            "frame_count": count,
            "unreadable": sorted(self.damage.unreadable),
            "complete": True,
            "peaks": [None if math.isnan(p) else float(f"{p:.5g}") for p in self.peaks],
            "times": None if steady else [round(t, 4) for t in times],
        }  # fmt: skip
        write_json(self.work / RECORD, record)
        if self.work != self.folder:
            replace_maps(self.folder, self.work, record)
        return record


def replace_maps(folder: Path, new: Path, facts: dict) -> None:
    """Replace the maps in a folder; an interrupted swap never looks complete."""
    for path in our_maps(folder, read_record(folder)):
        path.unlink()
    write_json(folder / RECORD, facts | {"frame_count": None, "complete": False})
    for path in our_maps(new, facts):
        os.replace(path, folder / path.name)
    os.replace(new / RECORD, folder / RECORD)
    shutil.rmtree(new)
