"""Figures of rendered scenes: people, animals and balls, which attract attention, and trees.

A figure is a flat drawing on the sphere that moves as a rigid body, so that its shape and its solid
angle are the same everywhere. Angles are in radians unless a name or comment gives another unit.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from prepare.worlds import EYE_HEIGHT, colour, mix, step

UP = np.array([0.0, 1.0, 0.0])

# A figure is drawn back to front, in parts with a signed distance (N,), negative inside, and a
# colour (3,). Points are u to the right, where it looks, and v upwards, (N,) each, inside the unit
# disc; standing figures touch the ground at v = −1. `c` holds four colours (4, 3): main, second,
# skin, hair. `swing` oscillates from −1 to 1 with the steps of a figure; it is 0 for standing ones.
Parts = Iterator[tuple[np.ndarray, np.ndarray]]


def ellipse(u, v, cu, cv, ru, rv) -> np.ndarray:
    """Return the approximate signed distance to an ellipse, centre (cu, cv), radii (ru, rv)."""
    return (np.hypot((u - cu) / ru, (v - cv) / rv) - 1) * min(ru, rv)


def box(u, v, cu, cv, ru, rv) -> np.ndarray:
    """Return the approximate signed distance to a box, centre (cu, cv), half sides (ru, rv)."""
    return np.maximum(abs(u - cu) - ru, abs(v - cv) - rv)


def person(u, v, c, swing) -> Parts:
    for side in (-1, 1):
        stride = side * swing * (-0.25 - v)
        yield box(u + 0.35 * stride, v, side * 0.1, -0.62, 0.08, 0.38), c[1]
        yield box(u - 0.4 * side * swing * (0.3 - v), v, side * 0.24, 0.02, 0.06, 0.3), c[0] * 0.8
    yield ellipse(u, v, 0, 0, 0.21, 0.4), c[0]
    yield ellipse(u, v, 0, 0.62, 0.19, 0.21), c[3]
    yield ellipse(u, v, 0.03, 0.58, 0.155, 0.19), c[2]


def animal(u, v, c, swing) -> Parts:
    for foot, side in ((-0.45, 1), (-0.3, -1), (0.3, 1), (0.45, -1)):
        yield box(u + side * swing * (0.6 + v) * 0.5, v, foot, -0.68, 0.06, 0.32), c[3] * 0.8
    yield ellipse(u, v, -0.68, 0 + 0.05 * swing, 0.12, 0.28), c[3] * 0.9
    yield ellipse(u, v, 0, -0.2, 0.62, 0.3), c[3]
    yield ellipse(u, v, 0.66, 0.05, 0.25, 0.19), c[3]
    yield ellipse(u, v, 0.5, 0.07, 0.08, 0.2), c[3] * 0.6
    yield ellipse(u, v, 0.72, 0.1, 0.05, 0.05), c[3] * 0.2


def ball(u, v, c, swing) -> Parts:
    yield ellipse(u, v, 0, 0, 0.95, 0.95), c[0]
    yield np.maximum(np.hypot(u, v) - 0.95, abs(np.hypot(u - 0.9, v) - 0.8) - 0.18), c[1]


GREEN = np.array([0.2, 0.45, 0.15], np.float32)


def tree(u, v, c, swing) -> Parts:
    yield box(u, v, 0, -0.55, 0.09, 0.45), c[3] * 0.5 + 0.1
    for cu, cv, r in ((-0.3, 0.2, 0.45), (0.3, 0.15, 0.45), (0, 0.45, 0.5)):
        yield ellipse(u, v, cu, cv, r, r), mix(c[0] * 0.6, GREEN, 0.7)


class Kind(NamedTuple):
    """Common properties of the figures of one kind."""

    parts: Callable[..., Parts]  # drawing function
    appeal: float  # relative attention, 1 for people
    radius: tuple[float, float]  # range of its angular radius in degrees
    size: float = 0.0  # radius in metres of a figure on the ground, 0 for one in the air
    moves: bool = True


KINDS = {
    "person": Kind(person, 1.0, (5, 17), size=0.88),
    "animal": Kind(animal, 0.8, (3, 11), size=0.5),
    "ball": Kind(ball, 0.6, (2, 7)),
    "tree": Kind(tree, 0.1, (6, 20), size=2.5, moves=False),
}


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Return the rotation by an angle about a unit axis (3,), right-handed: (3, 3) float64."""
    return cv2.Rodrigues(angle * axis)[0]


class Figure(NamedTuple):
    """A figure that rotates about a unit axis (3,) of the world at `speed` radians a second.

    pose: (3, 3), its right, its top and its centre at time 0 as columns.
    colours: (4, 3) RGB in [0, 1].
    """

    kind: Kind
    radius: float
    pose: np.ndarray
    colours: np.ndarray
    axis: np.ndarray = UP
    speed: float = 0.0

    def at(self, seconds: float) -> np.ndarray:
        """Return its pose at a time: (3, 3)."""
        return rotation(self.axis, self.speed * seconds) @ self.pose

    def draw(self, local: np.ndarray, pixel: float, seconds: float) -> tuple[np.ndarray, ...]:
        """Return its colours (N, 3) and coverage (N,) in [0, 1] along local rays (N, 3)."""
        sine = np.hypot(local[:, 0], local[:, 1])
        scale = np.arctan2(sine, local[:, 2]) / np.maximum(sine, 1e-9) / self.radius
        u, v = local[:, 0] * scale * math.copysign(1, self.speed), local[:, 1] * scale
        swing = math.sin(3.7 * self.speed / self.radius * seconds)  # one step in 0.85 radii
        colours, coverage = np.zeros_like(local), np.zeros_like(u)
        for distance, part in self.kind.parts(u, v, self.colours, swing):
            share = step(-distance, pixel / self.radius)
            colours, coverage = mix(colours, part, share), coverage + (1 - coverage) * share
        colours /= np.maximum(coverage, 1e-6)[:, None]
        return colours * (1 + 0.2 * (v - 0.6 * u))[:, None], coverage


def random_figure(rng: Generator, name: str) -> Figure:
    kind = KINDS[name]
    radius = math.radians(rng.uniform(*kind.radius))
    if kind.size:
        latitude = -math.atan((EYE_HEIGHT - kind.size) * radius / kind.size)
    else:
        latitude = rng.normal(0, 0.4)
    pose = rotation(UP, rng.uniform(0, 2 * math.pi)) @ rotation(np.array([-1.0, 0, 0]), latitude)
    clothes = [colour(rng, (0.1, 0.9), (0.1, 1)) for _ in range(2)]
    pale, dark = np.array([[0.95, 0.78, 0.66], [0.35, 0.2, 0.13]], np.float32)
    skin = mix(pale, dark, rng.random())
    hair = colour(rng, (0.2, 0.7), (0.05, 0.6), (0.03, 0.12))
    axis, speed = UP, 0.0
    if kind.moves and rng.random() < 0.75:
        speed = radius * rng.uniform(0.5, 3) * rng.choice([-1, 1])
        if not kind.size:  # along any great circle, also across the poles
            axis = rotation(pose[:, 2], rng.uniform(0, 2 * math.pi)) @ pose[:, 0]
    return Figure(kind, radius, pose, np.stack([*clothes, skin, hair]), axis, speed)
