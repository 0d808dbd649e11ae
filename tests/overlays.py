"""Clips, folders of maps and calls of make_video.py for the tests of what it writes."""

import json
import sys
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

import make_video
from common.errors import run_script
from maps.folder import fingerprint
from video.decoding import probe

W, H = 96, 48


def clip(path, count=8, size=(W, H), fps=Fraction(25), codec="libx264", audio=None, colour=None,
         ticks=None, pix_fmt="yuv420p", layout="stereo"):  # fmt: skip
    """A video of a moving gradient or of one colour, with a sine of the same length."""
    width, height = size
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=fps)
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        if ticks:  # milliseconds
            video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        sound = output.add_stream(audio, rate=48000, layout=layout) if audio else None
        for k in range(count):
            picture = np.full((height, width, 3), colour or 0, np.uint8)
            if colour is None:
                picture[...] = (np.arange(width)[None, :, None] * 2 + 9 * k) % 200
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks:
                frame.pts, frame.time_base = ticks[k], Fraction(1, 1000)
            output.mux(video.encode(frame))
        if sound:
            wave = np.sin(np.arange(int(48000 * count / fps)) / 20) * 8000
            wave = np.repeat(wave.astype(np.int16), sound.channels)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout=layout)
            frame.rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            output.mux(sound.encode(frame))
            output.mux(sound.encode(None))
        output.mux(video.encode(None))
    return path


def maps(folder, count=8, value=None, size=(48, 24)):
    folder.mkdir(exist_ok=True)
    for k in range(count):
        if value is None:
            saliency = np.zeros(size[::-1], np.uint8)
            cv2.circle(saliency, (6 * k, 12), 5, 255, -1)
        else:
            saliency = np.full(size[::-1], value, np.uint8)
        cv2.imwrite(str(folder / f"sal_{k + 1:04d}.png"), saliency)
    return folder


def facts(folder, video, **changes):
    info = probe(video)
    known = {
        "video": video.name,
        "fingerprint": fingerprint(info.files),
        "precision": "float32",
        "width": info.width,
        "height": info.height,
        "frame_count": 8,
        "complete": True,
        "peaks": [0.5] * len(list(folder.glob("sal_*.png"))),
    }
    (folder / "saliency.json").write_text(json.dumps(known | changes))
    return folder


def arguments(video, folder, output, *more):
    return ["--original_video", str(video), "--saliency_dir", str(folder), "--output_path",
            str(output), "--preset", "ultrafast", *map(str, more)]  # fmt: skip


def render(video, folder, output, *more):
    sys.argv = ["make_video.py", *arguments(video, folder, output, *more)]
    run_script(make_video.main)
    return output


def refused(capsys, video, folder, output, *more, code=2):
    """The one line of standard error."""
    with pytest.raises(SystemExit) as stop:
        render(video, folder, output, *more)
    assert stop.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make_video.py: ") and (";" in line or ": give " in line)
    assert not output.is_file() and not list(output.parent.glob(".*partial*"))
    return line


def frames(path):
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def times(path):
    return [frame.pts * frame.time_base for frame in frames(path)]


def sounds(path):
    with av.open(str(path)) as file:
        return [
            (p.pts * p.time_base, bytes(p))
            for p in file.demux(file.streams.audio)
            if p.dts is not None
        ]
