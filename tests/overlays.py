"""Clips, folders of maps and calls of make_video.py for the tests of what it writes."""

import json
import sys

import av
import cv2
import numpy as np
import pytest

import make_video
from common.errors import run_script
from maps.folder import fingerprint
from tests.clips import write_video
from video.decoding import probe

W, H = 96, 48


def clip(path, count=8, size=(W, H), fps=25, audio=None, layout="stereo", colour=None, **more):
    """A video of a moving gradient or of one colour, with a sine of the same length."""
    pictures = np.full((count, *size[::-1], 3), colour or 0, np.uint8)
    if colour is None:
        columns = 2 * np.arange(size[0]) + 9 * np.arange(count)[:, None]
        pictures[:] = (columns % 200)[:, None, :, None]
    return write_video(path, pictures, fps=fps, sound=audio and (audio, 48000, layout), **more)


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
