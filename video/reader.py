"""Samples video files, folders of frames and single pictures as models take them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from torch import Tensor

from common.errors import InputError
from video.decoding import Damage, decode, frame_seconds, probe
from video.layout import MONO, Coverage, Layout
from video.motion import MOTIONS
from video.pictures import list_pictures, read_flow, read_picture, resize, to_tensor

# Seconds since the first image, what reads it, None if it was skipped, and the picture file
# beside which flow may be.
Image = tuple[float, Callable[[], np.ndarray] | None, Path | None]


@dataclass(frozen=True)
class Frame:
    """One sampled frame, as models take it."""

    number: int  # position in the source, from 1
    seconds: float  # since the first frame
    rgb: Tensor  # (3, H, W) float32 in [0, 1]
    motion: Tensor  # (M, H, W) float32 in [0, 1]
    times: tuple[float, ...] = ()  # seconds of this frame and of those before the next sampled one


def _reduced(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """Return a frame as (h, w, 3) uint8 RGB, averaged over areas where it is larger than that.

    Planes are averaged before they become RGB, which is an eighth of the work at 3840×1920.
    """
    size = min(frame.width, width), min(frame.height, height)
    return frame.reformat(*size, "gbrp", interpolation="AREA").to_ndarray()


class FrameReader(Iterator[Frame]):
    """The sampled frames of a source, one at a time; see read_frames.

    info: what is known about the source. decoded: frames of the source that were read so far,
    sampled or not, in the end its length. end: seconds at which the last of them ends.
    damage: what is wrong with them.
    """

    def __init__(self, path: str | Path, spec, fps=None, stereo=None, coverage=None):
        self.info, self.damage = probe(path, fps, stereo, coverage), Damage()
        self.decoded, self.end = 0, 0.0
        self._size = self.info.layout.stored_size(spec.height, spec.width)
        self._interval = _intervals(self.info.fps, spec.fps)
        self._frames = sample(self._images(), spec, self.info.fps, self.damage, self.info.layout)

    def _spare(self, before: float, seconds: float) -> bool:
        return self._interval(before) == self._interval(seconds)

    def _images(self) -> Iterator[Image]:
        for index, picture in enumerate(pictures := list_pictures(self.info.path)):
            self.decoded, self.end = index + 1, float((index + 1) / self.info.fps)
            yield float(index / self.info.fps), partial(read_picture, picture), picture
        first = None
        for frame in () if pictures else decode(self.info, self.damage, self._spare):
            time, self.decoded = float(frame.pts * frame.time_base), self.decoded + 1
            first = time if first is None else first
            shown = frame_seconds(frame) or float(1 / self.info.fps)
            self.end = max(self.end, time - first + shown)
            skipped = isinstance(frame, av.Packet)
            yield time - first, None if skipped else partial(_reduced, frame, *self._size), None

    def __next__(self) -> Frame:
        return next(self._frames)


def _intervals(rate: Fraction, fps: float) -> Callable[[float], int]:
    """Return what gives the number of the interval of time in which an image is shown.

    It takes seconds since the first image. rate, fps: images a second of the source and sampled.
    """
    step = max(1, round(rate / Fraction(fps)))
    interval = step / rate if rate > fps else 1 / Fraction(fps)
    early = min(1 / rate, interval) / 2  # an image may come before its interval
    return lambda seconds: int((seconds + early) / interval)


def sample(
    images: Iterable[Image], spec, rate: Fraction, damage: Damage, layout: Layout = MONO
) -> Iterator[Frame]:
    """Yield the first readable image of each interval, with the times of those that follow.

    rate: images a second of the source. damage: gets the numbers of those that can't be read.
    layout: of the images; frames are panoramas of the whole sphere, of the left eye.
    """
    interval = _intervals(rate, spec.fps)
    motion, last, sampled, times, problem = MOTIONS[spec.motion](), -1, None, [], None
    try:
        for number, (seconds, read, picture) in enumerate(images, 1):
            times.append(seconds)
            if (place := interval(seconds)) <= last or not read:
                continue
            try:
                image = layout.panorama(read(), spec.height, spec.width)
                rgb, moved = to_tensor(resize(image, spec.height, spec.width)), None
                if picture and motion.channels == 3:
                    moved = read_flow(picture, spec, layout)
            except InputError as error:
                damage.unreadable[number] = str(error)
                continue
            if sampled:
                yield replace(sampled, times=tuple(times[:-1]))
            previous = sampled.rgb if sampled else None
            moved = motion(previous, rgb) if moved is None else moved
            last, times = place, times[-1:]
            sampled = Frame(number, seconds, rgb, moved)
    except InputError as error:  # after what was read before the damage
        problem = error
    if sampled:
        yield replace(sampled, times=tuple(times))
    if problem or (damage.unreadable and not sampled):
        raise problem or InputError(next(iter(damage.unreadable.values())))


def read_frames(
    path: str | Path,
    spec,
    fps: Fraction | None = None,
    stereo: str | None = None,
    coverage: Coverage | None = None,
) -> FrameReader:
    """Return an iterator of the frames of a source as a model with this spec takes them.

    path: a video file, a folder of pictures or one picture. spec: anything with height, width,
    fps and motion, such as models.base.Spec. fps: pictures a second of a folder, 8 if None.
    stereo: "none", "top-bottom" or "left-right"; coverage: (west, east, south, north) of
    each eye in degrees; both as the file declares if None, see video.layout. Frames show the whole
    sphere, as the left eye sees it; `info.layout.covered` says what of it was in the source.

    Time is divided into intervals of round(source rate / spec.fps) frames, and the first frame of
    each is sampled: of a steady source every such frame, as SST-Sal's authors do; of a slower
    source, every frame. Where a folder holds flow pictures, models that take flow get these. A
    picture that can't be read is left out and noted in the reader's `damage`. Raises InputError
    for a source that can't be read, at once or when the damage is met, and ValueError for a stereo
    or coverage that is none.
    """
    return FrameReader(path, spec, fps, stereo, coverage)


def frames_of(pictures: Iterable[np.ndarray | Tensor], spec, fps: float | None) -> Iterator[Frame]:
    """Yield the frames of pictures in memory, (H, W, 3) uint8 RGB, as read_frames does of a file.

    fps: pictures a second; None for pictures that are all to be sampled.
    Raises ValueError for an array of another shape or type.
    """
    rate = Fraction(fps or spec.fps)

    def checked(picture: np.ndarray | Tensor) -> np.ndarray:
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise ValueError(f"expected (H, W, 3) uint8, got {array.shape} of {array.dtype}")
        return array

    images = ((float(k / rate), partial(checked, p), None) for k, p in enumerate(pictures))
    return sample(images, spec, rate, Damage())
