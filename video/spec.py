"""The input format of a model, in which videos and data sets are read."""

from dataclasses import dataclass

from common.components import MOTIONS
from common.options import HIGHEST_FPS

MAX_SIDE, MAX_PIXELS = 4096, 1024 * 2048  # pixels of the frames that models take


def check_number(name: str, value: object, least: int, most: int) -> None:
    """Raise ValueError unless a value is a whole number within limits."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}, got {value!r}")


@dataclass(frozen=True)
class Spec:
    """Input format of a model. Frames are resized by area averaging.

    Successive clips overlap by `warm_up` and `fade` frames. The maps of a model of single frames
    can be averaged over `smoothing` seconds instead; see models.predict.
    """

    height: int = 240
    width: int = 480
    fps: float = 8.0  # samples a second; a slower video is sampled at its own rate
    clip_length: int = 1  # frames that the model takes together
    warm_up: int = 0  # frames at the start of a clip whose maps are discarded
    fade: int = 0  # frames after the warm-up over which two clips' maps are cross-faded
    motion: str = "none"  # a name in video.motion.MOTIONS
    smoothing: float = 0.0  # seconds before and after a frame whose maps are averaged with its own

    def __post_init__(self):
        for name in ("height", "width", "clip_length", "warm_up", "fade"):
            least = 0 if name in ("warm_up", "fade") else 1
            check_number(name, getattr(self, name), least, MAX_SIDE)
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(f"{self.height}×{self.width} is more than {MAX_PIXELS} pixels")
        if not 0 < self.fps <= HIGHEST_FPS:
            raise ValueError(f"fps must be above 0 and at most {HIGHEST_FPS:g}, got {self.fps!r}")
        if self.warm_up + self.fade >= self.clip_length:
            raise ValueError("warm_up plus fade must be less than clip_length")
        if not 0 <= self.smoothing <= 10:
            raise ValueError(f"smoothing must be from 0 to 10 seconds, got {self.smoothing!r}")
        if self.smoothing and self.clip_length > 1:
            raise ValueError("smoothing is only for models of single frames, clip_length 1")
        if self.motion not in MOTIONS:
            raise ValueError(f"motion must be one of {', '.join(MOTIONS)}, got {self.motion!r}")
