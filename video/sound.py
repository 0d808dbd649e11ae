"""Transfer of a video's sound to an MP4 file."""

import ctypes
import math
import sys
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import OutputContainer

from video.decoding import VideoInfo, open_video

MP4_CODECS = {"aac", "mp2", "mp3", "ac3", "eac3", "opus", "flac", "alac"}  # supported by players
AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
AAC_RATES = sorted(av.Codec("aac", "w").audio_rates)  # samples per second
BROWSER_LAYOUTS = dict.fromkeys(AAC_LAYOUTS, "stereo") | {1: "mono", 4: "stereo"}


def sound_packets(
    source: VideoInfo, output: OutputContainer, browser: bool = False
) -> Iterator[av.Packet]:
    """Yield the sound of a video file as packets for `output`, after adding streams to it.

    Codecs that players support in MP4 are copied, others are re-encoded as AAC or, with a warning,
    left out. browser: only the first stream, as AAC. Times count from the start of the file.
    """
    with open_video(source.path) as container:
        converters = {}
        copied, layouts = ({"aac"}, BROWSER_LAYOUTS) if browser else (MP4_CODECS, AAC_LAYOUTS)
        for stream in container.streams.audio[: 1 if browser else None]:
            context = stream.codec_context
            if context and context.rate and context.name.removesuffix("float") in copied:
                converters[stream.index] = _copy, output.add_stream_from_template(stream)
            elif context and context.rate and (channels := _channels(context)) in layouts:
                rate = next((r for r in AAC_RATES if r >= context.rate), AAC_RATES[-1])
                target = output.add_stream("aac", rate, layout=layouts[channels])
                target.bit_rate = 96_000 * target.codec_context.layout.nb_channels
                converters[stream.index] = _encode, target
            else:
                name = context.name if context else "of unknown kind"
                what = f"sound {stream.index} ({name}) is left out, it can't be converted for MP4"
                print(f"{source.path}: {what}", file=sys.stderr)
        if not converters:
            return
        last = dict.fromkeys(converters, -math.inf)
        try:
            for packet in container.demux(*converters):
                index = packet.stream.index
                convert, target = converters[index]
                for converted in convert(packet, target, source.start):
                    if (time := converted.dts * converted.time_base) > last[index]:  # for MP4
                        last[index] = time
                        yield converted
        except av.error.FFmpegError as error:
            what = f"the sound is damaged and ends early ({error.strerror})"
            print(f"{source.path}: {what}", file=sys.stderr)


def _channels(context: av.AudioCodecContext) -> int:
    """Return the number of channels, 0 if they are in a custom order.

    PyAV 18 frees a custom order twice and crashes. So its object is never freed, nor decoded.
    """
    layout = context.layout
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
    return 0 if "+" in layout.name else layout.nb_channels


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
