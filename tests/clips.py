"""Tiny clips for the tests, made on the spot."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def moving_disc(frame: int, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: a bright disc that moves to the right over a smooth background."""
    row, column = np.mgrid[:height, :width]
    around = (column - 3 * frame + width / 2) % width - width / 2
    disc = (row - height / 2) ** 2 + around**2 < (height / 6) ** 2
    image = np.stack([row * 255 / height, np.full_like(row, 90), 255 - row * 255 / height], -1)
    image[disc] = 250, 240, 40
    return image.astype(np.uint8)


def write_video(path: Path, frames=24, height=48, width=96, fps=30, codec="libx264", times=None,
                pix_fmt="yuv420p", sound=None, matrix=None, metadata=None, options=None,
                container=None) -> Path:  # fmt: skip
    """A clip of a moving disc, or of the pictures given as frames: (H, W, 3) uint8 each.

    times: seconds of the frames. sound: codec, rate and layout of a sine as long as the clip.
    """
    discs = isinstance(frames, int)
    pictures = [moving_disc(n, height, width) for n in range(frames)] if discs else frames
    with av.open(str(path), "w", options=container or {}) as output:
        output.metadata.update(metadata or {})
        stream = output.add_stream(codec, rate=Fraction(fps), options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if matrix:
            stream.set_display_matrix([*matrix[:2], 0, *matrix[2:], 0, 0, 0, 1])
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        audio = sound and output.add_stream(sound[0], rate=sound[1], layout=sound[2])
        for n, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[n]), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        if audio:
            wave = np.sin(np.arange(int(sound[1] * len(pictures) / fps)) / 20) * 8000
            channels = audio.codec_context.layout.nb_channels
            wave = np.repeat(wave.astype(np.int16), channels)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout=sound[2])
            frame.rate, frame.pts, frame.time_base = sound[1], 0, Fraction(1, sound[1])
            output.mux([*audio.encode(frame), *audio.encode(None)])
        output.mux(stream.encode(None))
    return path


def write_eccv_clip(folder: Path, numbers=range(1, 5), height=32, width=64) -> Path:
    folder.mkdir(parents=True)
    for n in numbers:
        Image.fromarray(moving_disc(n, height, width)).save(folder / f"{n:04d}.jpg")
        truth = (moving_disc(n, 16, 32)[..., 1] > 200).astype(np.float32) * n
        np.save(folder / f"{n:04d}_gt.npy", truth)
    return folder


def write_data_set(root: Path, clips="ab", numbers=range(1, 4), height=20, width=40, **splits):
    for name in clips:
        write_eccv_clip(root / name, numbers, height, width)
    (root / "splits.json").write_text(json.dumps(splits or {"train": ["a"], "val": ["b"]}))
    return root


def frame_times(path):
    with av.open(str(path)) as file:
        return [float(frame.time) for frame in file.decode(video=0)]


def read_pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def write_varying_video(path, times, codec="libx264"):
    """A clip whose header states a rate of 1000; times: seconds of its frames."""
    return write_video(path, len(times), fps=1000, codec=codec, times=times)
