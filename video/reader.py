"""Reads video files, folders of frames and single pictures as models take them."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type
from torch import Tensor

from cli import InputError
from files import check_file
from video.motion import MOTIONS
from video.pictures import (
    list_pictures,
    open_picture,
    picture_notes,
    read_flow,
    read_picture,
    resize,
    to_tensor,
)

FOLDER_FPS = Fraction(8)  # pictures carry no rate: assume that they were sampled for the models
MAX_FPS = 240  # a higher rate in a header is the container's clock
# FFmpeg also turns texts into pictures, and follows playlists to other files, addresses and pipes.
FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,hevc,vvc,av1,obu,ivf,"
    "m4v,h263,mjpeg,yuv4mpegpipe,mxf,mxf_opatom,dv,nut,rm,wtv,"
    "jpeg_pipe,png_pipe,bmp_pipe,webp_pipe,tiff_pipe,jpegxl_pipe"
)
STEREO = {1: "side by side", 2: "top and bottom"}  # AVStereo3DType
PROJECTIONS = {1: "a cubemap", 3: "half of a panorama", 4: "rectilinear", 5: "a fisheye"}

av.logging.set_level(None)  # any level calls Python from FFmpeg's threads and may hang them


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a source before it is decoded."""

    path: Path
    width: int  # pixels
    height: int
    fps: Fraction  # an average where the time between frames varies
    frames: int | None  # None where the container does not state it
    seconds: float | None  # from the start of the file to the end of its last frame
    start: Fraction = Fraction(0)  # seconds; the clock of a transport stream starts anywhere
    notes: tuple[str, ...] = ()  # what makes it doubtful that this is a panorama as it is stored


@dataclass
class Damage:
    """What is wrong with a source, by the numbers of its frames, from 1."""

    unreadable: dict[int, str] = field(default_factory=dict)  # pictures, with the error
    corrupt: list[int] = field(default_factory=list)  # frames that the decoder could not restore

    def __str__(self) -> str:
        parts = []
        if self.unreadable:
            first = next(iter(self.unreadable.values()))
            parts.append(f"{len(self.unreadable)} frames can't be read, the first: {first}")
        if self.corrupt:
            parts.append(
                f"the decoder reports {len(self.corrupt)} errors, the first at frame "
                f"{self.corrupt[0]}; they may reach to the next key frame: copy the file again"
            )
        return "; ".join(parts)


@dataclass(frozen=True)
class Frame:
    """One sampled frame, as models take it."""

    number: int  # position in the source, from 1
    seconds: float  # since the first frame
    rgb: Tensor  # (3, H, W) float32 in [0, 1]
    motion: Tensor  # (M, H, W) float32 in [0, 1]
    times: tuple[float, ...] = ()  # seconds of this frame and of those before the next sampled one


def probe(path: str | Path) -> VideoInfo:
    """Return size, rate and length of a video file, a folder of pictures or one picture.

    Raises InputError for anything else.
    """
    path = Path(path)
    if pictures := list_pictures(path):
        return _probe_pictures(path, pictures)
    with open_video(path) as container:
        stream = container.streams.video[0]
        start = Fraction(max(0, container.start_time or 0), av.time_base)
        seconds, frames = None, stream.frames or None
        if stream.duration:
            seconds = float(((stream.start_time or 0) + stream.duration) * stream.time_base - start)
        elif container.duration and len(container.streams) == 1:  # Matroska, counted from zero
            seconds = float(Fraction(container.duration, av.time_base) - start)
        fps = stream.average_rate or stream.guessed_rate
        if not fps or fps > MAX_FPS:
            fps, frames = _measured_rate(container, stream), None
        size = stream.width, stream.height
    with open_video(path) as container:
        frame = next(_frames(container, Damage()), None)
        if frame is None:
            raise _damaged(path, 0, "no frame could be decoded")
        notes = tuple(_notes(frame))
    return VideoInfo(path, *size, fps, frames, seconds, start, notes)


def _probe_pictures(path: Path, pictures: list[Path]) -> VideoInfo:
    for picture in pictures:
        try:
            with open_picture(picture) as image:
                size = image.size
            notes = (*picture_notes(picture), *_shape_notes(*size))
            break
        except InputError:
            if picture == pictures[-1]:
                raise
    seconds = float(len(pictures) / FOLDER_FPS)
    return VideoInfo(path, *size, FOLDER_FPS, len(pictures), seconds, notes=notes)


def _measured_rate(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction:
    """Return the rate of the first frames, from the times in the container."""
    packets = (packet for packet in container.demux(stream) if packet.size)
    times = [packet.pts for packet in islice(packets, 300) if packet.pts is not None]
    ticks = max(times, default=0) - min(times, default=0)
    if not ticks:
        return Fraction(30)
    return ((len(times) - 1) / (ticks * stream.time_base)).limit_denominator(1001) or Fraction(1)


def _notes(frame: av.VideoFrame) -> Iterator[str]:
    """Yield what a video's first frame declares that is not a plain panorama."""
    declared = {data.type: bytes(data)[:4] for data in map(frame.side_data.__getitem__,
                range(len(frame.side_data))) if len(bytes(data)) >= 4}  # fmt: skip
    stereo, projection = (
        struct.unpack("=I", declared.get(kind, bytes(4)))[0]
        for kind in (Type.STEREO3D, Type.SPHERICAL)
    )
    if stereo:
        kind = STEREO.get(stereo, "another arrangement")
        yield f"declares stereo ({kind}), which is taken for one panorama; cut one eye out first"
    if projection in PROJECTIONS:
        yield f"declares {PROJECTIONS[projection]}, not equirectangular; convert it first"
    if frame.rotation:
        yield f"declares a rotation by {frame.rotation}°, which is ignored; turn the pixels first"
    yield from _shape_notes(frame.width, frame.height)


def _shape_notes(width: int, height: int) -> Iterator[str]:
    if abs(width / height - 2) > 0.1:
        shape = "portrait" if width < height else "not 2:1"
        yield (
            f"{width}×{height} pixels are {shape}; taken as a panorama of 360°×180° that was "
            "stretched (stereo is often 1:1, a cubemap 3:2 or 4:3)"
        )


def decode(path: str | Path, damage: Damage | None = None) -> Iterator[av.VideoFrame]:
    """Yield all frames at full size, in order of presentation, one at a time.

    Each has a time, which counts from the start of the file.
    damage: what is wrong with frames is added to it, and unreadable pictures are left out.
    Raises InputError for a file that can't be decoded, for a truncated one after its last frame,
    and without `damage` for an unreadable picture.
    """
    path = Path(path)
    if pictures := list_pictures(path):
        for number, picture in enumerate(pictures, 1):
            try:
                frame = av.VideoFrame.from_ndarray(read_picture(picture), format="rgb24")
            except InputError as error:
                if damage is None:
                    raise
                damage.unreadable[number] = str(error)
                continue
            frame.pts, frame.time_base = number - 1, 1 / FOLDER_FPS
            yield frame
        return
    info, count, end = probe(path), 0, 0.0
    gap = shown = float(1 / info.fps)
    with open_video(path) as container:
        try:
            for frame in _frames(container, damage or Damage()):
                if frame.pts is None:  # a stream without a container
                    frame.pts, frame.time_base = count, 1 / info.fps
                else:
                    frame.pts -= round(info.start / frame.time_base)
                count += 1
                gap = max(gap, frame.time - end)
                shown, end = frame_seconds(frame) or gap, max(end, frame.time)
                yield frame
        except av.error.FFmpegError as error:
            raise _damaged(path, count, error.strerror) from error
    _check_length(info, count, end + shown)


def _frames(container: av.container.InputContainer, damage: Damage) -> Iterator[av.VideoFrame]:
    """Yield the frames of a container's first video stream and note those that are damaged."""
    stream, count = container.streams.video[0], 0
    stream.thread_type = "AUTO"
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            damage.corrupt.append(count + 1)
            continue
        for frame in frames:
            count += 1
            if frame.is_corrupt:
                damage.corrupt.append(count)
            yield frame


def frame_seconds(frame: av.VideoFrame) -> float:
    """Return how long a frame is shown, 0 where the file does not state it."""
    return float((frame.duration or 0) * frame.time_base)


def open_video(path: Path) -> av.container.InputContainer:
    """Open a video file. Raises InputError for anything else, and for one without a decoder."""
    check_file(path)
    try:
        container = av.open(
            f"file:{path}",  # else the name 12:30.mp4 stands for a protocol
            metadata_errors="replace",
            container_options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
        )
    except (av.error.FFmpegError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        if isinstance(error, av.error.ArgumentError):  # not among FORMATS
            cause = "not in a known format of videos"
        raise InputError(
            f"{path}: no video or picture that can be decoded ({cause}); play it to check, or copy "
            "it again"
        ) from error
    wrong = None
    if not container.streams.video:
        wrong = "has no video stream; give a 360° video, frames or a picture"
    elif (context := container.streams.video[0].codec_context) is None:
        wrong = "there is no decoder here for its video; convert it to H.264 first"
    elif not context.width:
        wrong = "its size is not known, it may be truncated; copy it again"
    if wrong:
        container.close()
        raise InputError(f"{path}: {wrong}")
    return container


def _check_length(info: VideoInfo, count: int, end: float) -> None:
    """Raise InputError where the last of `count` frames ends too early, at `end` seconds.

    A file that was cut short often ends without an error of the decoder.
    """
    if count == 0:
        raise _damaged(info.path, count, "no frame could be decoded")
    if info.frames and count < info.frames - max(2, info.frames // 100):
        raise _damaged(info.path, count, f"its header announces {info.frames}")
    if info.seconds and end < 0.95 * info.seconds - 1:
        raise _damaged(info.path, count, f"{end:.1f} of {info.seconds:.1f} seconds")


def _damaged(path: Path, count: int, cause: str) -> InputError:
    return InputError(
        f"{path}: truncated or damaged after {count} frames ({cause}); "
        "copy or download it again, or re-encode it to use what is there"
    )


class FrameReader(Iterator[Frame]):
    """The sampled frames of a source, one at a time; see read_frames.

    info: what is known about the source. decoded: frames of the source that were read so far,
    sampled or not, in the end its length. end: seconds at which the last of them ends.
    damage: what is wrong with them.
    """

    def __init__(self, path: str | Path, spec):
        self.info, self.damage = probe(path), Damage()
        self.decoded, self.end = 0, 0.0
        self._frames = self._sample(spec)

    def _sample(self, spec) -> Iterator[Frame]:
        """Yield the first readable frame of each interval, with the times of those that follow."""
        step = max(1, round(self.info.fps / Fraction(spec.fps)))
        interval = step / self.info.fps if self.info.fps > spec.fps else 1 / Fraction(spec.fps)
        early = min(1 / self.info.fps, interval) / 2  # a frame may come before its interval
        motion, start, last, sampled, times = MOTIONS[spec.motion](), None, -1, None, []
        try:
            for seconds, read in self._images(spec):
                start = seconds if start is None else start
                times.append(seconds - start)
                number = int((times[-1] + early) / interval)
                if number <= last:
                    continue
                try:
                    rgb, moved = read()
                except InputError as error:
                    self.damage.unreadable[self.decoded] = str(error)
                    continue
                if sampled:
                    yield replace(sampled, times=tuple(times[:-1]))
                previous = sampled.rgb if sampled else None
                moved = motion(previous, rgb) if moved is None else moved
                last, times = number, times[-1:]
                sampled = Frame(self.decoded, times[0], rgb, moved)
        except InputError:
            if sampled:
                yield replace(sampled, times=tuple(times))
            raise
        if sampled is None:
            raise InputError(next(iter(self.damage.unreadable.values())))
        yield replace(sampled, times=tuple(times))

    def _images(self, spec) -> Iterator[tuple[float, Callable[[], tuple[Tensor, Tensor | None]]]]:
        """Yield the time of each frame, and what reads it and the flow that lies beside it."""

        def tensor(read: Callable[[], np.ndarray], flow: Path | None = None):
            moved = read_flow(flow, spec) if flow and MOTIONS[spec.motion].channels == 3 else None
            return to_tensor(resize(read(), spec.height, spec.width)), moved

        for index, picture in enumerate(list_pictures(self.info.path)):
            self.decoded, self.end = index + 1, float((index + 1) / FOLDER_FPS)
            yield (
                float(index / FOLDER_FPS),
                partial(tensor, partial(read_picture, picture), picture),
            )
        if self.decoded:
            return
        first = None
        for frame in decode(self.info.path, self.damage):
            self.decoded += 1
            first = frame.time if first is None else first
            shown = frame_seconds(frame) or float(1 / self.info.fps)
            self.end = max(self.end, frame.time - first + shown)
            yield frame.time, partial(tensor, partial(frame.to_ndarray, format="rgb24"))

    def __next__(self) -> Frame:
        return next(self._frames)


def read_frames(path: str | Path, spec) -> FrameReader:
    """Return an iterator of the frames of a source as a model with this spec takes them.

    path: a video file, a folder of pictures or one picture. spec: anything with height, width,
    fps and motion, such as models.base.Spec. Time is divided into intervals of
    round(source rate / spec.fps) frames, and the first frame of each is sampled: of a steady
    source every such frame, as SST-Sal's authors do; of a slower source, every frame. Where a
    folder holds flow pictures, models that take flow get these. A picture that can't be read is
    left out and noted in the reader's `damage`. Raises InputError for a source that can't be
    read, at once or when the damage is met.
    """
    return FrameReader(path, spec)
