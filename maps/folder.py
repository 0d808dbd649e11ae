"""Folders of maps with their record, saliency.json: run, completeness and maxima."""

import hashlib
import math
import os
import shutil
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import InputError, counted
from common.files import read_array, read_json, reading
from common.records import Record
from maps.saved import MAP_NAME, common_scale, holds_map, map_path, read_peak, write_map
from video.decoding import VideoInfo
from video.layout import SPHERE, Layout
from video.pictures import read_picture
from video.reader import FrameReader

RECORD = "saliency.json"
NEW_MAPS = ".saliency_new"  # folder for new maps until all of them can replace others
NORMALISATIONS = {  # of the float maps; each PNG is divided by its maximum
    "max": "each map divided by its maximum",
    "density": "densities per steradian, integral 1 over the sphere; each PNG by its maximum",
}
CHANGEABLE_FACTS = {"video", "model", "checkpoint", "npy"}  # between the maps of one run
READABLE = {"fingerprint": "video", "checkpoint_sha256": "checkpoint"}  # instead of digests
ADVICE = "choose another --output_dir"
RERUN = "run infer_video.py on this video again"
VIDEO_BLOCK = 1 << 20  # bytes of each part of a video that its fingerprint covers
PICTURE_BLOCK = 4 << 10  # and of each part of one of several pictures


class MapFolder:
    """The maps of a clip in a folder. An interrupted run is continued.

    reader, run: the source, and the entries of saliency.json about the writing run; None for
    reading. stored: content of saliency.json, empty if there is none. done: after `begin`, number
    of frames at the start that have all their maps. Raises InputError like `read_record`.
    """

    def __init__(self, folder: Path, reader: FrameReader | None = None, run: dict | None = None):
        self.folder = self.work = folder
        self.reader: Any = reader
        self.stored = read_record(folder)
        self.done = 0
        source = source_facts(reader.info, self.stored.get("unreadable", ())) if reader else {}
        self.facts = source | (run or {})
        self.record = Record(folder / RECORD, self.facts, CHANGEABLE_FACTS, self.stored)
        self.differing = list(self.record.differences())
        self.peaks = array("f")  # maxima of the maps by frame, 10 MB for a day of video

    @property
    def complete(self) -> bool:
        """Whether all maps of this run exist."""
        if not self.record.done or self.stored["npy"] < self.facts["npy"]:
            return False
        numbers = [n for n, peak in enumerate(self.stored["peaks"], 1) if peak is not None]
        paths = [map_path(self.folder, n, kind) for n in numbers for kind in kinds(self.stored)]
        return all(map(holds_map, paths))

    def begin(self, overwrite: str | None) -> None:
        """Start or continue to write maps in `folder`, or in NEW_MAPS until they replace others.

        facts["npy"] is set if the continued run saved .npy files. Raises InputError for files of
        other programs, and for maps of another run unless `overwrite`.
        """
        new, differing = self.folder / NEW_MAPS, self.differing
        ours = maps_of_run(self.folder, self.stored)
        foreign = [self.folder / RECORD] * (self.stored != {} and "fingerprint" not in self.stored)
        foreign += sorted(maps_of_run(self.folder, self.facts) - ours)
        if foreign:
            raise InputError(f"{foreign[0]}: not written by infer_video.py; {ADVICE}")
        if ours and differing and not overwrite:
            key = READABLE.get(differing[0], differing[0])
            was = "not given" if self.stored.get(key) is None else self.stored[key]
            run = f"contains maps of another run ({key} {was})"
            raise InputError(f"{self.folder}: {run}; {ADVICE} or use --overwrite")
        for partial in self.folder.glob(".sal_*.partial.*"):  # of a run that was killed
            partial.unlink()
        if ours and (overwrite == "all" or differing):
            self.work = new
            self.record = Record(new / RECORD, self.facts, CHANGEABLE_FACTS, read_record(new))
        else:
            self.facts["npy"] |= bool(ours) and self.stored["npy"]
        if self.work != new or self.record.differences():
            shutil.rmtree(new, ignore_errors=True)
        self.work.mkdir(exist_ok=True)
        while all(holds_map(map_path(self.work, self.done + 1, k)) for k in kinds(self.facts)):
            self.done += 1
            self.peaks.append(read_peak(map_path(self.work, self.done)))
        self.record.begin(frame_count=None)

    def write(self, numbered: tuple[int, np.ndarray]) -> None:
        """Write the map of a readable frame, (number, (H, W)), unless it exists."""
        number, saliency = numbered
        if number <= self.done or number in self.reader.damage.unreadable:
            return
        as_density = self.facts["normalisation"] == NORMALISATIONS["density"]
        path = map_path(self.work, number)
        peak = write_map(path, saliency, self.facts["npy"], as_density)
        self.peaks.extend([math.nan] * (number - 1 - len(self.peaks)))  # of unreadable frames
        self.peaks.append(peak)

    def finish(self) -> None:
        """Complete saliency.json after all frames of the source were read."""
        times, unreadable = self.reader.times, sorted(self.reader.damage.unreadable)
        count = len(times)
        self.peaks.extend([math.nan] * (count - len(self.peaks)))
        fps = self.facts["fps"]  # most clips have frames at its multiples, as stated in files
        steady = all(abs(t - n / fps) < 0.002 or math.isnan(t) for n, t in enumerate(times))
        self.facts |= source_facts(self.reader.info, unreadable)
        self.stored = self.record.finish(
            frame_count=count,
            unreadable=unreadable,
            peaks=[None if math.isnan(p) else float(f"{p:.5g}") for p in self.peaks],
            times=None if steady else [round(t, 4) for t in times],
        )
        if self.work != self.folder:
            self._replace()

    def _replace(self) -> None:
        """Replace the maps in the folder; an interrupted swap never looks complete."""
        for path in maps_of_run(self.folder, read_record(self.folder)):
            path.unlink()
        Record(self.folder / RECORD, self.stored, stored={}).begin(frame_count=None)
        for path in maps_of_run(self.work, self.stored):
            os.replace(path, self.folder / path.name)
        os.replace(self.work / RECORD, self.folder / RECORD)
        shutil.rmtree(self.work)

    def read(self) -> Iterator[tuple[int, float, np.ndarray | None]]:
        """Yield number, seconds and map (None if there is none) of each frame.

        Without float maps, a map is the PNG times its maximum. A bad file raises InputError.
        """
        stored = self.stored
        shape, times = (stored["map_height"], stored["map_width"]), stored["times"]
        for number, peak in enumerate(stored["peaks"], 1):
            seconds = times[number - 1] if times else (number - 1) / stored["fps"]
            if peak is None:
                yield number, seconds, None
                continue
            if stored["npy"]:
                path = map_path(self.folder, number, ".npy")
                saliency = read_array(path).astype(np.float32)
            else:
                path = map_path(self.folder, number)
                saliency = read_picture(path, "L") * np.float32(peak / 255)
            if saliency.shape != shape or not 0 <= saliency.min() <= saliency.max() < math.inf:
                raise InputError(f"{path}: the map was changed; delete it, and {RERUN}")
            yield number, seconds, saliency

    def find(self, info: VideoInfo, scale: str) -> dict[int, tuple[Path, float]]:
        """Return the map of each frame of a video by frame number, and the factor for its values.

        Maps without saliency.json are from another program, one for each frame.
        scale: "clip" (one factor for all maps) or "frame".
        Raises InputError for incomplete maps and for maps of another video.
        """
        folder, stored = self.folder, self.stored
        maps = (path for path in folder.glob("sal_*.png") if MAP_NAME.fullmatch(path.name))
        paths = {int(path.stem[4:]): path for path in maps}
        if not paths:
            raise InputError(f"{folder}: no saliency maps (sal_0001.png …) in this folder; {RERUN}")
        if stored and not stored["complete"]:
            raise InputError(f"{folder}: not complete yet; {RERUN} to finish")
        known = stored and fingerprint(info.files, stored["unreadable"])
        if stored and stored.get("fingerprint") != known:
            other = f"these maps are of another video ({stored.get('video')}), not of {info.path}"
            raise InputError(f"{folder}: {other}; {RERUN} or choose its folder")
        frames = len(paths) if stored or not info.frames else info.frames
        if abs(frames - len(paths)) > max(2, len(paths) // 100):  # headers can be wrong
            counts = f"{counted(len(paths), 'map')} for {counted(frames, 'frame')}"
            raise InputError(f"{folder}: {counts}; {RERUN}")
        every = stored["peaks"] if stored else [1.0] * len(paths)
        peaks = {number: peak for number, peak in enumerate(every, 1) if peak is not None}
        if differing := paths.keys() ^ peaks.keys():
            which = "one too many, of" if min(differing) in paths else "no map for"
            raise InputError(f"{folder}: {which} frame {min(differing)}; {RERUN}")
        factors = common_scale(list(peaks.values())) if scale == "clip" else [1.0] * len(peaks)
        return {number: (paths[number], factor) for number, factor in zip(peaks, factors)}


def fingerprint(files: Sequence[Path], without: Collection[int] = ()) -> str:
    """Return a SHA-256 digest of a video's size, beginning, middle and end.

    For several pictures: of name, size, beginning and end of each but the numbers in `without`.
    """
    digest, several = hashlib.sha256(str(len(files)).encode()), len(files) > 1
    length = PICTURE_BLOCK if several else VIDEO_BLOCK
    for number, path in enumerate(files, 1):
        if not path.is_file() or (several and number in without):
            continue
        size = path.stat().st_size
        end = max(0, size - length)
        digest.update(repr((size, *[path.name] * several)).encode(errors="replace"))
        with suppress(OSError), open(path, "rb") as file:  # unreadable files are found later
            for start in [0, end] if several else [0, size // 2, end]:
                file.seek(start)
                digest.update(file.read(length))
    return digest.hexdigest()


def source_facts(info: VideoInfo, unreadable: Collection[int] = ()) -> dict:
    """Return the entries of saliency.json about a source with unreadable frames."""
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
    """Return the content of saliency.json in a folder, {} if there is none.

    Raises InputError for a file that infer_video.py can't have written.
    """
    path, none = folder / RECORD, type(None)
    if not path.exists():
        return {}
    record: dict[str, Any] = dict(complete=False, unreadable=[], npy=False, peaks=[], times=None)
    record |= read_json(path, unreadable=list, npy=bool, peaks=list, times=(list, none))
    cure = "delete it and the maps beside it, and run infer_video.py again"
    with reading(path, f"not written by infer_video.py ({{}}); {cure}"):
        Layout(record.get("stereo") or "none", record.get("coverage") or SPHERE)
        in_range = 0.001 <= record.get("fps", 1) <= 1000
        in_range &= all(peak is None or 0 <= peak < 1e30 for peak in record["peaks"])
        in_range &= not any(abs(seconds) > 1e9 for seconds in record["times"] or [])
        if not in_range:
            raise ValueError("fps, peaks or times are out of range")
        counts = {len(record["peaks"]), len(record["times"] or record["peaks"])}
        if record["complete"] and counts != {record["frame_count"]}:
            raise ValueError("not all frames have peaks and times")
    return record


def kinds(facts: dict) -> tuple[str, ...]:
    """Return the file name suffixes of a run's maps."""
    return (".png", ".npy") if facts["npy"] else (".png",)


def maps_of_run(folder: Path, facts: dict) -> set[Path]:
    """Return the maps in a folder that a run has written or would replace."""
    paths = folder.glob("sal_*.*") if facts else ()
    return {p for p in paths if MAP_NAME.fullmatch(p.name) and p.suffix in kinds(facts)}
