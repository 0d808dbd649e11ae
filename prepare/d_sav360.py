"""Convert D-SAV360 (Bernal-Berdun et al., ISMAR 2023) to the layout of prepare.recordings.

    python -m prepare.d_sav360 --videos dataset/videos --gaze dataset/gaze_data --output DATA

videos has a folder for each video (0001/0001.mp4), gaze_data has CSV files with any names, with the
columns

    video, id, t, frame, u, v, fixation, valid_fix_classification

where id is that of a person, frames count from 0, and u and v are fractions of width and height
from the upper left corner. As in compute_gt_saliencymaps_DSAV360.py of edurnebernal/D-SAV360, the
first sample of a fixation within the time of a frame counts, and samples of frame 0 in the centre
are not gaze. Frames are kept from the first one; in that script, from the first one with gaze.
"""

from common import startup  # noqa: F401  # isort: skip

import zlib
from functools import partial
from pathlib import Path

import numpy as np

from common.errors import run_script
from datasets.gaze_files import Gaze, number, read_table, to_angles
from prepare.recordings import VIDEO_SUFFIXES, by_key, parse_args, write_dataset, write_gaze_clip
from video.decoding import probe
from video.reader import sampling_step

COLUMNS = ("video", "id", "t", "frame", "u", "v", "fixation", "valid_fix_classification")
FLAGS = {"True": "1", "False": "0", "": "0"}


def read_samples(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the COLUMNS of a CSV file, (N, 8) float64 in order of time, and its invalid lines."""

    def parse(columns: tuple[str, ...], fields: dict[str, str]) -> list[float]:
        flags = [float(FLAGS.get(fields[name], fields[name])) for name in COLUMNS[6:]]
        seen = flags == [1, 1]  # otherwise gaze may be missing
        place = [number(n, fields[n]) if seen else float(fields[n] or "nan") for n in "uv"]
        time, person = number("time", fields["t"]), zlib.crc32(fields["id"].encode())
        video, frame = (number(name, fields[name]) for name in ("video", "frame"))
        return [video, person, time, frame, *place, *flags]

    _, lines, problems = read_table(path, parse, COLUMNS)
    rows = np.array(lines, np.float64).reshape(-1, len(COLUMNS))
    video, person, time, frame, u, v, *_ = rows.T
    order = np.lexsort((time, person, video))
    gaze = (frame != 0) | (u != 0.5) | (v != 0.5)
    return rows[order[gaze[order]]], problems


def read_gaze(samples: dict[Path, tuple], fps: float, video: Path, tables: list[Path]) -> Gaze:
    """Return the fixations of all people. samples: by table. fps: frames a second to keep."""
    rate, parts = probe(video).fps, [samples[table][0] for table in tables]
    rows = np.concatenate([part[part[:, 0] == int(video.stem)] for part in parts])
    _, person, _, frame, u, v, fixation, valid = rows.T
    same = np.diff(person) == 0
    same &= np.diff(frame // sampling_step(rate, fps)) == 0  # are in the time of one frame kept
    goes_on = np.append(False, same & (fixation[:-1] == 1))
    shown = (fixation == 1) & ~goes_on & (valid == 1)
    columns = (frame + 0.5) / float(rate), *to_angles(u % 1, v), person.astype(np.int64)
    problems = sum((samples[table][1] for table in tables), ())
    return Gaze(*(column[shown] for column in columns))._replace(problems=problems)


def main() -> None:
    inputs = {"videos": "folder of videos, such as 0001/0001.mp4", "gaze": "folder of CSV files"}
    args = parse_args("d_sav360", "D-SAV360's videos and gaze", 5.0, inputs)
    samples = {path: read_samples(path) for path in sorted(args.gaze.rglob("[!.]*.csv"))}
    tables: dict[int, list[Path]] = {}
    for path, (rows, _) in samples.items():
        for video in np.unique(rows[:, 0]):
            tables.setdefault(int(video), []).append(path)
    numbered = (path for path in args.videos.rglob("*") if path.stem.isdecimal())
    videos = by_key(numbered, VIDEO_SUFFIXES, lambda path: int(path.stem))
    write = partial(write_gaze_clip, partial(read_gaze, samples, args.fps))
    write_dataset(args, videos, tables, "like the column video, such as 0001.mp4", write)


if __name__ == "__main__":
    run_script(main)
