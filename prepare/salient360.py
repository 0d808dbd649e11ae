"""Convert Salient360! images or videos to the layout of prepare.recordings.

    python -m prepare.salient360 --source Images --output DATA

The files of Salient360! (Rai et al. 2017, David et al. 2018; zenodo.org/records/10650505) are
matched by the first number in their names:

    Stimuli/P50_2048x1024.jpg                   image; of videos 3_Name.mp4
    HE/SalMaps/HEsalmap_50_2048x1024_32b.bin    float32 map, row by row; of videos one for each
                                                frame, 3_Name_2048x1024x600_32b.bin
    HE/Scanpaths/L/HEscanpath_50.txt            fixations of the left eye, optional, a line each:

    index, longitude, latitude, start in seconds[, duration, first frame, last frame]

Longitude and latitude are fractions of the width from the left and of the height from the top. The
index restarts at 0 for each observer. These are the descriptions that come with the data sets,
readBinarySalmap.py and David-Ef/salient360Toolbox (readOutFile.py); frames are taken to count from
0, which they do not say. Maps are used unchanged, for head and eyes, both eyes. Fixations of the
right eye are left out, because they are from the same people.
"""

from common import startup  # noqa: F401  # isort: skip

import math
import re
import sys
from pathlib import Path

import numpy as np
import torch

from common.errors import InputError, run_script
from common.files import reading
from datasets.gaze import fixation_map
from datasets.gaze_files import LIMITS, Fixations, read_lines, to_angles
from prepare import recordings
from prepare.recordings import VIDEO_SUFFIXES, Truth, by_key, parse_args, write_clip, write_dataset
from video.pictures import PICTURES, resize

CHECKED_FRAMES = 50  # frames of a clip whose fixations are compared with their maps
MIRRORED = 1.1  # ratio of saliency at mirrored fixations above which they count as exchanged
SHAPE = re.compile(r"_(\d+)x(\d+)(?:x(\d+))?_(16|32|64)b")  # width, height, frames and bits


def by_number(folder: Path, pattern: str, suffixes: set[str]) -> dict[int, Path]:
    """Return the files of a folder by the first number in their names."""
    numbered = (path for path in folder.glob(pattern) if re.search(r"\d", path.name))
    return by_key(numbered, suffixes, lambda path: int(re.findall(r"\d+", path.name)[0]))


def read_maps(path: Path) -> np.ndarray:
    """Return the maps in a .bin file as a memory map: (N, H, W)."""
    with reading(path, "not the maps stated in its name ({}); copy it again"):
        if not (stated := SHAPE.search(path.name)):
            raise ValueError("the name has no size such as _2048x1024_32b")
        width, height, frames, bits = (int(number or 1) for number in stated.groups())
        return np.memmap(path, f"<f{bits // 8}", "r").reshape(frames, height, width)


def read_scanpaths(path: Path) -> tuple[Fixations, np.ndarray]:
    """Return fixations by the frame of their start, and the frames of their ends, (N,)."""

    def parse(line: str) -> list[float]:
        values = [float(field) for field in line.split(",")]
        if not (abs(np.array(values[1:3]) - 0.5) <= 0.5).all():
            raise ValueError("a fixation is outside the picture")
        if not (np.abs(values[5:7]) <= LIMITS["frame"][1]).all():
            raise ValueError("a frame that no video has")
        return values

    with reading(path, "expected lines 'index, longitude, latitude, start, …' ({}); copy it again"):
        header = not path.read_text(encoding="utf-8").lstrip()[:1].isdigit()
        read, problems = read_lines(path, parse, skip=header)
        rows = np.array(read).T
        index, x, y, _ = rows[:4]
        first, last = (rows[5:7] if len(rows) > 4 else np.zeros((2, len(x)))).astype(np.int64) + 1
        observers = np.cumsum(np.diff(index, prepend=np.inf) <= 0)
        return Fixations(first, *to_angles(x, y), observers, problems), last


def check_mirrored(path: Path, fixations: Fixations, maps: np.ndarray, numbers: np.ndarray) -> None:
    """Raise InputError if mirrored fixations fit maps better. numbers: of maps, by frame."""
    sums = dict.fromkeys(("", "left and right", "top and bottom"), 0.0)
    watched = np.unique(fixations.frames)
    watched = watched[numbers[watched - 1] <= len(maps)]
    for frame in watched[:: math.ceil(len(watched) / CHECKED_FRAMES) or 1].tolist():
        saliency = torch.from_numpy(np.array(maps[int(numbers[frame - 1]) - 1], np.float32))
        counts = fixation_map(*fixations.at(frame), *saliency.shape)
        for name, flipped in zip(sums, (counts, counts.flip(1), counts.flip(0))):
            sums[name] += float((flipped * saliency).sum() / saliency.mean().clamp(min=1e-12))
    better = max(sums, key=sums.__getitem__)
    if len(fixations.frames) >= recordings.MIN_SAMPLES and sums[better] > MIRRORED * sums[""]:
        problem = f"its fixations fit the maps better with {better} exchanged"
        raise InputError(f"{path}: {problem}; exchange them in the file, or leave the file out")


def write_stimulus(folder: Path, stimulus: Path, files: list[Path], options: dict) -> None:
    """Write the clip of an image or a video. files: of its maps, and of its fixations, if any."""
    maps, scanpaths = read_maps(files[0]), [read_scanpaths(path) for path in files[1:]]
    size = options["gt_height"], 2 * options["gt_height"]

    def truth_of(numbers: np.ndarray, starts: np.ndarray, end: float) -> Truth:
        shown = [int(number) for number in numbers if number <= len(maps)]
        resized = (resize(np.array(maps[number - 1], np.float32), *size) for number in shown)
        for read, last in scanpaths:
            active = (read.frames <= numbers[:, None]) & (numbers[:, None] <= last)
            frames, rows = np.nonzero(active)
            places = read.longitudes[rows], read.latitudes[rows]
            fixations = Fixations(frames + 1, *places, read.observers[rows])
            check_mirrored(files[1], fixations, maps, numbers)
            return enumerate(resized, 1), fixations, len(rows)
        return enumerate(resized, 1), None, 0

    for read, _ in scanpaths:
        for note in read.problems[:1]:
            print(f"note: {len(read.problems)} invalid lines left out: {note}", file=sys.stderr)
    facts = {"files": [[path.name, path.stat().st_size] for path in files], **options}
    write_clip(folder, stimulus, truth_of, facts)


def main() -> None:
    inputs = {"source": "folder that contains Stimuli and HE"}
    args = parse_args("salient360", "Salient360!'s images or videos", None, inputs)
    inner = [path.parent for path in args.source.rglob("Stimuli")]
    if len(inner) == 1:  # possibly one folder deeper
        args.source = inner[0]
    stimuli = by_number(args.source, "Stimuli/[!.]*", VIDEO_SUFFIXES | PICTURES)
    maps = by_number(args.source, "HE/SalMaps/[!.]*", {".bin"})
    scanpaths = by_number(args.source, "HE/Scanpaths/L/[!.]*", {".txt", ".csv"})
    if without := [stimuli[n].name for n in stimuli if n in maps and n not in scanpaths]:
        print(f"{len(without)} without fixations in HE/Scanpaths/L: {', '.join(without)}")
    truths = {n: [maps[n], *([scanpaths[n]] if n in scanpaths else [])] for n in maps}
    expected = "with numbers like P5.jpg and HEsalmap_5_2048x1024_32b.bin"
    write_dataset(args, stimuli, truths, expected, write_stimulus)


if __name__ == "__main__":
    run_script(main)
