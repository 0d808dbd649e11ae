"""Tiny photographs and clips with fixations, as the recipes read them."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_photographs(folder: Path, count=4, seed=0):
    """`count` pictures of 40×30, each with a spot, and 20 fixations of two people on it."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    names = [f"{n:03d}.jpg" for n in range(count)]
    for name in names:
        picture = rng.integers(40, 200, (3, 4, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(picture).save(folder / "images" / name)
    image = np.repeat(np.arange(count), 20).astype(np.int16)
    order = np.tile(np.arange(10), 2 * count).astype(np.int16)
    x, y = rng.random((2, len(image)), dtype=np.float32)
    columns = {"names": np.array(names), "image": image, "order": order, "x": x, "y": y}
    np.savez(folder / "fixations.npz", **columns)
    return columns


def write_clips(folder: Path, names=("Clip",), frames=6):
    rng = np.random.default_rng(1)
    (folder / "frames").mkdir(parents=True)
    files, of_video, times = [], [], []
    for v, name in enumerate(names):
        for n in range(frames):
            files.append(f"{name}_{n}.jpg")
            of_video.append(v)
            times.append(250 * n)
            picture = np.full((30, 40, 3), 30 * n, np.uint8)
            Image.fromarray(picture).save(folder / "frames" / files[-1])
    count = 40 * len(names)
    columns = {
        "names": np.array(names),
        "video": np.repeat(np.arange(len(names)), 40),
        "time_ms": np.tile(np.linspace(300, 250 * frames, 40).astype(int), len(names)),
        "duration_ms": np.full(count, 300),
        **dict(zip("xy", rng.uniform(0.01, 0.99, (2, count)).astype(np.float32))),
        "frame_file": np.array(files),
        "frame_video": np.array(of_video),
        "frame_time_ms": np.array(times),
    }
    np.savez(folder / "fixations.npz", **columns)
    return columns
