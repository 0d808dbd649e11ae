"""Writer of H.264 in MP4 with the timing, colours and sound of a source video."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from heapq import merge
from itertools import chain
from pathlib import Path

import av
import numpy as np

from common.errors import InputError
from common.files import atomic
from video.background import prefetch
from video.decoding import LARGE_FRAME_PIXELS, VideoInfo
from video.sound import sound_packets
from video.spherical_metadata import write_spherical
from video.yuv import Colour

MAX_TICK_RATE = 10**6  # ticks per second
# For pictures above LARGE_FRAME_PIXELS: 7680×3840 then takes 2.5 GB instead of 6.
LOW_MEMORY = {"rc-lookahead": "2", "bf": "1", "x264-params": "sync-lookahead=0:sliced-threads=1"}
MAX_FRAME_GAP = 2**29  # ticks between frames; MP4's decoding delays have 32 bits


def _open_mp4(path: str | Path) -> av.container.OutputContainer:
    """Open an MP4 file for writing, with its index at the start."""
    av.logging.set_level(None)  # see video.decoding.open_video
    return av.open(f"file:{path}", "w", "mp4", options={"movflags": "+faststart"})


def write_pictures(
    path: str | Path, pictures: Iterable[np.ndarray], height: int, width: int, fps: float
) -> None:
    """Write (H, W, 3) uint8 RGB pictures, even H and W, as a silent 360° video."""
    rate = Fraction(fps).limit_denominator(1001)
    with atomic(path) as temporary:
        with _open_mp4(temporary) as output:
            stream = output.add_stream("libx264", rate, options={"crf": "20"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for picture in pictures:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode())
        write_spherical(temporary)


def write_video(
    path: str | Path,
    source: VideoInfo,
    pictures: Iterable[tuple[np.ndarray, av.VideoFrame]],
    crf: float = 20,
    preset: str = "fast",
    browser: bool = False,
    **options: str,
) -> None:
    """Write a stream of pictures in constant memory; a thread computes the next ones.

    pictures: (3·H/2, W) uint8 yuv420p, all of one size, each with the frame of `source` that has
    its time. Colours are tagged like those of the first frame; for pictures of another height, as
    players assume them for this height. Sound is copied or converted.
    crf: quality from 0 (lossless) to 51. preset, options: of x264. browser: use only features that
    all browsers support in the same way. Raises OSError if the file can't be written, and
    InputError for a source with a jump in time or without pictures.
    """
    pictures = prefetch(pictures, 1 if source.width * source.height > LARGE_FRAME_PIXELS else 3)
    if not (beginning := next(pictures, None)):
        raise InputError(f"{source.path}: has no usable picture; try another clip")
    picture, first = beginning
    if picture.size > 1.5 * LARGE_FRAME_PIXELS:
        options |= LOW_MEMORY
    rate = math.lcm(first.time_base.denominator, source.fps.numerator)  # ticks per second
    if rate > MAX_TICK_RATE:  # an average, for a clip without a constant frame rate
        rate = first.time_base.denominator
    height, width = len(picture) * 2 // 3, picture.shape[1]
    colour = Colour.of(first)
    if browser:
        colour = colour.in_browsers(first.height)
    elif height != first.height:  # players may assume other colours for this height
        colour = colour.assumed(first.height)
    with _open_mp4(path) as output:
        options = {"crf": str(crf), "preset": preset, **options}
        stream = output.add_stream("libx264", rate=source.fps, options=options)
        context = stream.codec_context
        context.height, context.width, context.pix_fmt = height, width, "yuv420p"
        context.thread_type = "AUTO"
        context.time_base = stream.time_base = Fraction(1, rate)
        context.colorspace, context.color_range = colour.matrix, colour.range
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        sound = () if source.pictures else sound_packets(source, output, browser)
        video = _encode(chain([beginning], pictures), stream, source)
        # Before the first packet is yielded, all streams exist.
        for packet in merge(sound, video, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)


def _encode(
    pictures: Iterable[tuple[np.ndarray, av.VideoFrame]], stream: av.VideoStream, source: VideoInfo
) -> Iterator[av.Packet]:
    """Encode pictures at increasing times of their frames.

    Times within a tick of a multiple of 1/fps become it, which undoes, for example, rounding.
    """
    fps, tick, first, last = source.fps, stream.time_base, None, -math.inf
    steady = (1 / fps / tick).denominator == 1
    for picture, shown in pictures:
        time = shown.pts * shown.time_base
        first = time if first is None else first
        multiple = first + round((time - first) * fps) / fps
        if steady and abs(multiple - time) <= shown.time_base:
            time = multiple
        place = round(time / tick)
        if MAX_FRAME_GAP < place - last < math.inf:
            jump = f"its clock jumps by {float((place - last) * tick):,.0f} s"
            cure = "cut it there, or repair it with ffmpeg -i IN -vf setpts=N/FR/TB OUT"
            raise InputError(f"{source.path}: {jump}, too far for .mp4; {cure}")
        last = max(place, last + 1)
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base, frame.duration = last, tick, round(1 / fps / tick)
        yield from stream.encode(frame)
    yield from stream.encode(None)
