"""Make a data set of D-SAV360 (Bernal-Berdun et al., ISMAR 2023), in prepare.recordings' layout.

    python -m prepare.d_sav360 --videos dataset/videos --gaze dataset/gaze_data --output DATA

videos has a folder for each video (0001/0001.mp4), gaze_data CSV files with any names, which have
among others the columns

    video, id, t, frame, u, v, fixation, valid_fix_classification

where id is a person's, frames count from 0, and u and v are fractions of width and height from the
upper left corner. As in compute_gt_saliencymaps_DSAV360.py of edurnebernal/D-SAV360, the first
sample of each fixation counts that begins or goes on in the time of a frame, and samples of frame 0
in the middle are no gaze. Frames are kept from the first on, there from the first with gaze.
"""

from common import startup  # noqa: F401  # isort: skip

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from common.errors import run_script
from common.files import reading
from datasets.gaze_files import LIMITS, Gaze, to_angles
from prepare.recordings import VIDEOS, by_key, pair, parse_args, write_dataset, write_gaze_clip
from video.decoding import probe
from video.reader import sampling_step

COLUMNS = ("video", "id", "t", "frame", "u", "v", "fixation", "valid_fix_classification")


def read_samples(path: Path) -> np.ndarray:
    """Return the COLUMNS of a CSV file, (N, 8) float64, in the order of video, person and time.

    Raises InputError for a file without them.
    """

    def number(text: str) -> float:
        return float({"True": "1", "False": "0", "": "nan"}.get(text, text))

    with reading(path, f"expected CSV with the columns {', '.join(COLUMNS)} ({{}}); copy it again"):
        with open(path, encoding="utf-8-sig") as file:
            header = [name.strip() for name in file.readline().split(",")]
            places = [header.index(name) for name in COLUMNS]
            converters: dict[int | str, Callable] = dict.fromkeys(places, number)
            converters[places[1]] = lambda name: float(zlib.crc32(name.encode()))
            rows = np.loadtxt(file, delimiter=",", usecols=places, converters=converters, ndmin=2)
        video, person, time, frame, u, v, *_ = rows.T
        kept = np.isfinite(rows[:, :4]).all(1) & ~((frame == 0) & (u == 0.5) & (v == 0.5))
        order = np.lexsort((time, person, video))
        if (abs(frame[kept]) > LIMITS["frame"][1]).any():
            raise ValueError("a frame that no video has")
        return rows[order[kept[order]]]


def read_gaze(samples: dict[Path, np.ndarray], fps: float, video: Path, tables: list) -> Gaze:
    """Return the fixations of all people. samples: by table. fps: frames a second to keep."""
    rate, number = probe(video).fps, int(video.stem)
    parts = [rows[rows[:, 0] == number] for rows in map(samples.__getitem__, tables)]
    _, person, _, frame, u, v, fixation, valid = np.concatenate(parts).T
    same = np.diff(person) == 0
    same &= np.diff(frame // sampling_step(rate, fps)) == 0  # are in the time of one frame kept
    goes_on = np.append(False, same & (fixation[:-1] == 1))
    shown = (fixation == 1) & ~goes_on & (valid == 1) & (abs(v - 0.5) <= 0.5) & np.isfinite(u)
    columns = (frame + 0.5) / float(rate), *to_angles(u % 1, v), person.astype(np.int64)
    return Gaze(*(column[shown] for column in columns))


def main() -> None:
    inputs = {"videos": "folder of videos, such as 0001/0001.mp4", "gaze": "folder of CSV files"}
    args = parse_args("d_sav360", "D-SAV360's videos and gaze", 5.0, inputs)
    samples = {path: read_samples(path) for path in sorted(args.gaze.rglob("[!.]*.csv"))}
    tables: dict[int, list[Path]] = {}
    for path, rows in samples.items():
        for number in np.unique(rows[:, 0]):
            tables.setdefault(int(number), []).append(path)
    numbered = (path for path in args.videos.rglob("*") if path.stem.isdecimal())
    videos = by_key(numbered, VIDEOS, lambda path: int(path.stem))
    pairs = pair(videos, tables, "0001.mp4, … as the column video has them")
    write_dataset(args, *pairs, partial(write_gaze_clip, partial(read_gaze, samples, args.fps)))


if __name__ == "__main__":
    run_script(main)
