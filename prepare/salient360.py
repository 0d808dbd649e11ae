"""Make a data set of Salient360!, its images or its videos, in the layout of prepare.recordings.

    python -m prepare.salient360 --source Images --output DATA

A folder of Salient360! (Rai et al., David et al., MMSys 2017 and 2018; zenodo.org/records/10650505)
belongs together by the first number in each name:

    Stimuli/P50_2048x1024.jpg                   image; of videos 3_Name.mp4
    HE/SalMaps/HEsalmap_50_2048x1024_32b.bin    float32 map, row by row; of videos one for each
                                                frame, 3_Name_2048x1024x600_32b.bin
    HE/Scanpaths/L/HEscanpath_50.txt            fixations of the left eye, optional, a line each:

    index, longitude, latitude, start in seconds[, duration, first frame, last frame]

Longitude and latitude are fractions of the width from the left and of the height from the top. The
index begins again at 0 with each observer. These are the descriptions that come with the data sets,
readBinarySalmap.py and David-Ef/salient360Toolbox (readOutFile.py); frames are taken to count from
0, which they do not say. Maps are those of head and eyes, of both eyes, as they come. Fixations of
the right eye are left out: they are the same people's.
"""

from common import startup  # noqa: F401  # isort: skip

import re
from pathlib import Path

import numpy as np

from common.errors import InputError, run_script
from common.files import reading
from datasets.gaze import fixation_map
from datasets.gaze_files import LIMITS, Fixations, to_angles
from prepare.recordings import VIDEOS, Truth, by_key, pair, parse_args, write_clip, write_dataset
from video.pictures import PICTURES, resize

CHECKED = 50  # maps of a clip, in which fixations are compared with them
SHAPE = re.compile(r"_(\d+)x(\d+)(?:x(\d+))?_(16|32|64)b")  # width, height, frames and bits


def by_number(folder: Path, pattern: str, suffixes: set[str]) -> dict[int, Path]:
    """Return the files of a folder by the first number in their names."""
    numbered = (path for path in folder.glob(pattern) if re.search(r"\d", path.name))
    return by_key(numbered, suffixes, lambda path: int(re.findall(r"\d+", path.name)[0]))


def read_maps(path: Path) -> np.ndarray:
    """Return the maps in a .bin file without reading them: (N, H, W)."""
    with reading(path, "not the maps that its name states ({}); copy it again"):
        if not (stated := SHAPE.search(path.name)):
            raise ValueError("no size in it, such as _2048x1024_32b")
        width, height, frames, bits = (int(number or 1) for number in stated.groups())
        return np.memmap(path, f"<f{bits // 8}", "r").reshape(frames, height, width)


def read_scanpaths(path: Path) -> tuple[Fixations, np.ndarray]:
    """Return fixations by the frame in which they begin, and (N,) that in which they end."""
    with reading(path, "expected lines 'index, longitude, latitude, start, …' ({}); copy it again"):
        header = not path.read_text(encoding="utf-8")[0].isdigit()
        rows = np.loadtxt(path, delimiter=",", skiprows=int(header), ndmin=2).T
        index, x, y, _ = rows[:4]
        inside = (abs(np.stack([x, y]) - 0.5) <= 0.5).all()
        if not (inside and (abs(rows[5:7]) <= LIMITS["frame"][1]).all()):
            raise ValueError("a fixation is outside the picture, or of a frame that no video has")
        first, last = (rows[5:7] if len(rows) > 4 else np.zeros((2, len(x)))).astype(np.int64) + 1
        observers = np.cumsum(np.diff(index, prepend=np.inf) <= 0)
        return Fixations(first, *to_angles(x, y), observers), last


def check_sides(files: list[Path], maps: np.ndarray, first, last, columns: list) -> None:
    """Raise InputError where the maps fit the fixations better when these are mirrored.

    Some code flips one of both. A fixation fits a map by the value at its place over the mean.
    """
    longitudes, latitudes, _ = columns
    fits = np.zeros(2)
    for number in range(1, len(maps) + 1, max(1, len(maps) // CHECKED)):
        during, saliency = (first <= number) & (number <= last), maps[number - 1]
        here = fixation_map(longitudes[during], latitudes[during], *saliency.shape).numpy()
        if saliency.any():
            fits += [(saliency * side).sum() / saliency.mean() for side in (here, here[:, ::-1])]
    if fits[1] > fits[0]:
        there = "its fixations fit the maps better when mirrored left to right"
        raise InputError(f"{files[1]}: {there}; use maps and fixations of one source")


def write_stimulus(folder: Path, stimulus: Path, files: list[Path], options: dict) -> None:
    """Write the clip of an image or a video; raises as `prepare.recordings.write_clip` does.

    files: that of the maps, and that of the fixations if there is one.
    options: fps, height and width of frames, gt_height of saliency maps.
    """
    maps, scanpaths = read_maps(files[0]), [read_scanpaths(path) for path in files[1:]]
    size = options["gt_height"], 2 * options["gt_height"]

    def truth_of(numbers: np.ndarray, starts: np.ndarray, end: float) -> Truth:
        shown = [int(number) for number in numbers if number <= len(maps)]
        resized = (resize(np.array(maps[number - 1], np.float32), *size) for number in shown)
        for (first, *columns), last in scanpaths:
            check_sides(files, maps, first, last, columns)
            frames, rows = np.nonzero((first <= numbers[:, None]) & (numbers[:, None] <= last))
            fixations = Fixations(frames + 1, *(column[rows] for column in columns))
            return enumerate(resized, 1), fixations, len(rows)
        return enumerate(resized, 1), None, 0

    facts = {"files": [[path.name, path.stat().st_size] for path in files], **options}
    write_clip(folder, stimulus, truth_of, facts)


def main() -> None:
    inputs = {"source": "folder of Stimuli and HE"}
    args = parse_args("salient360", "Salient360!'s images or videos", None, inputs)
    stimuli = by_number(args.source, "Stimuli/[!.]*", VIDEOS | PICTURES)
    maps = by_number(args.source, "HE/SalMaps/[!.]*", {".bin"})
    scanpaths = by_number(args.source, "HE/Scanpaths/L/[!.]*", {".txt", ".csv"})
    if without := [stimuli[n].name for n in stimuli if n in maps and n not in scanpaths]:
        print(f"{len(without)} without fixations in HE/Scanpaths/L: {', '.join(without)}")
    truths = {n: [maps[n], *([scanpaths[n]] if n in scanpaths else [])] for n in maps}
    pairs = pair(stimuli, truths, "by numbers, as P5.jpg and HEsalmap_5_2048x1024_32b.bin")
    write_dataset(args, *pairs, write_stimulus)


if __name__ == "__main__":
    run_script(main)
