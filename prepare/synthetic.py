"""Rendered 360° scenes with known attention: `python -m prepare.synthetic --output synthetic_360`.

A scene is a textured world, figures that move in it and a camera that may turn and shake.
Everything is a function of unit directions (`projection.directions`), so that the seam and the
poles are exact. Attention goes to the figures that can be seen: more to people than to other
kinds, more to what differs from its background, moves, is large or is near the equator. Such
scenes are for tests and demonstrations; they are no benchmark of human attention.
"""

import argparse
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cli import HelpFormatter, InputError, run_script, write_json
from prepare.figures import KINDS, UP, Figure, random_figure, rotation
from prepare.rendered import source_hash, split, write_clip, write_clips
from prepare.worlds import look_up, mix, random_world, smooth
from projection import directions, solid_angles
from video.writer import write_pictures

BLUR = math.radians(4.5)  # standard deviation of the attention to a point
EQUATOR = 0.03  # attention to the equator itself; a striking figure has about 1


class Scene:
    """A scene is all that one seed determines, for frames of height × width pixels."""

    def __init__(self, seed: int | tuple[int, ...], height: int, width: int):
        self.rng = rng = np.random.default_rng(seed)
        self.rays = directions(height, width, torch.float32).numpy()
        self.area = solid_angles(height, width).expand(-1, width).reshape(-1).numpy()
        self.texture = smooth(random_world(rng, 2 * height, 2 * width))
        shares = [kind.share for kind in KINDS.values()]
        names = ["person", *rng.choice(list(KINDS), rng.integers(2, 9), p=shares)]
        eye = rng.uniform(1.2, 3)  # metres above the ground
        self.figures = [random_figure(rng, name, eye) for name in names]
        self.figures.sort(key=lambda figure: figure.radius)  # large ones are near
        self.yaw = rng.uniform(0, 2 * math.pi)
        self.turning = math.radians(rng.normal(0, 12)) * (rng.random() < 0.7)
        self.shaking = np.radians(rng.uniform(0, 4, 3)) * (rng.random() < 0.6)
        self.rates = rng.uniform(0.1, 0.7, 3)
        self.gain = (rng.normal(1, 0.06, 3) * rng.uniform(0.75, 1.2)).astype(np.float32)
        self.grain = np.float32(rng.uniform(0, 0.02))

    def camera(self, seconds: float) -> np.ndarray:
        """Return the rotation from the camera's axes to the world's: (3, 3)."""
        yaw, pitch, roll = self.shaking * np.sin(2 * math.pi * self.rates * seconds)
        turn = rotation(UP, self.yaw + self.turning * seconds + yaw)
        return turn @ rotation(np.array([1.0, 0, 0]), pitch) @ rotation(np.array([0, 0, 1.0]), roll)

    def paint(self, seconds: float, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Paint the scene as an ideal camera records it.

        Returns: RGB in about [0, 1], (H, W, 3), and how much each figure stands out, (K,): its
        mean difference in colour from the world behind it, where what others hide counts as 0.
        """
        rays = self.rays @ camera.T.astype(np.float32)
        world = look_up(self.texture, rays).reshape(-1, 3)
        rays, picture = rays.reshape(-1, 3), world.copy()
        nearest = np.full(len(rays), -1)  # number of the figure at each pixel
        whole = np.zeros(len(self.figures))  # solid angle of each figure, also where it is hidden
        for number, figure in enumerate(self.figures):
            pose = figure.at(seconds).astype(np.float32)
            around = np.flatnonzero(rays @ pose[:, 2] > math.cos(1.1 * figure.radius))
            pixel = math.pi / len(self.rays)
            colours, coverage = figure.draw(rays[around] @ pose, pixel, seconds)
            picture[around] = mix(picture[around], colours, coverage * figure.opacity)
            covered = around[coverage > 0.5]
            nearest[covered] = number
            whole[number] = self.area[covered].sum()
        shown = nearest >= 0
        difference = abs(picture[shown] - world[shown]).mean(axis=1) * self.area[shown]
        contrast = np.bincount(nearest[shown], difference, len(whole)) / np.maximum(whole, 1e-9)
        return picture.reshape(self.rays.shape), contrast

    def expose(self, picture: np.ndarray) -> np.ndarray:
        """Return what a real camera records of a picture (H, W, 3), with noise: uint8."""
        noise = self.rng.standard_normal(picture.shape, dtype=np.float32)
        exposed = picture * self.gain + self.grain * noise
        return (exposed.clip(0, 1) * 255 + 0.5).astype(np.uint8)

    def attention(
        self, seconds: float, camera: np.ndarray, contrast: np.ndarray, rays: np.ndarray
    ) -> np.ndarray:
        """Return attention along rays (A, B, 3) in the camera's axes, at most 1: float32 (A, B).

        contrast: (K,), how much each figure stands out.
        """
        density = EQUATOR * np.exp(-8 * rays[..., 1] ** 2)
        for figure, stands_out in zip(self.figures, contrast, strict=True):
            focus = (camera.T @ figure.focus(seconds)).astype(np.float32)
            width = math.hypot(BLUR, 0.4 * figure.radius)
            strength = np.float32(appeal(figure, float(stands_out), float(focus[1])))
            density += strength * np.exp((rays @ focus - 1) / np.float32(width**2))
        return density / density.max()


def appeal(figure: Figure, contrast: float, height: float) -> float:
    """Return how strongly a figure attracts, about 1 for the most striking.

    contrast: how much it stands out, in [0, 1]. height: the sine of its latitude.
    """
    latitude = math.degrees(math.asin(max(-1.0, min(1.0, height))))  # rounding can exceed 1
    speed = math.degrees(abs(figure.speed))
    strength = figure.kind.appeal * contrast / (contrast + 0.15)
    strength *= 0.5 + 0.5 * speed / (speed + 6)
    strength *= 0.3 + 0.7 * math.exp(-((latitude / 35) ** 2))
    strength *= figure.radius / (figure.radius + math.radians(2))
    return 4 * strength**1.5


def render(
    seed: int | tuple[int, ...],
    frames: int,
    height: int = 240,
    width: int = 480,
    fps: float = 8.0,
    attention_height: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the frames of one scene, one at a time.

    Yields: RGB uint8 (H, W, 3) and attention float32 with maximum 1, (A, 2A) if an attention
    height A is given, else (H, W).
    """
    scene = Scene(seed, height, width)
    size = (attention_height, 2 * attention_height) if attention_height else (height, width)
    rays = directions(*size, torch.float32).numpy()
    for number in range(frames):
        seconds = number / fps
        camera = scene.camera(seconds)
        picture, contrast = scene.paint(seconds, camera)
        yield scene.expose(picture), scene.attention(seconds, camera, contrast, rays)


def write_scene(folder: Path, seed: int, number: int, frames: int, size: dict) -> None:
    """Write one clip; size: height, width, fps and attention_height, as in `render`."""
    facts = {"seed": [seed, number], "frames": frames, **size}
    facts["renderer"] = source_hash("prepare.synthetic", "prepare.figures", "prepare.worlds")
    write_clip(folder, facts, lambda: render((seed, number), frames, **size))


def write_dataset(
    root: str | Path,
    clips: int,
    frames: int,
    height: int = 240,
    width: int = 480,
    seed: int = 0,
    attention_height: int = 128,
    fps: float = 8.0,
    workers: int = 1,
) -> None:
    """Write clips in the layout of the ECCV 2018 data: `<root>/<clip>/0001.jpg`, `0001_gt.npy`.

    Clips that are there already are kept, and `<root>/splits.json` is written last. The files do
    not depend on the number of worker processes.

    Raises: InputError if a clip's folder holds frames that were not rendered.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / "splits.json").unlink(missing_ok=True)
    size = {"height": height, "width": width, "attention_height": attention_height, "fps": fps}
    names = [f"scene_{number:04d}" for number in range(1, clips + 1)]
    jobs = [(root / name, seed, n, frames, size) for n, name in enumerate(names, start=1)]
    write_clips(root, write_scene, jobs, workers)
    write_json(root / "splits.json", split(names))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m prepare.synthetic",
        description="Render a 360° saliency data set of synthetic scenes.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--output", default="synthetic_360", help="folder of the data set")
    add("--video", help="write one scene as this .mp4 file instead of a data set")
    add("--clips", type=int, default=1000, help="number of scenes")
    add("--frames", type=int, default=3, help="number of frames in each scene")
    add("--fps", type=float, default=8.0, help="frames a second")
    add("--height", type=int, default=240, help="height of a frame in pixels")
    add("--width", type=int, default=480, help="width of a frame in pixels")
    add("--attention_height", type=int, default=128, help="height of a map, half its width")
    add("--seed", type=int, default=0, help="seed of all scenes")
    add("--workers", type=int, default=os.cpu_count() or 1, help="number of processes")
    args = parser.parse_args()
    for name in ("clips", "frames", "fps", "height", "width", "attention_height", "workers"):
        if getattr(args, name) <= 0:
            raise InputError(f"--{name} must be positive, got {getattr(args, name)}")
    size = args.height, args.width
    if args.video:
        Path(args.video).parent.mkdir(parents=True, exist_ok=True)
        scene = render(args.seed, args.frames, *size, args.fps, attention_height=2)
        bar = tqdm(scene, args.video, total=args.frames, unit="frame")
        write_pictures(args.video, (picture for picture, _ in bar), *size, args.fps)
    else:
        write_dataset(
            args.output, args.clips, args.frames, *size, args.seed, args.attention_height,
            args.fps, args.workers,
        )  # fmt: skip


if __name__ == "__main__":
    run_script(main)
