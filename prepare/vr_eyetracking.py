"""Convert VR-EyeTracking (Xu et al., CVPR 2018) to the layout of prepare.recordings.

    python -m prepare.vr_eyetracking --videos videos --gaze Gaze_txt_files --output DATA

Gaze_txt_files has a folder for each person, with a file for each video, whose name starts with that
of the video and a full stop (p001/180._2017-10-13-10-28_ori_0.txt). A line for each frame is

    frame, number of the frame from 1, forward, head x, head y, eye, gaze x, gaze y

where x and y are fractions of the panorama's width and height from its lower left corner. Sources:
the README of the data set (in Morning5/Gaze360 on Hugging Face), and SST-Sal's authors (issue 2 of
edurnebernal/SST-Sal). Each line counts as one fixation; lines with a fixation outside the panorama
are invalid.
"""

from common import startup  # noqa: F401  # isort: skip

from functools import partial
from pathlib import Path

import numpy as np

from common.errors import InputError, run_script
from common.files import reading
from datasets.gaze_files import MAX_BAD_SHARE, Gaze, number, read_lines, to_angles
from prepare.recordings import by_name, parse_args, write_dataset, write_gaze_clip
from video.decoding import probe

LINE = "frame, 1, forward, 0.5, 0.5, eye, 0.5, 0.5"


def read_gaze(video: Path, tables: list[Path]) -> Gaze:
    """Return the gaze of all observers of a video, each in a table of their own."""
    rows: list[tuple[float, ...]] = []
    problems: list[str] = []
    unusable: list[InputError] = []
    for path in tables:
        observer = int("".join(filter(str.isdecimal, path.parent.name))[-9:] or 0)

        def parse(line: str, observer: int = observer) -> tuple[float, ...]:
            _, frame, _, _, _, _, x, y = line.split(",")
            return number("frame", frame), number("x", x), number("y", y), observer

        try:
            with reading(path, f"expected lines '{LINE}' ({{}}); copy it again"):
                read, bad = read_lines(path, parse)
            rows += read
            problems += bad
        except InputError as error:
            unusable.append(error)
    if len(unusable) > MAX_BAD_SHARE * len(tables):
        raise unusable[0]
    frame, x, y, observers = np.array(rows, np.float64).reshape(-1, 4).T
    seconds = (frame - 0.5) / float(probe(video).fps)  # the middle of the frame
    return Gaze(
        seconds, *to_angles(x, 1 - y), observers.astype(np.int64), (*problems, *map(str, unusable))
    )


def main() -> None:
    inputs = {
        "videos": "folder of videos, such as 001.mp4",
        "gaze": "folder Gaze_txt_files, with a folder for each person",
    }
    source, splits = "VR-EyeTracking's videos and gaze", ("sst_sal", "cvpr2018")
    args = parse_args("vr_eyetracking", source, 5.0, inputs, splits)
    tables: dict[str, list[Path]] = {}
    for path in sorted(args.gaze.rglob("[!.]*.txt")):
        tables.setdefault(path.name.partition(".")[0], []).append(path)
    videos, expected = by_name(args.videos), "like 001.mp4 and p001/001….txt"
    write_dataset(args, videos, tables, expected, partial(write_gaze_clip, read_gaze))


if __name__ == "__main__":
    run_script(main)
