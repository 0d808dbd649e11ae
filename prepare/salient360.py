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

import math
import re
from pathlib import Path

import numpy as np

from common.errors import InputError, RunError, run_script
from common.files import reading, write_array
from datasets.gaze_files import Fixations, write_fixations_csv
from prepare.recordings import VIDEOS, dataset_parser, write_dataset
from prepare.records import begin_clip, finish_clip, save_picture, to_picture
from video.pictures import PICTURES, resize
from video.reader import read_frames, sampling_step
from video.spec import Spec

SHAPE = re.compile(r"_(\d+)x(\d+)(?:x(\d+))?_(16|32|64)b")  # width, height, frames and bits


def by_number(folder: Path, pattern: str, suffixes: set[str]) -> dict[int, Path]:
    """Return the files of a folder by the first number in their names."""
    files: dict[int, Path] = {}
    for path in sorted(path for path in folder.glob(pattern) if path.suffix.lower() in suffixes):
        number = re.search(r"\d+", path.name)
        if number and (other := files.setdefault(int(number[0]), path)) != path:
            raise InputError(f"{path} and {other}: have one number; move one elsewhere")
    return files


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
        if not (abs(np.stack([x, y]) - 0.5) <= 0.5).all():
            raise ValueError("a fixation is outside the picture")
        first, last = (rows[5:7] if len(rows) > 4 else np.zeros((2, len(x)))).astype(np.int64) + 1
        observers = np.cumsum(np.diff(index, prepend=np.inf) <= 0)
        return Fixations(first, (x - 0.5) * 2 * math.pi, (0.5 - y) * math.pi, observers), last


def write_clip(
    folder: Path, stimulus: Path, bin_file: Path, scanpath: Path | None, options: dict
) -> None:
    """Write one clip, unless it is complete and made from the same files with the same options.

    options: fps, height and width of frames, gt_height of saliency maps.
    Raises InputError for unusable files, and RunError for a video with damaged frames.
    """
    files = [path for path in (stimulus, bin_file, scanpath) if path]
    facts = {"files": [[path.name, path.stat().st_size] for path in files], **options}
    maps, scanpaths = read_maps(bin_file), read_scanpaths(scanpath) if scanpath else None
    if not begin_clip(folder, facts):
        return
    reader = read_frames(stimulus, Spec(options["height"], options["width"], options["fps"]))
    size, numbers = (options["gt_height"], 2 * options["gt_height"]), []
    for number, frame in enumerate(reader, 1):
        numbers.append(frame.number)
        save_picture(folder / f"{number:04d}.jpg", to_picture(frame.rgb), quality=92)
        if frame.number <= len(maps):
            truth = resize(np.array(maps[frame.number - 1], np.float32), *size)
            write_array(folder / f"{number:04d}_gt.npy", truth)
    facts |= {"frames": len(numbers), "fixations": 0}
    if scanpaths:
        (first, *columns), last, shown = *scanpaths, np.array(numbers)[:, None]
        frames, rows = np.nonzero((first <= shown) & (shown <= last))
        fixations = Fixations(frames + 1, *(column[rows] for column in columns))
        write_fixations_csv(folder / "fixations.csv", fixations)
        facts["fixations"] = len(rows)
    rate = float(reader.info.fps / sampling_step(reader.info.fps, options["fps"]))
    finish_clip(folder, facts | {"samples": facts["fixations"], "rate": rate})
    if damage := str(reader.damage):
        raise RunError(f"{stimulus}: {damage}")


def main() -> None:
    parser = dataset_parser("salient360", "Salient360!'s images or videos", sigma=None)
    parser.add_argument("--source", type=Path, required=True, help="folder of Stimuli and HE")
    args = parser.parse_args()
    stimuli = by_number(args.source, "Stimuli/[!.]*", VIDEOS | PICTURES)
    maps = by_number(args.source, "HE/SalMaps/[!.]*", {".bin"})
    scanpaths = by_number(args.source, "HE/Scanpaths/L/[!.]*", {".txt", ".csv"})
    if not (both := sorted(stimuli.keys() & maps.keys())):
        found = f"{len(stimuli)} stimuli and {len(maps)} files of maps"
        raise InputError(f"{args.source}: {found}, none of the same number; check the path")
    if without := [stimuli[n].name for n in both if n not in scanpaths]:
        print(f"{len(without)} without fixations in HE/Scanpaths/L: {', '.join(without)}")
    alone = [path.name for n, path in (stimuli | maps).items() if n not in both]
    clips = {stimuli[n].stem: (stimuli[n], maps[n], scanpaths.get(n)) for n in both}
    write_dataset(args, clips, alone, write_clip)


if __name__ == "__main__":
    run_script(main)
