"""Writes H.264 in MP4 with the times, the colours and the sound of a source video."""

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
# Of pictures beyond LARGE_FRAME_PIXELS: those of 7680×3840 then take 2.5 GB, not 6.
LOW_MEMORY = {"rc-lookahead": "2", "bf": "1", "x264-params": "sync-lookahead=0:sliced-threads=1"}
MAX_FRAME_GAP = 2**29  # ticks from one frame to the next; MP4's decoding delays have 32 bits


def _open_mp4(path: str | Path) -> av.container.OutputContainer:
    """Open an MP4 file to write, in which the index comes first."""
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
    """Write pictures as they come, in constant memory; the next ones are computed in a thread.

    pictures: (3·H/2, W) uint8 yuv420p, all of one size, each with the frame of `source` at whose
    time it is shown. Colours are tagged as those of the first frame, and where pictures have
    another height, as what players take these for; sound is carried over.
    crf: quality from 0 (lossless) to 51; preset, options: x264's; browser: only what all browsers
    play and take alike. Raises OSError where the file can't be written, and InputError for a source
    whose clock jumps or that gave no picture.
    """
    pictures = prefetch(pictures, 1 if source.width * source.height > LARGE_FRAME_PIXELS else 3)
    if not (beginning := next(pictures, None)):
        raise InputError(f"{source.path}: no picture of it could be made; try another clip")
    picture, first = beginning
    if picture.size > 1.5 * LARGE_FRAME_PIXELS:
        options |= LOW_MEMORY
    rate = math.lcm(first.time_base.denominator, source.fps.numerator)  # ticks per second
    if rate > MAX_TICK_RATE:  # an average frame rate, of a clip without a steady one
        rate = first.time_base.denominator
    height, width = len(picture) * 2 // 3, picture.shape[1]
    colour = Colour.of(first)
    if browser:
        colour = colour.in_browsers(first.height)
    elif height != first.height:  # a player may assume other colours of this height
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
        # Takes the first packet of each before it yields one: all streams exist by then.
        for packet in merge(sound, video, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)


def _encode(
    pictures: Iterable[tuple[np.ndarray, av.VideoFrame]], stream: av.VideoStream, source: VideoInfo
) -> Iterator[av.Packet]:
    """Encode pictures, each at the time of its frame, later than all before it.

    A time within one tick of the source's clock of a multiple of 1/fps becomes that multiple,
    which undoes, for example, the rounding to milliseconds in Matroska.
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
            cure = "cut it there, or make it steady with ffmpeg -i IN -vf setpts=N/FR/TB OUT"
            raise InputError(f"{source.path}: {jump}, more than .mp4 holds; {cure}")
        last = max(place, last + 1)
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base, frame.duration = last, tick, round(1 / fps / tick)
        yield from stream.encode(frame)
    yield from stream.encode(None)
