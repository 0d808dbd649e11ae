"""Tiny clips for the tests, made on the spot."""

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


def write_video(path: Path, frames=24, height=48, width=96, fps=30, codec="libx264") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            picture = av.VideoFrame.from_ndarray(moving_disc(n, height, width), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def write_eccv_clip(folder: Path, numbers=range(1, 5), height=32, width=64) -> Path:
    folder.mkdir(parents=True)
    for n in numbers:
        Image.fromarray(moving_disc(n, height, width)).save(folder / f"{n:04d}.jpg")
        truth = (moving_disc(n, 16, 32)[..., 1] > 200).astype(np.float32) * n
        np.save(folder / f"{n:04d}_gt.npy", truth)
    return folder


def frame_times(path):
    with av.open(str(path)) as file:
        return [float(frame.time) for frame in file.decode(video=0)]


def read_pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def write_varying_video(path, times, codec="libx264"):
    """A clip whose header states a rate of 1000; times: seconds of its frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for n, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(moving_disc(n, 48, 96), format="rgb24")
            frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
