"""Writes H.264 in MP4 with the clock, the colours and the sound of a source video."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path

import av
import numpy as np

from cli import InputError, atomic
from video.reader import list_pictures
from video.spherical_metadata import write_spherical

COPIED_AUDIO = {"aac", "mp2", "mp3", "ac3", "eac3", "opus", "flac", "alac"}  # players know in MP4
AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
FINEST_CLOCK = 10**6  # ticks a second
UNKNOWN, BT709 = 2, 1  # H.264's numbers for matrices, primaries and transfer
LIMITED, FULL = 1, 2  # ranges of brightness: 16…235, 0…255


def write_pictures(
    path: str | Path, pictures: Iterable[np.ndarray], height: int, width: int, fps: float
) -> None:
    """A silent 360° video, H.264 in MP4, of (H, W, 3) uint8 RGB pictures, even H and W."""
    with atomic(path) as temporary:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", Fraction(fps), options={"crf": "20"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        write_spherical(temporary)


@dataclass(frozen=True)
class Colour:
    """How YUV means colour, in H.264's numbers."""

    matrix: int
    primaries: int
    transfer: int
    range: int

    def from_rgb(self, rgb: np.ndarray, height: int) -> np.ndarray:
        """(..., 3) RGB in [0, 1] → (..., 3) YUV in [0, 255]; untagged HD is taken as BT.709."""
        known = {BT709: (0.2126, 0.0722), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
        matrix = BT709 if self.matrix == UNKNOWN and height >= 720 else self.matrix
        red, blue = known.get(matrix, (0.299, 0.114))
        luma = rgb @ np.array([red, 1 - red - blue, blue])
        cb = (rgb[..., 2] - luma) / (2 - 2 * blue)
        cr = (rgb[..., 0] - luma) / (2 - 2 * red)
        scale, chroma, black = (255, 255, 0) if self.range == FULL else (219, 224, 16)
        return np.stack([black + scale * luma, 128 + chroma * cb, 128 + chroma * cr], axis=-1)


def planes(picture: np.ndarray) -> list[np.ndarray]:
    """Views of the Y (H, W), U and V (H/2, W/2) planes of a (3·H/2, W) yuv420p picture."""
    height, width = picture.shape[0] * 2 // 3, picture.shape[1]
    chroma = picture[height:].reshape(2, height // 2, width // 2)
    return [picture[:height], chroma[0], chroma[1]]


class VideoWriter:
    """A context that encodes pictures as they come; memory doesn't grow with the clip.

    frame: the first one of `source`; sizes, colours and the start of the clock are taken from
    it. H.264 with yuv420p needs even sizes: of an odd width or height, the last column or row
    is cut off. `panels` pictures fit beside each other. Sound is copied as it is where MP4
    players know its codec, else encoded again as AAC.
    """

    def __init__(
        self,
        path: str | Path,
        source: str | Path,
        frame: av.VideoFrame,
        fps: Fraction,
        panels: int = 1,
        crf: float = 20,
        preset: str = "fast",
    ):
        self.size = (frame.width, frame.height)
        self.height, self.width = frame.height // 2 * 2, frame.width // 2 * 2
        if not (self.height and self.width):
            raise InputError(f"{source}: {frame.width}×{frame.height} pixels are too few for H.264")
        self.source, self.fps, self.count = source, fps, 0
        self._input = None if list_pictures(Path(source)) else av.open(str(source))
        self.colour = _colour(frame)
        start = self._input.start_time if self._input else None
        self._offset = Fraction(max(0, start or 0), av.time_base)
        self._tick = 1 / fps if frame.pts is None else frame.time_base
        self._clock = lcm(self._tick.denominator, fps.numerator)
        if self._clock > FINEST_CLOCK:  # an average rate, of a clip without a steady one
            self._clock, self._tick = self._tick.denominator, 0
        self._last = None
        self._first = self._time(frame)

        self._output = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        options = {"crf": str(crf), "preset": preset}
        self._stream = self._output.add_stream("libx264", rate=fps, options=options)
        context = self._stream.codec_context
        context.width, context.height = self.width * panels, self.height
        context.pix_fmt, context.thread_type = "yuv420p", "AUTO"
        context.time_base = self._stream.time_base = Fraction(1, self._clock)
        context.colorspace, context.color_range = self.colour.matrix, self.colour.range
        context.color_primaries, context.color_trc = self.colour.primaries, self.colour.transfer
        self._sounds = {} if self._input is None else dict(self._open_sounds())
        self._sound_packets = self._read_sounds() if self._sounds else iter(())
        self._waiting = next(self._sound_packets, None)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self._mux(self._stream.encode(None))
                self._mux_sounds(until=None)
                self._output.close()
        finally:
            with suppress(av.error.FFmpegError):  # the error that is on its way says more
                self._output.close()
            if self._input is not None:
                self._input.close()

    def picture(self, frame: av.VideoFrame) -> np.ndarray:
        """(3·H/2, W) uint8 yuv420p with even H and W; unchanged where `frame` is in it already."""
        if (frame.width, frame.height) != self.size:
            raise InputError(
                f"{self.source}: frame {self.count + 1} is {frame.width}×{frame.height}, the first "
                f"{self.size[0]}×{self.size[1]}; bring all frames to one size"
            )
        if frame.format.name != "yuv420p":
            matrix = {BT709: "ITU709"}.get(self.colour.matrix) if frame.format.is_rgb else None
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=matrix, dst_color_range=self.colour.range
            )
        picture = np.empty((self.height * 3 // 2, self.width), np.uint8)
        for target, plane in zip(planes(picture), frame.planes, strict=True):
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            target[:] = rows[: target.shape[0], : target.shape[1]]
        return picture

    def write(self, picture: np.ndarray, shown: av.VideoFrame) -> None:
        """picture: (3·H/2, panels·W) uint8 yuv420p, to be shown when `shown` is in the source."""
        time = self._time(shown)
        steady = self._first + round((time - self._first) * self.fps) / self.fps
        if abs(steady - time) <= self._tick:  # undo the rounding of, say, Matroska's milliseconds
            time = steady
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        ticks = round(time * self._clock)
        frame.pts = ticks if self._last is None else max(ticks, self._last + 1)
        frame.time_base = Fraction(1, self._clock)
        frame.duration = round(self._clock / self.fps)
        self._last = frame.pts
        self.count += 1
        self._mux(self._stream.encode(frame))

    def _time(self, frame: av.VideoFrame) -> Fraction:
        """Seconds since the start of the source; a frame without a time follows the last one."""
        if frame.pts is not None:
            return frame.pts * frame.time_base - self._offset
        if self._last is None:
            return Fraction(0)
        return Fraction(self._last, self._clock) + 1 / self.fps

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            self._mux_sounds(until=packet.dts * packet.time_base)
            self._output.mux(packet)

    def _mux_sounds(self, until: Fraction | None) -> None:
        """Write the sounds up to a time: near the pictures they belong to, so that none wait."""
        while self._waiting and (until is None or self._waiting[0] <= until):
            self._output.mux(self._waiting[1])
            self._waiting = next(self._sound_packets, None)

    def _open_sounds(self) -> Iterator[tuple[int, av.AudioStream]]:
        """Index in the source → stream in the output."""
        for sound in self._input.streams.audio:
            context = sound.codec_context
            channels = context.layout.nb_channels
            if context.rate and context.name.removesuffix("float") in COPIED_AUDIO:
                yield sound.index, self._output.add_stream_from_template(sound)
            elif context.rate and channels in AAC_LAYOUTS:
                layout = AAC_LAYOUTS[channels]
                stream = self._output.add_stream("aac", rate=context.rate, layout=layout)
                stream.bit_rate = 96_000 * channels
                yield sound.index, stream
            else:
                self._warn(f"sound {sound.index} ({context.name}) is left out, MP4 can't hold it")

    def _read_sounds(self) -> Iterator[tuple[Fraction, av.Packet]]:
        """(seconds, packet) ready to be written, in the source's order."""
        last = dict.fromkeys(self._sounds, None)
        try:
            for packet in self._input.demux(self._input.streams.audio):
                index, target = packet.stream_index, self._sounds.get(packet.stream_index)
                if target is None:
                    continue
                for ready in self._ready(packet, target):
                    time = ready.dts * ready.time_base
                    if last[index] is None or time > last[index]:
                        last[index] = time
                        yield time, ready
        except av.error.FFmpegError as error:
            self._warn(f"the sound ends early, it is damaged ({error.strerror})")

    def _ready(self, packet: av.Packet, target: av.AudioStream) -> Iterator[av.Packet]:
        offset = round(self._offset / packet.time_base) if packet.time_base else 0
        if target.codec_context is None or not target.codec_context.is_encoder:
            if packet.dts is not None:  # else the end
                packet.pts = (packet.dts if packet.pts is None else packet.pts) - offset
                packet.dts -= offset
                packet.stream = target
                yield packet
            return
        for frame in packet.decode():
            frame.pts = None if frame.pts is None else frame.pts - offset
            yield from target.encode(frame)
        if packet.dts is None:
            yield from target.encode(None)

    def _warn(self, what: str) -> None:
        print(f"{self.source}: {what}", file=sys.stderr)


def _colour(frame: av.VideoFrame) -> Colour:
    """As the source says, even if it says nothing; RGB pictures become BT.709."""
    if frame.format.is_rgb:
        return Colour(BT709, BT709, BT709, LIMITED)
    known = (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))
    kept = frame.format.name == "yuv420p"  # anything else, yuvj420p too, is converted
    return Colour(*known, int(frame.color_range) if kept else LIMITED)
