"""Decodes video files and folders of pictures: what they are, and their frames at full size."""

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av

from common.errors import InputError, counted
from common.files import check_file
from video.declared import video_declares
from video.layout import MONO, Coverage, Layout
from video.pictures import list_pictures, look_at, read_picture
from video.turn import Turn, find_turn, turned

FOLDER_FPS = Fraction(8)  # assumed for pictures, which carry no rate
MAX_FPS = 240  # a higher rate in a header is the container's clock
# FFmpeg also turns texts into pictures, and follows playlists to other files, addresses and pipes.
FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,hevc,vvc,av1,obu,ivf,"
    "m4v,h263,mjpeg,yuv4mpegpipe,mxf,mxf_opatom,dv,nut,rm,wtv,"
    "jpeg_pipe,png_pipe,bmp_pipe,webp_pipe,tiff_pipe,jpegxl_pipe"
)
ONE_FRAME = ("h264", "hevc")  # codecs each of whose packets is a frame that is shown,
REORDERED = 16  # at most so many packets later or earlier than it is stored


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
    notes: tuple[str, ...] = ()  # what a user should know of how it is read
    layout: Layout = MONO  # where on the sphere its pictures lie
    turn: Turn = ()  # what is done to its frames; width and height are those of turned ones


@dataclass
class Damage:
    """What is wrong with frames of a source, by their numbers from 1."""

    unreadable: dict[int, str] = field(default_factory=dict)  # pictures, with the error
    corrupt: list[int] = field(default_factory=list)  # where the decoder reports an error
    lost: int = 0  # frames that the decoder did not give, counted where none need be skipped

    def __str__(self) -> str:
        if self.unreadable:
            first = next(iter(self.unreadable.values()))
            return f"{counted(len(self.unreadable), 'frame')} can't be read, the first: {first}"
        if not self.corrupt:
            return ""
        errors = counted(len(self.corrupt), "error")
        where = f"{errors}, the first at frame {self.corrupt[0]}"
        return f"the decoder reports {where}, up to the next key frame; copy the file again"


# Whether the second of two frames that follow each other, given by seconds since the first frame
# of all, need not be decoded.
Spare = Callable[[float, float], bool]


def probe(
    path: str | Path,
    fps: Fraction | None = None,
    stereo: str | None = None,
    coverage: Coverage | None = None,
) -> VideoInfo:
    """Return size, rate, length and layout of a video file, a folder of pictures or one picture.

    fps: pictures a second of a folder, FOLDER_FPS with a note if None. stereo, coverage: as
    video.layout.Layout takes them, in place of what the file declares.
    Raises InputError for anything else, for a video with an fps other than its own and for one
    that declares a projection, stereo or a turn that is not read; ValueError as Layout does.
    """
    path = Path(path)
    if pictures := list_pictures(path):
        size, notes, declared = look_at(pictures)
        layout, said = declared.layout(path, size, stereo, coverage)
        if fps is None and len(pictures) > 1:
            notes.append(f"pictures carry no rate, {FOLDER_FPS} a second are assumed; give the fps")
        fps = Fraction(fps or FOLDER_FPS)
        seconds = float(len(pictures) / fps)
        notes = (*said, *notes)
        return VideoInfo(path, *size, fps, len(pictures), seconds, notes=notes, layout=layout)
    if fps is not None:
        raise InputError(f"{path}: a video has a frame rate of its own; give none for it")
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
        size, kind = (stream.width, stream.height), container.format.name
    frame = next(_frames(path, Damage()))
    declared, turn = video_declares(path, kind, frame), find_turn(path, frame)
    size = size[::-1] if turn and turn[0][0] == "transpose" else size
    layout, notes = declared.layout(path, size, stereo, coverage)
    return VideoInfo(path, *size, fps, frames, seconds, start, tuple(notes), layout, turn)


def _measured_rate(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction:
    """Return the rate of the first frames, from the times in the container."""
    packets = (packet for packet in container.demux(stream) if packet.size)
    times = [packet.pts for packet in islice(packets, 300) if packet.pts is not None]
    ticks = max(times, default=0) - min(times, default=0)
    rate = (len(times) - 1) / (ticks * stream.time_base) if ticks else Fraction(30)
    return rate.limit_denominator(1001) or Fraction(1)


def decode(
    info: VideoInfo, damage: Damage | None = None, spare: Spare | None = None
) -> Iterator[av.VideoFrame | av.Packet]:
    """Yield all frames of a source at full size, in order of presentation, one at a time.

    Each has a time, which counts from the start of the file.
    info: what `probe` returned. damage: what is wrong with frames is added to it, and unreadable
    pictures are left out. spare: which frames need not be decoded. In place of one that the
    decoder therefore skips, or that is lost by damage, comes its packet, if the codec has one for
    each frame: so frames have the same numbers, however they are read.
    Raises InputError for a file that can't be decoded, for a truncated one after its last frame,
    and without `damage` for an unreadable picture.
    """
    if pictures := list_pictures(info.path):
        for number, picture in enumerate(pictures, 1):
            try:
                frame = av.VideoFrame.from_ndarray(read_picture(picture), format="rgb24")
            except InputError as error:
                if damage is None:
                    raise
                damage.unreadable[number] = str(error)
                continue
            frame.pts, frame.time_base = number - 1, 1 / info.fps
            yield frame
        return
    count, end = 0, 0.0
    gap = shown = float(1 / info.fps)
    for frame in _frames(info.path, damage or Damage(), spare):
        if info.turn and isinstance(frame, av.VideoFrame):
            frame = turned(frame, info.turn)
        if frame.pts is None:  # a stream without a container
            frame.pts, frame.time_base = count, 1 / info.fps
        else:
            frame.pts -= round(info.start / frame.time_base)
        count += 1
        time = float(frame.pts * frame.time_base)
        gap = max(gap, time - end)
        shown, end = frame_seconds(frame) or gap, max(end, time)
        yield frame
    _check_length(info, count, end + shown)


def _frames(
    path: Path, damage: Damage, spare: Spare | None = None
) -> Iterator[av.VideoFrame | av.Packet]:
    """Yield the frames of a video, at least one, and note what the decoder reports.

    In place of a frame that is lost, or spare and referred to by no other, comes its packet. After
    an error, frames are decoded even if they are spare, so that all errors are noted.
    """
    count, first, last = 0, None, -math.inf
    waiting = []  # packets whose frames may still come
    with open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        context = stream.codec_context
        known = context.name in ONE_FRAME
        try:
            for packet, before in _with_times_before(container.demux(stream)):
                skip = False
                if known and not (packet.is_discard or None in (first, before) or before < first):
                    insort(waiting, packet, key=lambda packet: packet.pts)
                    times = ((t - first) * stream.time_base for t in (before, packet.pts))
                    skip = spare and not damage.corrupt and spare(*map(float, times))
                context.skip_frame = "NONREF" if skip else "DEFAULT"
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    damage.corrupt.append(count + 1)
                    continue
                for frame in frames:
                    time = -math.inf if frame.pts is None else frame.pts
                    if known and time < last:  # too late, after damage
                        continue
                    while waiting and waiting[0].pts <= time:
                        if (packet := waiting.pop(0)).pts < time:
                            count, damage.lost = count + 1, damage.lost + (spare is None)
                            yield packet
                    count, last = count + 1, time
                    first = frame.pts if first is None else first
                    damage.corrupt += [count] * frame.is_corrupt
                    yield frame
        except av.error.FFmpegError as error:
            raise _damaged(path, count, error.strerror) from error
    if count == 0:
        raise _damaged(path, count, "no frame could be decoded")
    damage.lost += len(waiting) * (spare is None)
    yield from waiting


def _with_times_before(packets: Iterable[av.Packet]) -> Iterator[tuple[av.Packet, int | None]]:
    """Yield packets, and of each the time at which the frame before it is shown, if known."""
    waiting, times = deque(), deque(maxlen=3 * REORDERED)

    def before(packet: av.Packet) -> int | None:
        if packet.pts is None or times.count(packet.pts) > 1:
            return None
        return max((time for time in times if time < packet.pts), default=None)

    for packet in packets:
        waiting.append(packet)
        times += [] if packet.pts is None else [packet.pts]
        if len(waiting) > REORDERED:
            yield waiting[0], before(waiting.popleft())
    for packet in waiting:
        yield packet, before(packet)


def frame_seconds(frame: av.VideoFrame | av.Packet) -> float:
    """Return how long a frame is shown, 0 where the file does not state it."""
    return float((frame.duration or 0) * frame.time_base)


def open_video(path: Path) -> av.container.InputContainer:
    """Open a video file. Raises InputError for anything else, and for one without a decoder."""
    check_file(path)
    # With a level, as older versions of torchvision set one, FFmpeg's threads call Python to log:
    # while Python waits for them to end, both wait for ever.
    av.logging.set_level(None)
    try:
        container = av.open(
            f"file:{path}",  # else the name 12:30.mp4 stands for a protocol
            metadata_errors="replace",
            container_options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
        )
    except (av.error.FFmpegError, UnicodeError) as error:
        known = not isinstance(error, av.error.ArgumentError)  # else not among FORMATS
        cause = getattr(error, "strerror", error) if known else "not in a known format of videos"
        raise InputError(
            f"{path}: no video or picture that can be decoded ({cause}); play it to check, or copy "
            "it again"
        ) from error
    context = container.streams.video[0].codec_context if container.streams.video else None
    if not context or not context.width:
        container.close()
        raise InputError(
            f"{path}: has no video, or one of unknown size or without a decoder here; give a 360° "
            "video in H.264, frames or a picture"
        )
    return container


def _check_length(info: VideoInfo, count: int, end: float) -> None:
    """Raise InputError where the last of `count` frames ends too early, at `end` seconds.

    A file that was cut short often ends without an error of the decoder.
    """
    if info.frames and count < info.frames - max(2, info.frames // 100):
        raise _damaged(info.path, count, f"its header announces {info.frames}")
    if info.seconds and end < 0.95 * info.seconds - 1:
        raise _damaged(info.path, count, f"{end:.1f} of {info.seconds:.1f} seconds")


def _damaged(path: Path, count: int, cause: str) -> InputError:
    return InputError(
        f"{path}: truncated or damaged after {counted(count, 'frame')} ({cause}); "
        "copy or download it again, or re-encode it to use what is there"
    )
