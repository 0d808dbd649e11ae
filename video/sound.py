"""Carries the sound of a video over into an MP4 file."""

import math
import sys
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import OutputContainer

from video.reader import VideoInfo

COPIED = {"aac", "mp2", "mp3", "ac3", "eac3", "opus", "flac", "alac"}  # players know these in MP4
AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def sound_packets(source: VideoInfo, output: OutputContainer) -> Iterator[av.Packet]:
    """Yield the sound of a video file as packets for `output`, which gets streams for them.

    A codec that players know in MP4 is copied as it is, any other is encoded again as AAC.
    Times count from the start of the file, as those of video.reader.decode do. What cannot be
    carried over is left out with a warning on standard error.
    """
    with av.open(str(source.path)) as container:
        converters = {}
        for stream in container.streams.audio:
            context = stream.codec_context
            channels = context.layout.nb_channels
            if context.rate and context.name.removesuffix("float") in COPIED:
                converters[stream.index] = _copy, output.add_stream_from_template(stream)
            elif context.rate and channels in AAC_LAYOUTS:
                target = output.add_stream("aac", context.rate, layout=AAC_LAYOUTS[channels])
                target.bit_rate = 96_000 * channels
                converters[stream.index] = _encode, target
            else:
                what = f"sound {stream.index} ({context.name}) is left out, MP4 can't hold it"
                print(f"{source.path}: {what}", file=sys.stderr)
        if not converters:
            return
        last = dict.fromkeys(converters, -math.inf)
        try:
            for packet in container.demux(*converters):
                index = packet.stream.index
                convert, target = converters[index]
                for converted in convert(packet, target, source.start):
                    if converted.dts * converted.time_base > last[index]:  # MP4 allows no other
                        last[index] = converted.dts * converted.time_base
                        yield converted
        except av.error.FFmpegError as error:
            what = f"the sound ends early, it is damaged ({error.strerror})"
            print(f"{source.path}: {what}", file=sys.stderr)


def _copy(packet: av.Packet, target: av.AudioStream, start: Fraction) -> Iterator[av.Packet]:
    if packet.dts is None:  # the empty packet at the end
        return
    offset = round(start / packet.time_base)
    packet.pts = (packet.dts if packet.pts is None else packet.pts) - offset
    packet.dts -= offset
    packet.stream = target
    yield packet


def _encode(packet: av.Packet, target: av.AudioStream, start: Fraction) -> Iterator[av.Packet]:
    for frame in packet.decode():
        if frame.pts is not None:
            frame.pts -= round(start / frame.time_base)
        yield from target.encode(frame)
    if packet.dts is None:
        yield from target.encode(None)
