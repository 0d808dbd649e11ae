"""Decoder of video files and folders of pictures: facts and frames at full size."""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from common.errors import InputError, counted
from common.files import reading
from video.declared import Declared, video_declares
from video.layout import MONO, Coverage, Layout
from video.pictures import list_pictures, probe_pictures, read_flow, read_picture
from video.spherical_metadata import read_index

FOLDER_FPS = Fraction(8)  # default for pictures, which have no rate
MAX_FPS = 240  # a higher rate in a header is the rate of the container's clock
# FFmpeg also renders texts, and follows playlists to other files, addresses and pipes.
FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,hevc,vvc,av1,obu,ivf,"
    "m4v,h263,mjpeg,yuv4mpegpipe,mxf,mxf_opatom,dv,nut,rm,wtv,"
    "jpeg_pipe,png_pipe,bmp_pipe,webp_pipe,tiff_pipe,jpegxl_pipe"
)
# Replace invalid UTF-8 in metadata, as PyAV does by default from version 19.
METADATA_OPTIONS = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
PROBED_PACKETS = 300  # for measuring a rate; they must contain a frame
LARGE_FRAME_PIXELS = 10_000_000  # above this, saving memory has priority over speed
Rotation = tuple[tuple[str, str], ...]  # FFmpeg's filters, each with its option
ROTATIONS: dict[float, Rotation] = {  # by the angle counterclockwise in degrees
    0: (),
    90: (("transpose", "cclock"),),
    180: (("hflip", ""), ("vflip", "")),
    270: (("transpose", "clock"),),
}


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a source that are known before decoding."""

    path: Path
    width: int  # pixels of displayed frames
    height: int
    fps: Fraction  # average if the time between frames varies
    frames: int | None  # None if the container does not state it
    seconds: float | None  # from the start of the file to the end of its last frame
    layout: Layout = MONO  # of its pictures on the sphere
    notes: tuple[str, ...] = ()  # for the user: doubts and default values
    pictures: tuple[Path, ...] = ()  # of a folder, or a single picture; empty for a video file
    start: Fraction = Fraction(0)  # seconds; transport streams start at any time
    turn: Rotation = ()  # of its frames for display

    @property
    def files(self) -> list[Path]:
        """The video, or the pictures in order."""
        return list(self.pictures) or [self.path]


@dataclass(frozen=True)
class Decoded:
    """One frame of a source."""

    number: int  # from 1, in presentation order
    seconds: float  # since the start of the file
    duration: float | Fraction  # seconds; average if the file does not state it
    load: Callable[[], av.VideoFrame | np.ndarray]  # of pictures: (H, W, 3) uint8 RGB
    load_flow: Callable[[], np.ndarray | None] = lambda: None  # likewise, the flow picture, if any
    given: Any = None  # the picture, where it is in memory

    @property
    def image(self) -> av.VideoFrame:
        """The picture, whose `pts` is its time since the start of the file.

        One of a folder is read now. Raises InputError if that fails.
        """
        if isinstance(image := self.load(), np.ndarray):
            image = av.VideoFrame.from_ndarray(image, format="rgb24")
            image.pts, image.time_base = self.number - 1, Fraction(self.duration)
        return image


@dataclass
class Damage:
    """Damaged frames of a source, by their numbers from 1."""

    unreadable: dict[int, str] = field(default_factory=dict)  # pictures, with the error
    unreadable_flow: dict[int, str] = field(default_factory=dict)  # pictures of it, likewise
    corrupt: list[int] = field(default_factory=list)  # where the decoder reports an error

    def problems(self) -> list[tuple[str, str]]:
        """Return (kind, error) of each unreadable picture."""
        kinds = {"unreadable frame": self.unreadable, "unreadable flow": self.unreadable_flow}
        return [(kind, error) for kind in kinds for error in kinds[kind].values()]

    def __str__(self) -> str:
        for what, errors in ("frame", self.unreadable), ("flow picture", self.unreadable_flow):
            if errors:
                first = next(iter(errors.values()))
                return f"{counted(len(errors), what)} can't be read, the first: {first}"
        if self.corrupt:
            where = f"{counted(len(self.corrupt), 'error')}, the first at frame {self.corrupt[0]}"
            return f"the decoder reports {where}, up to the next key frame; copy the file again"
        return ""


def probe(
    path: str | Path,
    fps: Fraction | None = None,
    stereo: str | None = None,
    coverage: Coverage | None = None,
) -> VideoInfo:
    """Return size, rate, length and layout of a video file, a folder of pictures or one picture.

    fps: pictures a second of a folder, FOLDER_FPS with a note if None. stereo, coverage: as in
    Layout, in place of what the file declares. Raises InputError for anything else, and for what a
    file declares but this reader lacks.
    """
    path = Path(path)
    if pictures := tuple(list_pictures(path)):
        declared, notes = probe_pictures(pictures)
        if not fps and len(pictures) > 1:
            notes.append(f"pictures have no frame rate, {FOLDER_FPS} fps assumed; give --fps")
        info = picture_info(pictures, Fraction(fps or FOLDER_FPS))
        info = replace(info, path=path, notes=tuple(notes))
    elif fps:
        raise InputError(f"{path}: a video has its own frame rate; remove --fps")
    else:
        with reading(path, "no video or picture that can be decoded ({}); copy it again"):
            info, declared = _probe_video(path)
    if problem := declared.problem(stereo, coverage):
        raise InputError(f"{path}: {problem}")
    layout, doubts = declared.layout(stereo, coverage)
    notes, (width, height) = (*doubts, *info.notes), declared.size
    return replace(info, width=width, height=height, layout=layout, notes=notes)


def picture_info(pictures: Sequence[Path], fps: Fraction) -> VideoInfo:
    """Return the facts about successive pictures but for their size, which is not read."""
    length = len(pictures), float(len(pictures) / fps)
    return VideoInfo(pictures[0], 0, 0, fps, *length, pictures=tuple(pictures))


def _probe_video(path: Path) -> tuple[VideoInfo, Declared]:
    """Return the facts about a video file but for its size, and what it declares."""
    with open(path, "rb") as file:
        _, index = read_index(file)
    with open_video(path) as container:
        stream = container.streams.video[0]
        start = Fraction(max(0, container.start_time or 0), av.time_base)
        frames, seconds = stream.frames or None, _length(container, start)
        fps = stream.average_rate or stream.guessed_rate
        packets: Iterable[av.Packet] = islice(container.demux(stream), PROBED_PACKETS)
        if not fps or fps > MAX_FPS:
            packets = list(packets)
            fps, frames = _measured_rate(packets, stream.time_base), None
        frame = _first_frame(packets)
        turn = find_rotation(frame, path)
        frame = rotated(frame, turn)
        fps = Fraction(fps)  # PyAV has its own type from version 19
        info = VideoInfo(path, 0, 0, fps, frames, seconds, start=start, turn=turn)
        return info, video_declares(index, frame)


def open_video(path: Path) -> av.container.InputContainer:
    """Open a video file. Raises ValueError or PyAV's errors for anything else."""
    # With a log level, which older versions of torchvision set, FFmpeg's threads call Python, and
    # Python waiting for these threads is a deadlock.
    av.logging.set_level(None)
    try:
        container = av.open(
            f"file:{path}",  # otherwise 12:30.mp4 is taken as a protocol
            **METADATA_OPTIONS,
            container_options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
        )
    except av.error.ArgumentError as error:  # the format is not among FORMATS
        raise ValueError("not in a known video format") from error
    context = container.streams.video[0].codec_context if container.streams.video else None
    if not context or not context.width:
        raise ValueError("no video, or one of unknown size or without a decoder here")
    return container


def _length(container: av.container.InputContainer, start: Fraction) -> float | None:
    """Return the seconds from `start` to the end of the last frame, None if not stated."""
    stream = container.streams.video[0]
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base - start)
    if container.duration and len(container.streams) == 1:  # Matroska, counted from zero
        return float(Fraction(container.duration, av.time_base) - start)
    return None


def _measured_rate(packets: Iterable[av.Packet], time_base: Fraction) -> Fraction:
    """Return the average frame rate from the times of a stream's first packets."""
    times = [packet.pts for packet in packets if packet.pts is not None]
    ticks = max(times, default=0) - min(times, default=0)
    rate = (len(times) - 1) / (ticks * time_base) if ticks else Fraction(30)
    return rate.limit_denominator(1001) or Fraction(1)


def _first_frame(packets: Iterable[av.Packet]) -> av.VideoFrame:
    for packet in packets:
        with suppress(av.error.InvalidDataError):
            if frames := packet.decode():
                return frames[0]
    raise ValueError("no frame could be decoded")


def decode(info: VideoInfo, damage: Damage | None = None) -> Iterator[Decoded]:
    """Return an iterator of all frames of a source at full size, in presentation order.

    info: what `probe` returned. damage: collects errors of the decoder. Destroyed frames are not
    counted. Iterating raises InputError for a broken video, after its last frame if truncated.
    """
    if not info.pictures:
        return _decode_video(info, damage or Damage())
    return decode_pictures(info.pictures, 1 / info.fps)


def decode_pictures(pictures: Iterable[Path], duration: Fraction) -> Iterator[Decoded]:
    """Yield pictures as frames. duration: of each, in seconds."""
    for n, path in enumerate(pictures):
        loaders = partial(read_picture, path), partial(read_flow, path)
        yield Decoded(n + 1, float(n * duration), duration, *loaders)


def _decode_video(info: VideoInfo, damage: Damage) -> Iterator[Decoded]:
    number, packets, end, cause = 0, 0, 0.0, ""
    with open_video(info.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if info.width * info.height > LARGE_FRAME_PIXELS:
            stream.codec_context.thread_count = 4  # each thread holds frames
        try:
            for packet in container.demux(stream):
                packets += packet.size > 0
                damage.corrupt += [number + 1] * packet.is_corrupt  # according to the container
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    damage.corrupt.append(number + 1)
                    continue
                for frame in frames:
                    if frame.pts is None:  # a stream without a container
                        frame.pts, frame.time_base = number, 1 / info.fps
                    else:
                        frame.pts -= round(info.start / frame.time_base)
                    number += 1
                    damage.corrupt += [number] * frame.is_corrupt
                    duration = float((frame.duration or 0) * frame.time_base or 1 / info.fps)
                    end = max(end, frame.time + duration)
                    yield Decoded(number, frame.time, duration, partial(rotated, frame, info.turn))
        except av.error.FFmpegError as error:
            cause = error.strerror
    # A truncated file often ends without an error of the decoder.
    if info.frames and packets < info.frames - max(2, info.frames // 100):
        cause = cause or f"its header states {info.frames}"
    if info.seconds and end < 0.95 * info.seconds - 1:
        cause = cause or f"{end:.1f} of {info.seconds:.1f} seconds"
    if cause:
        what = f"truncated or damaged after {counted(number, 'frame')} ({cause})"
        cure = "copy or download it again, or re-encode the intact part"
        raise InputError(f"{info.path}: {what}; {cure}")


def find_rotation(frame: av.VideoFrame, path: Path) -> Rotation:
    """Return the filters that apply the rotation in a video's first frame.

    Raises InputError for any other angle, for mirrored frames, and for a panorama on its end.
    """
    if not (entry := frame.side_data.get("DISPLAYMATRIX")):
        return ()
    a, b, _, c, d = struct.unpack_from("=5i", bytes(entry))
    upended = frame.rotation % 180 and frame.width > frame.height
    if frame.rotation % 360 not in ROTATIONS or upended or a * d < b * c:
        command = f"ffmpeg -display_rotation 0 -i {path.name} -c copy OUT"
        refused = "to be shown mirrored, on its end or at no multiple of 90°"
        raise InputError(f"{path}: declares {refused}; if it is upright as stored: {command}")
    return ROTATIONS[frame.rotation % 360]


def rotated(frame: av.VideoFrame, filters: Rotation) -> av.VideoFrame:
    """Return a frame after filters of ROTATIONS."""
    if not filters:
        return frame
    graph = av.filter.Graph()
    source = graph.add_buffer(template=frame)
    nodes = [graph.add(name, option) for name, option in filters]
    graph.link_nodes(source, *nodes, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()
