"""Rendered 360° scenes with known attention: `python -m prepare.synthetic --output synthetic_360`.

A scene is a textured world, figures that move through it and a camera that may turn. Everything
is a function of unit directions (`projection.directions`), so the seam and the poles are exact.
Attention goes to the figures that are seen: by kind (people first), contrast with what is behind
them, own motion, novelty, size and closeness to the equator. Angles are radians unless named.
"""

import argparse
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from cli import InputError, run_script, write_json
from prepare.figures import UP, Figure, random_figure, rotation
from prepare.rendered import source_hash, split, write_clip, write_clips
from prepare.worlds import look_up, mix, random_world, smooth
from projection import directions, solid_angles
from video.writer import write_pictures

LAG = 0.25  # seconds: time constant with which attention follows what is seen
NOVELTY = 1.0  # seconds that a newly appeared figure stays interesting
BLUR = math.radians(4.5)  # standard deviation of the attention to a point
EQUATOR = 0.03  # attention to the equator itself; a striking figure has about 1


class Seen(NamedTuple):
    """A figure as the camera sees it now: mean difference in colour from what is behind it, the
    share of it that nothing hides, and its centre of attention (3,) in the camera's axes."""

    contrast: float
    visible: float
    focus: np.ndarray


class Scene:
    """Everything drawn from one seed, as seen at height × width."""

    def __init__(self, seed: int | tuple[int, ...], height: int, width: int):
        rng = np.random.default_rng(seed)
        self.height, self.width = height, width
        self.rays = directions(height, width, torch.float32).reshape(-1, 3).numpy()
        self.area = solid_angles(height, width).expand(-1, width).reshape(-1).numpy()
        texture = random_world(rng, 2 * height, 2 * width)
        self.texture = smooth(texture)
        self.ambient = float(np.clip(1.8 * texture.mean(), 0.45, 1))
        crowd = rng.uniform(0, 2 * math.pi)
        figures = [random_figure(rng, crowd, lead=n < 2) for n in range(rng.integers(3, 10))]
        self.figures = sorted(figures, key=lambda f: f.radius * rng.uniform(0.5, 1.5))
        self.yaw = rng.uniform(0, 2 * math.pi)
        self.turning = math.radians(rng.normal(0, 12)) * (rng.random() < 0.7)
        self.shaking = np.radians(rng.uniform(0, 4, 3)) * (rng.random() < 0.6)
        self.rates = rng.uniform(0.1, 0.7, 3)
        self.gain = (rng.normal(1, 0.06, 3) * rng.uniform(0.75, 1.2)).astype(np.float32)
        self.drift = rng.uniform(0, 0.12)
        self.flicker = rng.uniform(0, 0.04) * (rng.random() < 0.15)
        self.grain = rng.uniform(0, 0.025)
        self.rng = rng

    def camera(self, seconds: float) -> np.ndarray:
        """Rotation from the camera's axes to the world's: (3, 3)."""
        yaw, pitch, roll = self.shaking * np.sin(2 * math.pi * self.rates * seconds)
        turn = rotation(UP, self.yaw + self.turning * seconds + yaw)
        return turn @ rotation(np.array([1.0, 0, 0]), pitch) @ rotation(np.array([0, 0, 1.0]), roll)

    def background(self, camera: np.ndarray) -> np.ndarray:
        """The world without figures: (H·W, 3)."""
        rays = self.rays @ camera.T.astype(np.float32)
        shape = (self.height, self.width, 3)
        return look_up(self.texture, rays.reshape(shape)).reshape(-1, 3)

    def paint(self, seconds: float, camera: np.ndarray) -> tuple[np.ndarray, list[Seen]]:
        """What an ideal camera sees: radiance (H, W, 3) and how each figure stands out."""
        picture = self.background(camera)
        nearest = np.full(len(picture), -1)  # number of the figure seen at each pixel
        painted = []
        for number, figure in enumerate(self.figures):
            pose = (camera.T @ figure.at(seconds)).astype(np.float32)
            around = np.flatnonzero(self.rays @ pose[:, 2] > math.cos(1.1 * figure.radius))
            behind, covered = picture[around], np.zeros(len(around), bool)
            age = figure.age(seconds)
            if age >= 0:
                local = self.rays[around] @ pose
                colours, coverage = figure.draw(local, math.pi / self.height, seconds)
                opacity = figure.opacity * min(1, age / 0.3 + 0.3)
                picture[around] = mix(behind, colours * self.ambient, coverage * opacity)
                covered = coverage > 0.5
                if opacity > 0.5:
                    nearest[around[covered]] = number
            painted.append((around[covered], behind[covered], pose))
        seen = []
        for number, (covered, behind, pose) in enumerate(painted):
            unhidden = nearest[covered] <= number
            area = self.area[covered]
            contrast = visible = 0.0
            if unhidden.any():
                visible = area[unhidden].sum() / area.sum()
                before = (behind[unhidden] * self.gain).clip(0, 1)
                after = (picture[covered[unhidden]] * self.gain).clip(0, 1)
                contrast = np.average(abs(after - before).mean(axis=1), weights=area[unhidden])
            lift = self.figures[number].kind.focus * self.figures[number].radius
            focus = pose[:, 2] * math.cos(lift) + pose[:, 1] * math.sin(lift)
            seen.append(Seen(float(contrast), float(visible), focus))
        return picture.reshape(self.height, self.width, 3), seen

    def expose(self, radiance: np.ndarray, seconds: float) -> np.ndarray:
        """Radiance (H, W, 3) as a camera records it, with its noise: uint8 (H, W, 3)."""
        drift = 1 + self.drift * math.sin(0.9 * seconds + self.yaw)
        gain = self.gain * np.float32(drift * (1 + self.flicker * self.rng.standard_normal()))
        noise = self.rng.standard_normal(radiance.shape, dtype=np.float32)
        exposed = radiance * gain + np.float32(self.grain) * noise
        return (exposed.clip(0, 1) * 255 + 0.5).astype(np.uint8)

    def pull(self, seconds: float, seen: list[Seen]) -> np.ndarray:
        """How strongly each figure draws attention: (K,), about 1 for the most striking."""
        strengths = []
        for figure, (contrast, visible, focus) in zip(self.figures, seen, strict=True):
            moved = figure.at(seconds)[:, 2] - figure.at(seconds - 0.05)[:, 2]
            speed = math.degrees(float(np.linalg.norm(moved))) / 0.05
            latitude = math.degrees(math.asin(max(-1.0, min(1.0, float(focus[1])))))
            age = figure.age(seconds)
            strength = figure.kind.appeal * visible * contrast / (contrast + 0.15)
            strength *= 0.5 + 0.5 * speed / (speed + 6)
            strength *= 0.3 + 0.7 * math.exp(-((latitude / 35) ** 2))
            strength *= figure.radius / (figure.radius + math.radians(2))
            strength *= 1 + 0.8 * math.exp(-age / NOVELTY) if age >= 0 else 0
            strengths.append(4 * strength**1.5)
        return np.array(strengths)


def attention(
    figures: list[Figure], seen: list[Seen], weights: np.ndarray, rays: np.ndarray
) -> np.ndarray:
    """Attention along rays (H, W, 3), with maximum 1: float32 (H, W)."""
    density = EQUATOR * np.exp(-8 * rays[..., 1] ** 2)
    for figure, view, weight in zip(figures, seen, weights, strict=True):
        width = math.hypot(BLUR, 0.4 * figure.radius)
        density += np.float32(weight) * np.exp((rays @ view.focus - 1) / np.float32(width**2))
    return density / density.max()


def render(
    seed: int | tuple[int, ...],
    frames: int,
    height: int = 240,
    width: int = 480,
    fps: float = 8.0,
    attention_height: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The frames of one scene, one at a time.

    Yields: RGB uint8 (H, W, 3) and attention float32 with maximum 1, (H, W), or (A, 2A) where
    an attention height A is given.
    """
    scene = Scene(seed, height, width)
    size = (attention_height, 2 * attention_height) if attention_height else (height, width)
    rays = directions(*size, torch.float32).numpy()
    weights = None
    for number in range(frames):
        seconds = number / fps
        radiance, seen = scene.paint(seconds, scene.camera(seconds))
        pull = scene.pull(seconds, seen)
        weights = pull if weights is None else pull + (weights - pull) * math.exp(-1 / (fps * LAG))
        yield scene.expose(radiance, seconds), attention(scene.figures, seen, weights, rays)


def write_scene(folder: Path, seed: int, number: int, frames: int, size: dict) -> None:
    """size: height, width and attention_height in pixels, and fps, as in `render`."""
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

    Clips that are there already are kept; `<root>/splits.json` comes last. The files do not
    depend on the number of workers.
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
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", default="synthetic_360", help="folder of the data set")
    parser.add_argument("--video", help="write one scene as this .mp4 file instead, no data set")
    parser.add_argument("--clips", type=int, default=1000, help="number of scenes")
    parser.add_argument("--frames", type=int, default=3, help="frames of each scene")
    parser.add_argument("--fps", type=float, default=8.0, help="frames a second")
    parser.add_argument("--height", type=int, default=240, help="height of a frame in pixels")
    parser.add_argument("--width", type=int, default=480, help="width of a frame in pixels")
    parser.add_argument("--attention_height", type=int, default=128,
                        help="height of a map in pixels; it is twice as wide")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other scenes")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    a = parser.parse_args()
    for name in ("clips", "frames", "fps", "height", "width", "attention_height", "workers"):
        if getattr(a, name) <= 0:
            raise InputError(f"--{name} must be positive, got {getattr(a, name)}")
    if a.video:
        Path(a.video).parent.mkdir(parents=True, exist_ok=True)
        scene = render(a.seed, a.frames, a.height, a.width, a.fps, attention_height=2)
        bar = tqdm(scene, a.video, total=a.frames, unit="frame")
        write_pictures(a.video, (picture for picture, _ in bar), a.height, a.width, a.fps)
        return
    write_dataset(a.output, a.clips, a.frames, a.height, a.width, a.seed, a.attention_height,
                  a.fps, a.workers)  # fmt: skip


if __name__ == "__main__":
    run_script(main)
