"""The frame rate of a data set, by which a model sees it as it sees a video.

<root>/dataset.json states it, for all clips or clip by clip:

    {"fps": 25}        {"fps": {"001": 25, "002": "30000/1001"}}

Where nothing is stated, training and evaluation let the model see every frame. infer_video.py reads
it for a clip's folder of frames.
"""

from fractions import Fraction
from pathlib import Path

from common.files import read_json, reading
from common.options import frame_rate
from video.pictures import FRAMES

FACTS = "dataset.json"


class ClipRates:
    """The frames a second of a data set's clips; `fps` is for all, in place of what is stated.

    Raises InputError where dataset.json is invalid.
    """

    def __init__(self, root: Path, fps: Fraction | None = None):
        self._rates: dict[str | None, Fraction | None] = {None: fps}  # None: of all other clips
        if fps is None and (path := root / FACTS).exists():
            otherwise = '"fps" is a number or {clip: number} ({}); correct it, or give --fps'
            with reading(path, otherwise):
                stated = read_json(path).get("fps", {})
                by_clip = stated if isinstance(stated, dict) else {None: stated}
                self._rates |= {clip: frame_rate(str(fps)) for clip, fps in by_clip.items()}

    def of(self, clip: str) -> Fraction | None:
        """Return the frames a second of a clip, None where it is not known."""
        return self._rates.get(clip, self._rates[None])


def rate_of_folder(frames: Path) -> Fraction | None:
    """Return the frames a second that a data set states for a clip's folder in it, None if none."""
    clip = frames.resolve()
    root = clip.parents[1] if clip.parent.name == FRAMES else clip.parent
    return ClipRates(root).of(clip.name) if clip.is_dir() else None
