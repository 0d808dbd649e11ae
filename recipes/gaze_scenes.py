"""Make 360° scenes of real photographs and video clips with the fixations of real people.

    python -m recipes.gaze_scenes --sources DIR --people people.json --output gaze_360

A scene is a mosaic of photographs that cover the sphere; or windows, a few photographs of different
sizes; or panels, whole photographs side by side around the horizon; or panels with large
photographs of people before them (recipes/collages.py). In some scenes flat clips play. The
background of all but mosaics continues their own colours, or is a rendered world or a blurred
photograph. Everything is a function of unit directions, so the seam and the poles need no special
care.

Attention follows the fixations, which are carried to the sphere with their photograph and weighted
with the share of it that is visible there. Its density per steradian is proportional to

    prior(latitude) ^ POWERS · (BASE + content)

with the equator prior over latitude alone, because a still panorama has no front. The content of a
photograph is its fixations blurred by SIGMA, with a mean of 1 over the photograph; that of a
background is EMPTY. The content of photographs near the horizon is near the horizon too, so the
full prior would count latitude twice. With the powers, the mean attention over all scenes of a
kind has the prior's standard deviation in latitude.

Fixations on people (recipes/people.py) keep nearly all of their weight at any latitude, by the
power ON_PEOPLE: somebody near the camera is looked at wherever they are. How much denser attention
is there than by the prior alone is written as NNNN_lift.npy, but not for mosaics, in which nobody
stands near anything.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator

from common.errors import InputError, run_script
from common.files import json_bytes, write_array
from common.options import HelpFormatter, at_least
from datasets.gaze import gaussian_map
from datasets.gaze_files import NO_OBSERVER, Fixations, write_fixations_csv
from models.equator_prior import gaze_density
from prepare.figures import rotation
from prepare.records import split, write_files
from prepare.synthetic import write_clip, write_clips
from prepare.worlds import look_up, random_world, smooth
from projection import directions, solid_angles
from projection.sphere import latitude_of, latitudes, longitude_of
from recipes.collages import LEVEL, LUMA, Album, mosaic, near, panels, surroundings, windows
from recipes.gaze_sources import LICENCES, Sources, read_sources
from recipes.patches import Canvas, angles, pose
from video.pictures import read_picture

FRAMES, FPS = 2, 8.0  # frames of each scene, a second
ATTENTION_HEIGHT = 128  # pixels of an attention map; it is twice as wide
BASE, EMPTY = 0.05, 0.25  # see above
SIGMA = 3.34  # degrees, as in datasets/gaze.py; it is 3 % of a photograph 111° wide
SHARES = {mosaic: 0.24, windows: 0.16, panels: 0.4, near: 0.2}  # of the scenes
POWERS = {mosaic: 1.0, windows: 0.9, panels: 0.55, near: 0.55}  # exponents of the prior
ON_PEOPLE = 0.12  # the exponent for fixations on people
BACKGROUNDS = {"surroundings": 0.6, "world": 0.2, "blurred": 0.2}  # shares of windows and panels
STILL = 0.5  # share of the scenes with a camera that does not move
FIXATIONS = 60, 121  # range of the expected number of fixations in a frame
HELD_OUT = 1 / 20  # share of the scenes for validation, and as many for test
RENDERER = (
    "recipes.gaze_scenes", "recipes.collages", "recipes.patches", "recipes.gaze_sources",
    "datasets.gaze", "prepare.worlds",
)  # fmt: skip


class Scene:
    """A scene with its photographs, background, camera and colours, all drawn from one seed."""

    def __init__(self, seed, sources: Sources, height: int):
        """seed: as numpy.random.default_rng takes it. height: of a frame; it is twice as wide."""
        self.rng = rng = np.random.default_rng(seed)
        self.rays = directions(height, 2 * height, torch.float32).numpy()
        album = Album(rng, sources, FRAMES, math.pi / height)
        arrange = list(SHARES)[rng.choice(len(SHARES), p=list(SHARES.values()))]
        self.placed = arrange(rng, album)
        self.power = POWERS[arrange]
        self.lifts = arrange is not mosaic
        self.world = self.blurred = None
        background = rng.choice(list(BACKGROUNDS), p=list(BACKGROUNDS.values()))
        if arrange is mosaic or background == "blurred":
            image, size = read_picture(album.photograph().path), [int(rng.integers(6, 25))] * 2
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            self.blurred = cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)
        elif background == "world":
            self.world = 255 * smooth(random_world(rng, 2 * height, 4 * height))
        else:
            self.world = smooth(surroundings(self.placed))
        moves = rng.random() >= STILL
        self.yaw = rng.uniform(0, 2 * math.pi)
        self.turning = math.radians(rng.normal(0, 8)) * moves  # radians a second
        self.shaking = np.radians(rng.uniform(0, 3, 3)) * (moves and rng.random() < 0.6)
        self.rates = rng.uniform(0.1, 0.7, 3)  # of shaking, in hertz
        self.drift = rng.normal(0, 0.15) * moves  # change of the exposure in a second
        self.flicker = rng.uniform(0, 0.03) * (moves and rng.random() < 0.3)
        self.grain = rng.uniform(0, 6) * (rng.random() < 0.4)
        self.colours, self.contrast = colour_changes(rng)

    def camera(self, seconds: float) -> np.ndarray:
        """Return the rotation (3, 3) from the camera's axes to the world's."""
        yaw, pitch, roll = self.shaking * np.sin(2 * math.pi * self.rates * seconds)
        return pose(self.yaw + self.turning * seconds + yaw, -pitch, -roll)

    def background(self, camera: np.ndarray) -> np.ndarray:
        """Return the background's colours (H, W, 3).

        A blurred photograph is stretched over the front half of the sphere, and mirrored over
        the back half.
        """
        rays = self.rays @ camera.T.astype(np.float32)
        if self.world is not None:
            return look_up(self.world, rays)
        column, row = (128 + 127 * rays[..., 0], 128 - 127 * rays[..., 1])
        return cv2.remap(self.blurred, column, row, cv2.INTER_LINEAR)

    def paint(self, frame: int) -> tuple[Canvas, np.ndarray, np.ndarray, np.ndarray]:
        """Return the painted canvas, and of the fixations in it the directions (N, 3), the
        weights and the exponents of the prior, (N,) each.
        """
        camera = self.camera(frame / FPS)
        canvas, rays, weights, powers = Canvas(self.rays), [], [], []
        for placed in self.placed:
            patch = placed.patch.seen_from(camera)
            image, (u, v, weight, person) = placed.at(frame)
            rays.append(patch.directions(u, v))
            weights.append(weight * canvas.visible(patch, rays[-1]))
            powers.append(np.where(person, min(ON_PEOPLE, self.power), self.power))
            canvas.put(patch, image)
        canvas.light += canvas.left[..., None] * self.background(camera)
        return canvas, *(np.concatenate(parts) for parts in (rays, weights, powers))

    def expose(self, light: np.ndarray, frame: int) -> np.ndarray:
        """Return colours (H, W, 3) up to 255 as the camera records them: uint8."""
        flicker = self.flicker * self.rng.standard_normal()
        gain = np.float32(1 + self.drift * frame / FPS + flicker)
        noise = self.rng.standard_normal(light.shape, dtype=np.float32) * np.float32(self.grain)
        exposed = (light @ self.colours.T + self.contrast) * gain + noise
        return (exposed.clip(0, 255) + np.float32(0.5)).astype(np.uint8)


def colour_changes(rng: Generator) -> tuple[np.ndarray, np.float32]:
    """Return random saturation, hue, tint and contrast as a matrix (3, 3) and an offset."""
    saturation = rng.uniform(0.6, 1.3) * (rng.random() > 0.05)
    turn = rotation(np.ones(3) / math.sqrt(3), math.radians(rng.normal(0, 5)))
    contrast, tint = rng.uniform(0.8, 1.25), rng.normal(1, 0.04, 3) * rng.uniform(0.8, 1.1)
    grey = np.tile(LUMA, (3, 1))
    colours = np.diag(contrast * tint) @ (grey + saturation * turn @ (np.eye(3) - grey))
    return colours.astype(np.float32), np.float32((1 - contrast) * LEVEL)


class Attention:
    """The density of attention as a map (A, 2A), and fixations that are drawn from it."""

    def __init__(self, height: int = ATTENTION_HEIGHT):
        self.size = height, 2 * height
        prior = gaze_density(height, 1).numpy()  # north first
        self.prior = prior / prior.max()
        self.latitudes = latitudes(height).numpy()
        self.areas = solid_angles(height, 2 * height, torch.float64).numpy()

    def density(
        self,
        rays: np.ndarray,
        weights: np.ndarray,
        left: np.ndarray,
        power: float = 1.0,
        powers: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the density, and the attention to each fixation and to the rest.

        rays, weights: fixations (N, 3) and (N,).
        left: (H, W) share of each pixel that the photographs leave to the background.
        power: exponent of the prior. powers: of each fixation, (N,), as the rest if not given.

        Returns: float32 (A, 2A) with maximum 1; shares of the fixations (N,), and of base and
        background in each pixel (A, 2A), which are not normalised.
        """
        density, shares, rest = self.sums(rays, weights, left, power, powers)
        return (density / density.max()).astype(np.float32), shares, rest

    def lift(self, rays, weights, left, power: float, powers: np.ndarray) -> np.ndarray:
        """Return the density over that with one power for all, float16 (A, 2A), at least 1."""
        density, alone = (self.sums(rays, weights, left, power, p)[0] for p in (powers, None))
        return (density / alone).clip(1, 1e4).astype(np.float16)

    def sums(self, rays, weights, left, power, powers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what `density` returns, but the density as the formula above gives it."""
        longitude, latitude = angles(rays)
        peaks = weights / (2 * math.pi * math.radians(SIGMA) ** 2)
        powers = np.full(len(weights), power) if powers is None else powers
        rest = BASE + EMPTY * cv2.resize(left, self.size[::-1], interpolation=cv2.INTER_AREA)
        prior = self.prior**power
        density, shares = prior * rest, np.zeros(len(weights))
        for each in np.unique(powers):
            these, own = powers == each, self.prior**each
            seen = (peaks > 1e-6) & these
            content = gaussian_map(longitude[seen], latitude[seen], *self.size, SIGMA, peaks[seen])
            density = density + own * content.numpy()
            there = np.interp(latitude[these], self.latitudes[::-1], own[::-1, 0])
            shares[these] = weights[these] * there
        return density, shares, prior * rest * self.areas

    def draw(
        self, rng: Generator, rays: np.ndarray, shares: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return longitudes and latitudes (M,) of random fixations.

        Some are among the fixations (N, 3), drawn by their shares (N,); the others are anywhere,
        drawn by the shares of the rest (A, 2A).
        """
        wanted = rng.integers(*FIXATIONS) / (shares.sum() + rest.sum())
        longitude, latitude = angles(rays[rng.random(len(shares)) < wanted * shares])
        count = rng.poisson(wanted * rest.sum())
        pixel = rng.choice(rest.size, count, p=(rest / rest.sum()).ravel())
        row, column = np.divmod(pixel, self.size[1]) + rng.random((2, count))
        return (
            np.concatenate([longitude, longitude_of(column - 0.5, self.size[1])]),
            np.concatenate([latitude, latitude_of(row - 0.5, self.size[0])]),
        )


def render(
    seed, sources: Sources, height: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]]:
    """Render the frames of one scene, one at a time.

    Yields: RGB uint8 (H, 2H, 3), attention float16 (A, 2A) with maximum 1, its lift if it has one,
    and longitudes and latitudes (N,) of fixations in radians.
    """
    scene, attention = Scene(seed, sources, height), Attention()
    for frame in range(FRAMES):
        canvas, rays, weights, powers = scene.paint(frame)
        given = rays, weights, canvas.left, scene.power, powers
        density, shares, rest = attention.density(*given)
        lift = attention.lift(*given) if scene.lifts else None
        image = scene.expose(canvas.light, frame)
        places = attention.draw(scene.rng, rays, shares, rest)
        yield image, density.astype(np.float16), lift, *places


@lru_cache(maxsize=1)  # once in each process
def sources_of(root: Path, people: Path) -> dict[str, Sources]:
    return read_sources(root, people)


def write_scene(
    folder: Path, root: Path, people: Path, part: str, number: int, facts: dict
) -> None:
    """Write one scene from the sources of one split below `root`.

    people: see read_sources.
    facts: the properties of the data set that the scene depends on; they go into its prepared.json.
    """
    seed = (facts["seed"], number)
    facts = {**facts, "seed": list(seed), "split": part}
    quality = facts["quality"] = int(np.random.default_rng((*seed, 1)).integers(70, 96))
    frames = render(seed, sources_of(root, people)[part], facts["height"])
    write_clip(folder, facts, with_fixations(folder, frames), quality)


def with_fixations(folder: Path, frames: Iterable) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the RGB and attention of what `render` yields; write its lifts and fixations.csv."""
    places = []
    for number, (image, attention, lift, *place) in enumerate(frames, start=1):
        places.append(place)
        if lift is not None:
            write_array(folder / f"{number:04d}_lift.npy", lift)
        yield image, attention
    longitudes, latitudes = zip(*places, strict=True)
    numbers = np.repeat(np.arange(1, len(places) + 1), [len(at) for at in longitudes])
    where = np.concatenate(longitudes), np.concatenate(latitudes)
    observers = np.full(len(numbers), NO_OBSERVER)
    write_fixations_csv(folder / "fixations.csv", Fixations(numbers, *where, observers))


def write_dataset(
    root: Path,
    sources: Path,
    people: Path,
    clips: int,
    seed: int,
    height: int,
    part: str = "all",
    workers: int = 1,
) -> None:
    """Write scenes in the layout of the ECCV 2018 data, each from photographs of one split.

    part: the split that all scenes belong to, or "all". Scenes that are complete are kept;
    splits.json is written last. The files do not depend on the number of workers.
    Raises InputError where the sources are damaged or hold nothing for a split.
    """
    sources, people = sources.resolve(), people.resolve()
    available = sources_of(sources, people)
    names = [f"scene_{number:06d}" for number in range(1, clips + 1)]
    splits = split(names, HELD_OUT, HELD_OUT) if part == "all" else {part: names}
    for name, scenes in splits.items():
        if scenes and not (available[name].photographs or available[name].clips):
            raise InputError(f"{sources}: holds nothing for the split '{name}'; add more sources")
    sets = [name for name in LICENCES if (sources / name).is_dir()]
    kinds = "fixations.npz", "*maps/*.png"
    files = [path for name in sets for kind in kinds for path in (sources / name).glob(kind)]
    fixations = b"".join(path.read_bytes() for path in (*sorted(files), people))
    facts = {
        "seed": seed,
        "height": height,
        "frames": FRAMES,
        "fixations": hashlib.sha256(fixations).hexdigest()[:12],
        "renderer": source_hash(*RENDERER),
    }
    licences = {name: LICENCES[name] for name in sets}
    about = {"clips": clips, "split": part, **facts, "sources": licences}
    described = {"scenes.json": json_bytes(about), "splits.json": json_bytes(splits)}
    write_files(root, described, only_check=True)
    root.mkdir(parents=True, exist_ok=True)
    (root / "splits.json").unlink(missing_ok=True)
    part_of = {scene: name for name, scenes in splits.items() for scene in scenes}
    jobs = [
        (root / scene, sources, people, part_of[scene], number, facts)
        for number, scene in enumerate(names, start=1)
    ]
    write_clips(root, write_scene, jobs, workers)
    write_files(root, described)


def source_hash(*modules: str) -> str:
    """Return twelve digits that change with the source of modules, such as "prepare.worlds"."""
    root = Path(__file__).resolve().parents[1]
    sources = ((root / f"{name.replace('.', '/')}.py").read_bytes() for name in modules)
    return hashlib.sha256(b"".join(sources)).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.gaze_scenes",
        description="Make 360° scenes of photographs and clips with real fixations.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--sources", type=Path, required=True,
        help=f"folder that holds any of {', '.join(LICENCES)}")  # fmt: skip
    add("--people", type=Path, required=True, help="file of recipes.people")
    add("--output", type=Path, default="gaze_360", help="folder of the data set")
    add("--clips", type=at_least(1, kind=int), default=600, help="number of scenes")
    add("--seed", type=int, default=0, help="seed for everything that is drawn at random")
    add(
        "--height",
        type=at_least(1, kind=int),
        default=512,
        help="pixels of a frame, which is twice as wide",
    )
    add("--split", choices=["all", "train", "val", "test"], default="all",
        help="split of the sources to use; all: 5 %% of the scenes are for validation and 5 %% "
        "for test")  # fmt: skip
    add(
        "--workers",
        type=at_least(1, kind=int),
        default=os.cpu_count() or 1,
        help="number of processes",
    )
    args = parser.parse_args()
    write_dataset(args.output, args.sources, args.people, args.clips, args.seed, args.height,
                  args.split, args.workers)  # fmt: skip


if __name__ == "__main__":
    run_script(main)
