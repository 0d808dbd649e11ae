"""Convert PVS-HMEM (Song, Xu et al., arXiv 1710.10755) to the layout of prepare.recordings.

    python -m prepare.pvs_hmem --videos videos --gaze FULLdata_per_video_frame.mat --output DATA

The MATLAB file contains a matrix for each video, with the video's name. Its rows are evenly spaced
over the video, about two for each frame. Its columns are latitude and longitude of the first
person's head, then of the second person's, in degrees upwards and to the left; NaN is missing data.
Source: YuhangSong/DHP (README.md, suppor_lib.py, envs_li.py), whose maps have a Gaussian of 7°. Eye
movements are in other files, for which there is no public documentation.
"""

from common import startup  # noqa: F401  # isort: skip

import math
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from common.errors import InputError, run_script
from common.files import MAX_ARRAY_BYTES, reading
from datasets.gaze_files import Gaze, left_out
from prepare.recordings import by_name, parse_args, write_dataset, write_gaze_clip
from video.decoding import probe

LARGEST = 1 << 23  # numbers in a matrix, enough for 58 people and 20 minutes of video


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the variables in a MATLAB file, in a child process, since damage can crash it."""
    from scipy.io import loadmat, whosmat

    with suppress(ImportError, ValueError):  # on Windows, or the limit is lower already
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    if any(math.prod(shape) > LARGEST for _, shape, _ in whosmat(path)):
        raise ValueError("a matrix is too large")
    return {name: matrix for name, matrix in loadmat(path).items() if name[0] != "_"}


def read_gaze(matrices: dict[str, np.ndarray], video: Path, tables: list[Path]) -> Gaze:
    """Return the head directions of all people; any other matrix raises InputError."""
    with reading(tables[0], f"'{video.stem}' is not gaze of PVS-HMEM ({{}}); copy the file again"):
        rows = matrices[video.stem].astype(np.float64, casting="same_kind")  # no complex ones
        latitudes, longitudes = rows[:, ::2], rows[:, 1::2]
        possible = (abs(latitudes) <= 90) & (abs(longitudes) <= 180)
        recorded = ~(np.isnan(latitudes) & np.isnan(longitudes))
        if not recorded.any():
            raise ValueError("nothing was recorded")
        bad = [
            f"{video.stem}, row {r + 1}, person {p + 1}: {latitudes[r, p]}°, {longitudes[r, p]}°"
            for r, p in np.argwhere(recorded & ~possible)
        ]
        problems = left_out(tables[0], bad, int(recorded.sum()))
        info = probe(video)
        length = info.seconds or len(rows) / 2 / float(info.fps)
        seconds = np.arange(0.5, len(rows)) * length / len(rows)
        sample, observer = np.nonzero(possible)
        x, y = (np.radians(column[sample, observer]) for column in (-longitudes, latitudes))
        return Gaze(seconds[sample], x, y, observer, problems)


def main() -> None:
    videos, gaze = "folder of videos, such as A380.mp4", "FULLdata_per_video_frame.mat"
    inputs = {"videos": videos, "gaze": gaze}
    source = "PVS-HMEM's videos and head movements"
    args = parse_args("pvs_hmem", source, 7.0, inputs, splits=("pvs_hm",))
    try:
        import scipy  # noqa: F401
    except ImportError as error:
        raise InputError("MATLAB files need one more package; run pip install scipy") from error
    child = ProcessPoolExecutor(1, get_context("spawn"))
    with reading(args.gaze, "not a MATLAB file ({}); copy it again", MAX_ARRAY_BYTES), child:
        matrices = child.submit(load, args.gaze).result()

    def write(folder: Path, video: Path, _, options: dict) -> None:
        write_gaze_clip(partial(read_gaze, matrices), folder, video, [args.gaze], options)

    names = {name: [Path(name)] for name in matrices}
    write_dataset(args, by_name(args.videos), names, "like its matrices, such as A380.mp4", write)


if __name__ == "__main__":
    run_script(main)
