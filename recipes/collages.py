"""Photographs arranged on the sphere: mosaics cover it, the others leave a background.

Angles are in radians.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.random import Generator

from prepare.figures import UP, rotation
from projection import directions, solid_angles
from recipes.gaze_sources import Picture, Sources
from recipes.patches import Canvas, Outline, Patch, angles, pose
from video.pictures import read_picture

PLAYING = 1 / 3  # share of the scenes in which one to three clips play
TALL = 0.4  # of a picture's height: least size of somebody who stands near the camera
PLAYED_BELOW = math.radians(40)  # largest latitude of a clip; few people look beyond
SPACING = 0.75  # distance of a mosaic's photographs as a share of their width
AROUND = 48  # rows of the picture of the surroundings
NEAR = 0.002  # 1 − cos of 3.6°, the angle below which distance hardly matters
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
LEVEL = 115.0  # luminance towards which each photograph's mean is moved


def lattice(count: int) -> np.ndarray:
    """Return directions (N, 3) of a Fibonacci lattice, spread evenly over the sphere."""
    index = np.arange(count)
    turn, y = index * math.pi * (3 - math.sqrt(5)), 1 - (2 * index + 1) / count
    across = np.sqrt(1 - y * y)
    return np.stack([across * np.sin(turn), y, across * np.cos(turn)], axis=-1)


PROBES = lattice(1500)  # directions in which a mosaic is tested for holes


class Fixated(NamedTuple):
    """The fixations of one photograph: coordinates u and v as in Patch, and weights, (N,) each.

    The weights sum to the photograph's solid angle, so that the mean of its content is 1.
    person: which of them are on somebody.
    """

    u: np.ndarray
    v: np.ndarray
    weights: np.ndarray
    person: np.ndarray


class Placed(NamedTuple):
    """A photograph or a clip on the sphere, with the image and the fixations of each frame.

    images: uint8 (h, w, 3). After the last frame, that frame stays.
    """

    patch: Patch
    images: list[np.ndarray]
    fixated: list[Fixated]

    def at(self, frame: int) -> tuple[np.ndarray, Fixated]:
        """Return the image and the fixations of a frame."""
        frame = min(frame, len(self.images) - 1)
        return self.images[frame], self.fixated[frame]


class Album:
    """The pictures of a split in random order: first some clips, then the photographs."""

    def __init__(self, rng: Generator, sources: Sources, frames: int, pixel: float):
        """frames: number of frames of each clip. pixel: angle of the scene's pixels."""
        self.rng, self.frames = rng, frames
        self.photographs = sources.photographs or [p for clip in sources.clips for p in clip]
        self.order: list[int] = []
        count = min(rng.integers(1, 4), len(sources.clips)) if rng.random() < PLAYING else 0
        self.clips = [sources.clips[i] for i in rng.permutation(len(sources.clips))[:count]]
        self.density = rng.uniform(0.7, 1.4) / pixel  # resolution of a photograph, pixels a radian

    def portrait(self) -> Picture:
        """Return a photograph of somebody at least TALL as high as the picture, if there is one."""
        heights = ((p.people[:, 3] - p.people[:, 1]).max(initial=0) for p in self.photographs)
        tall = [k for k, height in enumerate(heights) if height >= TALL]
        return self.photographs[tall[self.rng.integers(len(tall))]] if tall else self.photograph()

    def photograph(self) -> Picture:
        """Return the next photograph. All are used before one comes again."""
        if not self.order:
            self.order = self.rng.permutation(len(self.photographs)).tolist()
        return self.photographs[self.order.pop()]

    def deal(self, latitude: float) -> list[Picture]:
        """Return the next photograph or, if one is left, consecutive frames of a clip."""
        if not self.clips or abs(latitude) > PLAYED_BELOW:
            return [self.photograph()]
        clip = self.clips.pop()
        start = self.rng.integers(max(1, len(clip) - self.frames + 1))
        return clip[start : start + self.frames]

    def place(
        self,
        centre: np.ndarray,
        field: float,
        edge: Outline | None = None,
        pictures: list[Picture] | None = None,
    ) -> Placed:
        """Place a photograph or clip at a direction (3,).

        field: field of view of its longer side. edge: a random outline if not given. pictures: the
        next ones if not given.
        """
        rng = self.rng
        longitude, latitude = map(float, angles(centre))
        pictures = pictures or self.deal(latitude)
        images = [read_picture(picture.path) for picture in pictures]
        size = np.array(images[0].shape[1::-1])  # width and height
        roll = math.radians(10) * rng.uniform(-1, 1) * rng.random()
        extent = math.tan(field / 2) * size / size.max()
        patch = Patch(pose(longitude, latitude, roll), extent, edge or outline(rng))
        size = np.rint(size * min(1.0, field * self.density / size.max())).astype(int).clip(1)
        mirror = int(rng.choice([-1, 1]))
        luminance = float(LUMA @ cv2.mean(images[0])[:3])
        gain = float(np.clip((LEVEL / max(luminance, 1.0)) ** 0.6, 0.6, 1.7))
        for i, image in enumerate(images):
            small = cv2.resize(image, size.tolist(), interpolation=cv2.INTER_AREA)
            images[i] = cv2.convertScaleAbs(small[:, ::mirror], alpha=gain)
        return Placed(patch, images, [fixated(p, mirror, patch.solid_angle) for p in pictures])


def outline(rng: Generator) -> Outline:
    """Return a random outline between elliptical and nearly rectangular.

    It fades over 10 to 22 % of the width.
    """
    waves = np.array([rng.uniform(2, 6), *rng.uniform(0, 2 * math.pi, 2)])
    return Outline(2 ** rng.uniform(1, 4), rng.uniform(0.2, 0.45), rng.uniform(0, 0.1), waves)


def fixated(picture: Picture, mirror: int, solid_angle: float) -> Fixated:
    """Return the fixations of a picture. mirror: −1 exchanges left and right, 1 does not."""
    weights = picture.weights / max(picture.weights.sum(), 1e-9) * solid_angle
    return Fixated(mirror * (2 * picture.x - 1), 2 * picture.y - 1, weights, picture.on_people())


def mosaic(rng: Generator, album: Album) -> list[Placed]:
    """Return photographs of one field of view that cover the sphere, front to back."""
    field = math.radians(rng.uniform(40, 100))
    step = SPACING * 2 * math.atan(math.tan(field / 2) * math.sqrt(0.75))  # for 4:3
    centres = lattice(round(4 * math.pi / step**2)) @ rotation(UP, rng.uniform(0, 2 * math.pi))
    centres += rng.normal(0, 0.12 * step, centres.shape)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    queue, left, placed = list(rng.permutation(centres)), np.ones(len(PROBES)), []
    while queue or left.max() > 0.1:
        filling = not queue  # the remaining holes
        hole = PROBES[(left + 0.3 * rng.random(len(left))).argmax()] if filling else queue.pop()
        new = album.place(hole, field)
        opacity = new.patch.opacity(PROBES)
        if filling or (left * opacity).sum() > 0.05 * opacity.sum():  # otherwise it is hidden
            placed.append(new)
            left *= 1 - opacity
    return placed


def windows(rng: Generator, album: Album) -> list[Placed]:
    """Return a few photographs of different sizes that keep their distance, front to back."""
    placed: list[Placed] = []
    for _ in range(rng.integers(3, 13)):
        latitude = np.radians(rng.normal(0, 25, 8)).clip(-1.4, 1.4)
        longitude = rng.uniform(-math.pi, math.pi, 8)
        x, z = np.cos(latitude) * np.sin(longitude), np.cos(latitude) * np.cos(longitude)
        candidates = np.stack([x, np.sin(latitude), z], axis=-1)
        others = np.array([other.patch.pose[:, 2] for other in placed]).reshape(-1, 3)
        nearest = (candidates @ others.T).max(axis=1, initial=-1)  # cosines
        placed.append(album.place(candidates[nearest.argmin()], math.radians(rng.uniform(40, 110))))
    return placed


def panels(rng: Generator, album: Album) -> list[Placed]:
    """Return whole photographs side by side around the horizon.

    Their centres are a little below it: a camera is as high as a head, and most objects around it
    are not.
    """
    count = int(rng.integers(4, 8))
    edge = Outline(power=16, softness=0.12, bumps=0, waves=np.zeros(3))
    field, first = 1.06 * 2 * math.pi / count, rng.uniform(0, 2 * math.pi)
    centres = [
        pose(first + k * 2 * math.pi / count, math.radians(rng.normal(-5, 10)))[:, 2]
        for k in range(count)
    ]
    return [album.place(centre, field, edge) for centre in centres]


def near(rng: Generator, album: Album) -> list[Placed]:
    """Return panels, and before them a few large photographs of people, most below the horizon.

    So people are seen who stand beside a camera, one to three metres away.
    """
    placed: list[Placed] = []
    for _ in range(rng.integers(1, 6)):
        latitude = np.radians(rng.normal(-15, 25, 8)).clip(-1.4, 1.4)
        directions = [pose(rng.uniform(-math.pi, math.pi), where)[:, 2] for where in latitude]
        others = np.array([other.patch.pose[:, 2] for other in placed]).reshape(-1, 3)
        nearest = (np.array(directions) @ others.T).max(axis=1, initial=-1)  # cosines
        field = math.radians(rng.uniform(35, 110))
        chosen = directions[nearest.argmin()]
        placed.append(album.place(chosen, field, pictures=[album.portrait()]))
    return placed + panels(rng, album)


def surroundings(placed: list[Placed]) -> np.ndarray:
    """Return the photographs' colours continued over the sphere: (AROUND, 2·AROUND, 3) float32.

    They are means of all visible colours, weighted by inverse distance (D. Shepard, ACM 1968):
    sky continues above sky, ground below ground.
    """
    canvas = Canvas(directions(AROUND, 2 * AROUND, torch.float32).numpy())
    for photograph in placed:
        small = cv2.resize(photograph.images[0], (16, 16), interpolation=cv2.INTER_AREA)
        canvas.put(photograph.patch, small)
    seen = np.concatenate([canvas.light, 1 - canvas.left[..., None]], axis=-1).reshape(-1, 4)
    around = nearness() @ seen
    return (around[:, :3] / around[:, 3:]).reshape(canvas.light.shape)


@lru_cache(maxsize=1)
def nearness() -> np.ndarray:
    """Return the weight of each pixel of the surroundings for each other one: (N, N) float32.

    It is the pixel's solid angle over nearly the fifth power of the angle between them.
    """
    rays = directions(AROUND, 2 * AROUND, torch.float32).numpy().reshape(-1, 3)
    areas = solid_angles(AROUND, 2 * AROUND, torch.float32).numpy().repeat(2 * AROUND)
    return areas * (1 - rays @ rays.T + np.float32(NEAR)) ** -2.5
