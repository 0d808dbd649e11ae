"""360° scenes of real photographs with real fixations: `python -m recipes.gaze_scenes`.

A scene is a mosaic, photographs that cover the sphere; or windows, a few photographs of different
sizes; or panels, whole photographs side by side around the horizon (recipes/collages.py). In some
of them flat clips play. Behind windows and panels their own colours go on, or there is a rendered
world or a blurred photograph.
Everything is a function of unit directions, so the seam and the poles are exact.

Attention follows the fixations, which are carried to the sphere with their photograph and count
as much as what they fell on is seen there. Its density per steradian is proportional to

    prior(latitude) ^ POWERS · (BASE + content)

with the prior of models/equator_prior.py over latitude alone: a still panorama has no front. The
content of a photograph is its fixations blurred by SIGMA, with a mean of 1 over the photograph;
that of a background is EMPTY. Where photographs keep to the horizon, so does their content, and
the prior's latitudes would count twice; with the powers, the mean over all scenes of a kind has the
prior's spread.
"""

import argparse
import hashlib
import math
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator

from cli import InputError, run_script, write_json
from datasets.gaze import gaussian_map
from models.equator_prior import gaze_density
from prepare.figures import UP, rotation
from prepare.rendered import source_hash, split, write_clip, write_clips
from prepare.worlds import look_up, random_world, smooth
from projection import directions, solid_angles
from projection.sphere import latitudes
from recipes.collages import LEVEL, LUMA, Album, mosaic, panels, surroundings, windows
from recipes.gaze_sources import LICENCES, Sources, read_sources
from recipes.patches import AHEAD, RIGHT, Canvas
from video.reader import read_picture

BASE, EMPTY = 0.05, 0.25  # see above
SIGMA = 3.34  # degrees, see datasets/gaze.py; it is 3 % of a photograph 111° wide
FPS = 8.0
SHARES = {mosaic: 0.3, windows: 0.2, panels: 0.5}  # of the scenes
POWERS = {mosaic: 1.0, windows: 0.9, panels: 0.55}  # of the prior
BACKGROUNDS = {"surroundings": 0.6, "world": 0.2, "blurred": 0.2}  # shares of them
STILL = 0.5  # share of the scenes in which the camera is
FIXATIONS = 60, 121  # about so many a frame, drawn from this range
HELD_OUT = 1 / 20  # of the scenes for validation and for test each, in a data set with all three
RENDERER = (
    "recipes.gaze_scenes", "recipes.collages", "recipes.patches", "recipes.gaze_sources",
    "datasets.gaze", "prepare.worlds",
)  # fmt: skip


class Scene:
    """Everything drawn from one seed, as seen at height × width for some frames."""

    def __init__(self, seed, sources: Sources, frames: int, height: int, width: int):
        """seed: as numpy.random.default_rng takes it. frames: to be played of a clip."""
        self.rng = rng = np.random.default_rng(seed)
        self.rays = directions(height, width, torch.float32).numpy()
        album = Album(rng, sources, frames, math.pi / height)
        arrange = list(SHARES)[rng.choice(len(SHARES), p=list(SHARES.values()))]
        self.placed = arrange(rng, album)
        self.power = POWERS[arrange]
        self.world = self.blurred = None
        behind = rng.choice(list(BACKGROUNDS), p=list(BACKGROUNDS.values()))
        if arrange is mosaic or behind == "blurred":
            image, size = read_picture(album.photograph().path), [int(rng.integers(6, 25))] * 2
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            self.blurred = cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)
        elif behind == "world":
            self.world = 255 * smooth(random_world(rng, 2 * height, 2 * width))
        else:
            self.world = smooth(surroundings(self.placed))
        moves = rng.random() >= STILL
        self.yaw = rng.uniform(0, 2 * math.pi)
        self.turning = math.radians(rng.normal(0, 8)) * moves  # a second
        self.shaking = np.radians(rng.uniform(0, 3, 3)) * (moves and rng.random() < 0.6)
        self.rates = rng.uniform(0.1, 0.7, 3)
        self.drift = rng.normal(0, 0.15) * moves  # of the exposure, a second
        self.flicker = rng.uniform(0, 0.03) * (moves and rng.random() < 0.3)
        self.grain = rng.uniform(0, 6) * (rng.random() < 0.4)
        self.colours, self.contrast = colour_changes(rng)

    def camera(self, seconds: float) -> np.ndarray:
        """Rotation from the camera's axes to the world's: (3, 3)."""
        yaw, pitch, roll = self.shaking * np.sin(2 * math.pi * self.rates * seconds)
        turn = rotation(UP, self.yaw + self.turning * seconds + yaw)
        return turn @ rotation(RIGHT, pitch) @ rotation(AHEAD, roll)

    def background(self, camera: np.ndarray) -> np.ndarray:
        """(H, W, 3): a world, or a blurred photograph pulled over the sphere from both sides."""
        rays = self.rays @ camera.T.astype(np.float32)
        if self.world is not None:
            return look_up(self.world, rays)
        column, row = (128 + 127 * rays[..., 0], 128 - 127 * rays[..., 1])
        return cv2.remap(self.blurred, column, row, cv2.INTER_LINEAR)

    def paint(self, frame: int) -> tuple[Canvas, np.ndarray, np.ndarray]:
        """The canvas, the directions (N, 3) of all fixations and how they count, (N,)."""
        camera = self.camera(frame / FPS)
        canvas, rays, weights = Canvas(self.rays), [], []
        for placed in self.placed:
            patch = placed.patch.seen_from(camera)
            image, (u, v, weight) = placed.at(frame)
            rays.append(patch.directions(u, v))
            weights.append(weight * canvas.share_at(patch, rays[-1]))
            canvas.put(patch, image)
        canvas.light += canvas.left[..., None] * self.background(camera)
        return canvas, np.concatenate(rays), np.concatenate(weights)

    def expose(self, light: np.ndarray, frame: int) -> np.ndarray:
        """Colours (H, W, 3) up to 255 as the camera records them: uint8."""
        flicker = self.flicker * self.rng.standard_normal()
        gain = np.float32(1 + self.drift * frame / FPS + flicker)
        noise = self.rng.standard_normal(light.shape, dtype=np.float32) * np.float32(self.grain)
        exposed = (light @ self.colours.T + self.contrast) * gain + noise
        return (exposed.clip(0, 255) + np.float32(0.5)).astype(np.uint8)


def colour_changes(rng: Generator) -> tuple[np.ndarray, np.float32]:
    """Saturation, hue, tint, brightness and contrast as a matrix (3, 3) and an offset."""
    saturation = rng.uniform(0.6, 1.3) * (rng.random() > 0.05)
    turn = rotation(np.ones(3) / math.sqrt(3), math.radians(rng.normal(0, 5)))
    contrast, tint = rng.uniform(0.8, 1.25), rng.normal(1, 0.04, 3) * rng.uniform(0.8, 1.1)
    grey = np.tile(LUMA, (3, 1))
    colours = np.diag(contrast * tint) @ (grey + saturation * turn @ (np.eye(3) - grey))
    return colours.astype(np.float32), np.float32((1 - contrast) * LEVEL)


class Attention:
    """Density of attention as a map (A, 2A), and fixations drawn from it."""

    def __init__(self, height: int):
        self.size = height, 2 * height
        prior = gaze_density(height, 1).numpy()  # north first
        self.prior = prior / prior.max()
        self.latitudes = latitudes(height).numpy()
        self.areas = solid_angles(height, 2 * height, torch.float64).numpy()

    def of(self, rays: np.ndarray, weights: np.ndarray, left: np.ndarray, power: float = 1.0):
        """From fixations (N, 3), how they count, (N,), and what the photographs leave, (H, W).

        power: of the prior.

        Returns: float32 (A, 2A) with maximum 1; the shares, not normalised, of the fixations,
        (N,), and of the pixels without them, (A, 2A).
        """
        longitude, latitude = angles(rays)
        peaks = weights / (2 * math.pi * math.radians(SIGMA) ** 2)
        seen = peaks > 1e-6
        content = gaussian_map(longitude[seen], latitude[seen], *self.size, SIGMA, peaks[seen])
        rest = BASE + EMPTY * cv2.resize(left, self.size[::-1], interpolation=cv2.INTER_AREA)
        prior = self.prior**power
        density = prior * (rest + content.numpy())
        there = np.interp(latitude, self.latitudes[::-1], prior[::-1, 0])
        shares = weights * there, prior * rest * self.areas
        return (density / density.max()).astype(np.float32), *shares

    def draw(self, rng: Generator, rays, shares, rest) -> tuple[np.ndarray, np.ndarray]:
        """Longitudes and latitudes, (N,) each, of some of the fixations and some of the rest."""
        wanted = rng.integers(*FIXATIONS) / (shares.sum() + rest.sum())
        longitude, latitude = angles(rays[rng.random(len(shares)) < wanted * shares])
        count = rng.poisson(wanted * rest.sum())
        pixel = rng.choice(rest.size, count, p=(rest / rest.sum()).ravel())
        row, column = np.divmod(pixel, self.size[1]) + rng.random((2, count))
        return (
            np.concatenate([longitude, (column / self.size[1] - 0.5) * 2 * math.pi]),
            np.concatenate([latitude, (0.5 - row / self.size[0]) * math.pi]),
        )


def angles(rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes of directions (N, 3), in radians."""
    return np.arctan2(rays[:, 0], rays[:, 2]), np.arcsin(rays[:, 1].clip(-1, 1))


def render(
    seed,
    sources: Sources,
    frames: int,
    height: int = 240,
    width: int = 480,
    attention_height: int = 128,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The frames of one scene, one at a time.

    Yields: RGB uint8 (H, W, 3), attention float16 (A, 2A) with maximum 1, and longitudes and
    latitudes (N,) of fixations in radians.
    """
    scene, attention = Scene(seed, sources, frames, height, width), Attention(attention_height)
    for frame in range(frames):
        canvas, rays, weights = scene.paint(frame)
        density, mass, rest = attention.of(rays, weights, canvas.left, scene.power)
        image = scene.expose(canvas.light, frame)
        yield image, density.astype(np.float16), *attention.draw(scene.rng, rays, mass, rest)


@lru_cache(maxsize=1)  # once in each process
def sources_of(root: Path) -> dict[str, Sources]:
    return read_sources(root)


def write_scene(folder: Path, root: Path, part: str, number: int, facts: dict) -> None:
    """Write scene `number` of a data set from the sources of one split below `root`.

    facts: those of the whole data set that each scene depends on.
    """
    seed = (facts["seed"], number)
    facts = {**facts, "seed": list(seed), "split": part}
    quality = facts["quality"] = int(np.random.default_rng((*seed, 1)).integers(70, 96))
    size = {name: facts[name] for name in ("frames", "height", "width", "attention_height")}
    sources = sources_of(root)[part]
    write_clip(folder, facts, lambda: render(seed, sources, **size), quality, fixations=True)


def write_dataset(
    root: str | Path,
    sources: str | Path,
    clips: int,
    frames: int = 2,
    seed: int = 0,
    height: int = 240,
    width: int = 480,
    attention_height: int = 128,
    part: str = "all",
    workers: int = 1,
) -> None:
    """Write scenes in the layout of the ECCV 2018 data, each from photographs of one split.

    part: the split that all scenes belong to, or "all". Scenes that are there already are kept;
    splits.json comes last. The files do not depend on the number of workers.
    Raises InputError for bad sources.
    """
    root, sources = Path(root), Path(sources).resolve()
    there = sources_of(sources)
    names = [f"scene_{number:06d}" for number in range(1, clips + 1)]
    splits = split(names, HELD_OUT) if part == "all" else {part: names}
    for name, scenes in splits.items():
        if scenes and not (there[name].photographs or there[name].clips):
            raise InputError(f"{sources}: holds nothing for the split '{name}'; give more sources")
    root.mkdir(parents=True, exist_ok=True)
    (root / "splits.json").unlink(missing_ok=True)
    sets = [name for name in LICENCES if (sources / name).is_dir()]
    fixations = b"".join((sources / name / "fixations.npz").read_bytes() for name in sets)
    options = {"seed": seed, "frames": frames, "height": height, "width": width}
    options["attention_height"] = attention_height
    facts = {
        **options,
        "fixations": hashlib.sha256(fixations).hexdigest()[:12],
        "renderer": source_hash(*RENDERER),
    }
    part_of = {scene: name for name, scenes in splits.items() for scene in scenes}
    jobs = [(root / s, sources, part_of[s], n, facts) for n, s in enumerate(names, start=1)]
    write_clips(root, write_scene, jobs, workers)
    options = {"clips": clips, "split": part, **options}
    command = " ".join(f"--{name} {value}" for name, value in options.items())
    about = {"command": f"python -m recipes.gaze_scenes --sources DIR {command}"}
    about["sources"] = {name: LICENCES[name] for name in sets}
    write_json(root / "scenes.json", {**about, **facts})
    write_json(root / "splits.json", splits)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.gaze_scenes",
        description="Make 360° scenes of photographs and clips with real fixations.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--sources", required=True,
                        help=f"folder that holds any of {', '.join(LICENCES)}")  # fmt: skip
    parser.add_argument("--output", default="gaze_360", help="folder of the data set")
    parser.add_argument("--clips", type=int, default=4000, help="number of scenes")
    parser.add_argument("--frames", type=int, default=2, help="frames of each scene")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other scenes")
    parser.add_argument("--height", type=int, default=240, help="height of a frame in pixels")
    parser.add_argument("--width", type=int, default=480, help="width of a frame in pixels")
    parser.add_argument("--attention_height", type=int, default=128,
                        help="height of a map in pixels; it is twice as wide")  # fmt: skip
    parser.add_argument("--split", choices=["all", "train", "val", "test"], default="all",
                        help="whose photographs to use; all: 5 %% of the scenes are for "
                        "validation, 5 %% for test")  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    a = parser.parse_args()
    for name in ("clips", "frames", "height", "width", "attention_height", "workers"):
        if getattr(a, name) <= 0:
            raise InputError(f"--{name} must be positive, got {getattr(a, name)}")
    write_dataset(a.output, a.sources, a.clips, a.frames, a.seed, a.height, a.width,
                  a.attention_height, a.split, a.workers)  # fmt: skip


if __name__ == "__main__":
    run_script(main)
