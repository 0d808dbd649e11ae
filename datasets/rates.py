"""The frame rate of a data set, which is needed to sample it like a video.

<root>/dataset.json states it, for all clips or for each clip:

    {"fps": 25}        {"fps": {"001": 25, "002": "30000/1001"}}

If there is no rate, training and evaluation use every frame. infer_video.py reads the rate for a
clip's folder of frames.
"""

from fractions import Fraction
from pathlib import Path

from common.files import read_json, reading
from common.options import frame_rate
from video.pictures import FRAMES

RATES_FILE = "dataset.json"


class ClipRates:
    """The frame rates of a data set's clips. fps: rate of all clips instead of dataset.json.

    Raises InputError if dataset.json is invalid.
    """

    def __init__(self, root: Path, fps: Fraction | None = None):
        self._rates: dict[str | None, Fraction | None] = {None: fps}  # None: all other clips
        if fps is None and (path := root / RATES_FILE).exists():
            otherwise = '"fps" must be a number or {clip: number} ({}); correct it, or give --fps'
            with reading(path, otherwise):
                stated = read_json(path).get("fps", {})
                by_clip = stated if isinstance(stated, dict) else {None: stated}
                self._rates |= {clip: frame_rate(str(fps)) for clip, fps in by_clip.items()}

    def of(self, clip: str) -> Fraction | None:
        """Return the frame rate of a clip, None if unknown."""
        return self._rates.get(clip, self._rates[None])


def rate_of_folder(frames: Path) -> Fraction | None:
    """Return the frame rate that a data set states for a clip's folder in it, None if unknown."""
    clip = frames.resolve()
    root = clip.parents[1] if clip.parent.name == FRAMES else clip.parent
    return ClipRates(root).of(clip.name) if clip.is_dir() else None
