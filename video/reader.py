"""Sampling of video files, folders of frames and single pictures for models."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from common.errors import InputError
from video.decoding import Damage, Decoded, VideoInfo, decode, decode_pictures, picture_info, probe
from video.layout import Coverage, rgb_array
from video.motion import motion_estimator
from video.pictures import unit
from video.spec import Spec


@dataclass(frozen=True)
class Frame:
    """One sampled frame, in the format that models take."""

    number: int  # position in the source, from 1
    seconds: float  # since the first frame
    rgb: Tensor  # (3, H, W) float32 in [0, 1]
    motion: Tensor  # (M, H, W) float32 in [0, 1]
    times: tuple[float, ...] = ()  # seconds of this frame and those up to the next one
    picture: Any = None  # the original, for pictures in memory
    bits: Any = None  # rgb as uint8


class FrameReader(Iterator[Frame]):
    """The sampled frames of a source, one at a time; see read_frames.

    frames: None: decoded from its file. before: preceding frames, nearest first. damage: problems.
    times: seconds of all frames so far, up to the next sampled one. end: of the last one read.
    """

    def __init__(
        self,
        info: VideoInfo,
        spec: Spec,
        frames: Iterable[Decoded] | None = None,
        before: Iterable[Decoded] = (),
    ):
        self.info, self.spec, self.damage, self.before = info, spec, Damage(), before
        self.motion, self.times, self.end = motion_estimator(spec.motion), array("d"), 0.0
        self.sampled = self._sample(decode(info, self.damage) if frames is None else frames)

    def __next__(self) -> Frame:
        frame = next(self.sampled)
        self.times.extend(frame.times)
        return frame

    def _sample(self, frames: Iterable[Decoded]) -> Iterator[Frame]:
        """Yield the first frame of each interval, with the times of the following ones."""
        interval = sampling_interval(self.info.fps, self.spec.fps)
        first, last_interval, sampled, times, problem = None, -1, None, [], None
        previous = self._before() if self.motion.channels else None
        try:
            for frame in frames:
                first = frame.seconds if first is None else first
                seconds = frame.seconds - first
                times.append(seconds)
                self.end = max(self.end, seconds + frame.duration)
                if interval(seconds) <= last_interval:
                    continue
                last_interval = interval(seconds)
                try:
                    picture = self._picture(frame)
                except InputError as error:  # in a folder, the next picture may be readable
                    self.damage.unreadable[frame.number] = str(error)
                    previous = self._before() if previous is None else previous
                    if previous is None:  # the first readable one replaces it
                        continue
                    picture = (previous * 255).round().byte()
                rgb = unit(picture)
                if sampled:
                    yield replace(sampled, times=tuple(times[:-1]))
                    times = times[-1:]
                number, motion = frame.number + 1 - len(times), self._motion(frame, previous, rgb)
                sampled = Frame(number, times[0], rgb, motion, picture=frame.given, bits=picture)
                previous = rgb
        except InputError as error:  # raised after the frames before the damage
            problem = error
        if sampled:
            yield replace(sampled, times=tuple(times))
        if problem or not sampled and self.damage.unreadable:
            raise problem or InputError(next(iter(self.damage.unreadable.values())))

    def _before(self) -> Tensor | None:
        """Return the last readable frame before this source, (3, H, W) in [0, 1], else None."""
        picture = self.first_readable(self.before)
        return picture if picture is None else unit(picture)

    def first_readable(self, frames: Iterable[Decoded]) -> Tensor | None:
        """Return the first readable one of frames at the spec's size, uint8, else None."""
        for frame in frames:
            with suppress(InputError):  # reported where the frame is part of a source
                return self._picture(frame)
        return None

    def _picture(self, frame: Decoded) -> Tensor:
        """Return a frame at the spec's size, uint8. Raises InputError for a damaged picture."""
        if isinstance(picture := frame.load(), av.VideoFrame):
            # Averaging planes before conversion to RGB is an eighth of the work at 3840×1920.
            height, width = self.info.layout.stored_size(self.spec.height, self.spec.width)
            size = min(picture.width, width), min(picture.height, height)
            picture = picture.reformat(*size, "gbrp", interpolation="AREA").to_ndarray()
        return self._panorama(picture)

    def _motion(self, frame: Decoded, previous: Tensor | None, rgb: Tensor) -> Tensor:
        """Return the flow picture of a frame if there is one, else the estimated motion."""
        try:
            if self.motion.from_pictures and (flow := frame.load_flow()) is not None:
                return unit(self._panorama(flow))
        except InputError as error:
            self.damage.unreadable_flow[frame.number] = str(error)
        return self.motion(previous, rgb)

    def _panorama(self, picture: np.ndarray) -> Tensor:
        """Return the whole sphere in a stored picture: (3, H, W) uint8."""
        rgb = self.info.layout.panorama(picture, self.spec.height, self.spec.width)
        return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


def sampling_step(rate: Fraction | None, fps: float) -> int:
    """Return the step between sampled frames of a source, see `sampling_interval`.

    rate: frame rate of the source; None if unknown: every frame is sampled.
    """
    return max(1, round(rate / Fraction(fps))) if rate else 1


@cache
def sampling_interval(rate: Fraction, fps: float) -> Callable[[float], int]:
    """Return a function from seconds to sampling-interval index.

    Seconds count from the first frame. rate, fps: frame rates of the source and of sampling.
    """
    interval = float(sampling_step(rate, fps) / rate if rate > fps else 1 / Fraction(fps))
    early = min(float(1 / rate), interval) / 2  # a frame may precede its interval
    return lambda seconds: int((seconds + early) / interval)


def read_frames(
    path: str | Path,
    spec: Spec,
    fps: Fraction | None = None,
    stereo: str | None = None,
    coverage: Coverage | None = None,
) -> FrameReader:
    """Return an iterator of the frames of a source for a model with this spec.

    path: a video file, a folder of pictures or one picture. fps, stereo, coverage: see
    video.decoding.probe. Frames show the whole sphere of the left eye; `info.layout.covered` is
    the part of it that is in the source.

    Time is divided into intervals of round(source rate / spec.fps) frames, and the first frame of
    each is sampled, as by SST-Sal's authors; of a slower source, every frame. Flow pictures in a
    folder replace estimated flow. An unreadable picture is replaced by the last readable one, at
    the start by the first one, and noted in the reader's `damage`. Raises errors like `probe`, and
    InputError if a video is damaged or no picture is readable.
    """
    return FrameReader(probe(path, fps, stereo, coverage), spec)


def read_pictures(
    pictures: Sequence[Path], spec: Spec, rate: Fraction | None = None, before: Sequence[Path] = ()
) -> FrameReader:
    """Return the frames of successive pictures, like read_frames for a folder.

    rate: pictures a second; None: all are sampled. before: preceding pictures, for the motion of
    the first one and as its replacement. Frames are numbered from 1.
    """
    info = picture_info(pictures, rate or Fraction(spec.fps))
    return FrameReader(info, spec, before=decode_pictures(reversed(before), 1 / info.fps))


def frames_of(
    pictures: Iterable[np.ndarray | Tensor], spec: Spec, fps: float | None
) -> Iterator[Frame]:
    """Return the frames of pictures in memory of types that rgb_array takes, like read_frames.

    fps: pictures a second; None: all are sampled.
    Iterating raises ValueError for any other array.
    """
    rate = Fraction(fps or spec.fps)
    decoded = (
        Decoded(n + 1, float(n / rate), 1 / rate, partial(rgb_array, picture), given=picture)
        for n, picture in enumerate(pictures)
    )
    return FrameReader(VideoInfo(Path(), 0, 0, rate, None, None), spec, decoded).sampled
