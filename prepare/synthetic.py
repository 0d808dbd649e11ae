"""Rendered 360° scenes with known attention: `python -m prepare.synthetic --output synthetic_360`.

A scene consists of a textured world, moving figures and a camera that may turn, all of them
functions of unit directions, so that the seam and the poles are exact. The attention to a figure is
its appeal, which is highest for people, times its contrast: the difference in colour from the
background, summed over the visible solid angle; half of it for figures that stand still. Fixations
are drawn from attention. The scenes are no benchmark of human attention.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from common.errors import InputError, run_script
from common.files import json_bytes, write_array
from common.locks import lock
from common.options import HelpFormatter, add_size_options, at_least, pixel_count, worker_count
from datasets.gaze_files import Fixations, to_angles, write_fixations_csv
from datasets.rates import RATES_FILE
from prepare import records
from prepare.figures import KINDS, UP, random_figure, rotation
from prepare.worlds import look_up, mix, random_world, smooth
from projection import directions, solid_angles
from video.writer import write_pictures

BLUR = math.radians(4.5)  # standard deviation of the attention around a point
EQUATOR = 0.03  # attention at the equator; a striking figure has about 1
OBSERVERS = 20  # fixations of each frame
HALF = 0.003  # contrast at which a figure has half of its appeal, in steradians


class Scene:
    """A scene determined by a seed, for frames of height × width pixels."""

    def __init__(self, seed: int | tuple[int, ...], height: int, width: int):
        rng = np.random.default_rng(seed)
        self.rays = directions(height, width, torch.float32).numpy()
        self.areas = solid_angles(height, width).expand(-1, width).flatten().numpy()
        self.texture = smooth(random_world(rng, 2 * height, 2 * width))
        names = ["person", *rng.choice(list(KINDS), rng.integers(2, 9))]
        self.figures = [random_figure(rng, name) for name in names]
        self.figures.sort(key=lambda figure: figure.radius)  # large figures are nearer
        self.yaw = rng.uniform(0, 2 * math.pi)
        self.turning = math.radians(rng.normal(0, 12)) * (rng.random() < 0.7)

    def camera(self, seconds: float) -> np.ndarray:
        """Return the rotation from camera to world coordinates: (3, 3)."""
        return rotation(UP, self.yaw + self.turning * seconds)

    def paint(self, seconds: float, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return RGB in about [0, 1], (H, W, 3), and the contrast of each figure, (K,)."""
        rays = self.rays @ camera.T.astype(np.float32)
        world = look_up(self.texture, rays).reshape(-1, 3)
        rays, picture = rays.reshape(-1, 3), world.copy()
        nearest = np.zeros(len(rays), int)  # index of the figure at each pixel; 0 is the world
        for number, figure in enumerate(self.figures, start=1):
            pose = figure.at(seconds).astype(np.float32)
            around = np.flatnonzero(rays @ pose[:, 2] > math.cos(1.1 * figure.radius))
            colours, coverage = figure.draw(rays[around] @ pose, math.pi / len(self.rays), seconds)
            picture[around] = mix(picture[around], colours, coverage)
            nearest[around[coverage > 0.5]] = number
        difference = abs(picture - world).mean(axis=1) * self.areas
        contrast = np.bincount(nearest, difference, len(self.figures) + 1)[1:]
        return picture.reshape(self.rays.shape), contrast

    def attention(
        self, seconds: float, camera: np.ndarray, contrast: np.ndarray, rays: np.ndarray
    ) -> np.ndarray:
        """Return attention, (A, B) up to 1, along camera rays (A, B, 3), for contrasts (K,)."""
        density = EQUATOR * np.exp(-8 * rays[..., 1] ** 2)
        for figure, stands_out in zip(self.figures, contrast, strict=True):
            centre = (camera.T @ figure.at(seconds)[:, 2]).astype(np.float32)
            width = math.hypot(BLUR, 0.4 * figure.radius)
            strength = figure.kind.appeal * stands_out / (stands_out + HALF)
            strength *= 1 if figure.speed else 0.5
            density += np.float32(strength) * np.exp((rays @ centre - 1) / np.float32(width**2))
        return density / density.max()


def render(
    seed: int | tuple[int, ...],
    frames: int,
    height: int = 240,
    width: int = 480,
    fps: float = 8.0,
    attention_height: int = 128,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield RGB uint8 (H, W, 3) and attention float32 (A, 2A), at most 1, frame by frame."""
    scene = Scene(seed, height, width)
    rays = directions(attention_height, 2 * attention_height, torch.float32).numpy()
    for number in range(frames):
        seconds = number / fps
        camera = scene.camera(seconds)
        picture, contrast = scene.paint(seconds, camera)
        picture = (picture.clip(0, 1) * 255).round().astype(np.uint8)
        yield picture, scene.attention(seconds, camera, contrast, rays)


def draw_fixations(attention: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return longitudes and latitudes, (OBSERVERS,) radians, drawn from attention (A, 2A)."""
    height, width = attention.shape
    share = attention * solid_angles(height, width, torch.float64).numpy()
    pixels = rng.choice(share.size, OBSERVERS, p=share.ravel() / share.sum())
    row, column = np.divmod(pixels, width) + rng.random((2, OBSERVERS))  # anywhere in the pixel
    return to_angles(column / width, row / height)


def write_scene(folder: Path, seed: int, number: int, options: dict) -> None:
    """Write one clip. options: of `render`, except for the seed."""
    rng = np.random.default_rng((seed, number, OBSERVERS))
    frames = render((seed, number), **options)
    write_clip(folder, {"seed": [seed, number], **options}, frames, rng=rng)


def write_clip(
    folder: Path,
    facts: dict,
    frames: Iterable,
    quality: int = 92,
    rng: np.random.Generator | None = None,
) -> None:
    """Write one clip unless it is complete and has the same facts (prepare/records.py).

    frames: RGB uint8 (H, W, 3) and attention (A, 2A) of each; iterated only if they are written.
    quality: of JPEG files, at most 100. rng: generator for drawing fixations; None: no fixations.
    """
    record = records.clip_record(folder, facts)
    if records.begin_clip(record):
        places: list[tuple[np.ndarray, ...]] = []
        for n, (frame, attention) in enumerate(frames, start=1):
            records.save_picture(folder / f"{n:04d}.jpg", frame, quality=quality)
            write_array(folder / f"{n:04d}_gt.npy", attention)
            if rng:
                places.append(draw_fixations(attention, rng))
        if rng:
            numbers = np.repeat(range(1, len(places) + 1), OBSERVERS)
            observers = np.tile(range(OBSERVERS), len(places))
            x, y = np.concatenate(places, axis=1)
            fixations = Fixations(numbers, x, y, observers)
            write_fixations_csv(folder / "fixations.csv", fixations)
        record.finish()


def write_dataset(root: Path, clips: int, seed: int = 0, workers: int = 1, **options) -> None:
    """Write clips in the ECCV 2018 layout, the same for any number of processes."""
    names = [f"scene_{number:04d}" for number in range(1, clips + 1)]
    splits, rates = records.split(names), {"fps": options.get("fps", 8.0)}
    files = {RATES_FILE: json_bytes(rates), "splits.json": json_bytes(splits)}
    records.write_files(root, files, only_check=True)
    (root / "splits.json").unlink(missing_ok=True)
    jobs = [(root / name, seed, number, options) for number, name in enumerate(names, start=1)]
    write_clips(root, write_scene, jobs, workers)
    records.write_files(root, files)
    records.print_splits(splits)


def write_clips(root: Path, write: Callable, jobs: list[tuple], workers: int) -> None:
    """Call write(*job) for every job, in several processes if `workers` > 1, until an error."""
    bar = tqdm(jobs, str(root), unit="clip")
    if workers == 1:
        for job in bar:
            write(*job)
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when a worker starts
    spawn = multiprocessing.get_context("spawn")  # a forked copy of torch's threads can hang
    interrupts: list[int] = []  # deferred: while the pool ends, a signal would make it hang
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        with ProcessPoolExecutor(workers, spawn, start_worker) as pool, bar:
            with without_interrupts():  # nor in the processes started here
                done = [pool.submit(write, *job) for job in jobs]
            try:
                for future in done:
                    future.result()
                    bar.update()
                    if interrupts:
                        raise KeyboardInterrupt
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Defer Ctrl-C until the block ends; processes started in it never receive it."""
    change = getattr(signal, "pthread_sigmask", None)  # Windows has none
    if change:
        change(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if change:
            change(signal.SIG_UNBLOCK, {signal.SIGINT})


def start_worker() -> None:
    """Use one thread, and ignore Ctrl-C, after which the parent lets clips be finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m prepare.synthetic",
        description="Render a data set of synthetic scenes; the same command resumes a run.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default="synthetic_360", help="folder of the data set")
    add("--video", type=Path, help="write one scene as this .mp4 file instead of a data set")
    add("--clips", type=at_least(1, 10**6, int), default=300, help="number of scenes")
    add("--frames", type=at_least(1, 10**6, int), default=3, help="number of frames of each scene")
    add("--fps", type=at_least(0.1, 1001), default=8.0, help="frames a second")
    add_size_options(add)
    add("--attention_height", type=pixel_count, default=128, help="height of a map, half its width")
    add("--seed", type=at_least(0, 2**32, int), default=0, help="seed of all scenes")
    add("--workers", type=worker_count, default=os.cpu_count() or 1, help="number of processes")
    args = parser.parse_args()
    names = ("frames", "height", "width", "fps", "attention_height")
    options = {name: getattr(args, name) for name in names}
    if args.video:
        if args.height % 2 or args.width % 2:
            raise InputError("--height and --width of a video must be even; change them")
        bar = tqdm(render(args.seed, **options), str(args.video), args.frames, unit="frame")
        pictures = (picture for picture, _ in bar)
        write_pictures(args.video, pictures, args.height, args.width, args.fps)
    else:
        with lock(args.output):
            write_dataset(args.output, args.clips, args.seed, args.workers, **options)


if __name__ == "__main__":
    run_script(main)
