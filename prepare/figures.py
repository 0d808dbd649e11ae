"""Figures of rendered scenes: what people look at, and trees and boards, which they ignore.

A figure is a flat drawing on the sphere that moves as a rigid body, so that it keeps its shape
and its solid angle wherever it goes. Angles are in radians unless a name or comment gives another
unit.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from prepare.worlds import colour, mix, step

UP = np.array([0.0, 1.0, 0.0])
Parts = Iterator[tuple[np.ndarray, np.ndarray]]

# A figure is drawn back to front, as parts of a signed distance (N,), negative inside, and a colour
# (3,). Points (N,) each are given by u to the right, where it looks, and v upwards, inside the unit
# disc. `c` holds four colours (4, 3): main, second, skin, hair. `swing` goes from −1 to 1 with the
# steps of a figure that moves, and is 0 for one that stands.


def ellipse(u, v, cu, cv, ru, rv) -> np.ndarray:
    """Return about the signed distance to an ellipse of centre (cu, cv) and radii (ru, rv)."""
    return (np.hypot((u - cu) / ru, (v - cv) / rv) - 1) * min(ru, rv)


def box(u, v, cu, cv, ru, rv) -> np.ndarray:
    """Return about the signed distance to a box of centre (cu, cv) and half sides (ru, rv)."""
    return np.maximum(abs(u - cu) - ru, abs(v - cv) - rv)


def person(u, v, c, swing) -> Parts:
    for side in (-1, 1):
        stride = side * swing * (-0.25 - v)
        yield box(u + 0.35 * stride, v, side * 0.1, -0.6, 0.08, 0.36), c[1]
        yield box(u - 0.4 * side * swing * (0.3 - v), v, side * 0.24, 0.02, 0.06, 0.3), c[0] * 0.8
    yield ellipse(u, v, 0, 0, 0.21, 0.4), c[0]
    yield ellipse(u, v, 0, 0.62, 0.19, 0.21), c[3]
    yield ellipse(u, v, 0.03, 0.58, 0.155, 0.19), c[2]


def animal(u, v, c, swing) -> Parts:
    for foot, side in ((-0.45, 1), (-0.3, -1), (0.3, 1), (0.45, -1)):
        yield box(u + side * swing * (0.4 + v) * 0.5, v, foot, -0.45, 0.06, 0.3), c[3] * 0.8
    yield ellipse(u, v, -0.68, 0.2 + 0.05 * swing, 0.12, 0.28), c[3] * 0.9
    yield ellipse(u, v, 0, 0, 0.62, 0.3), c[3]
    yield ellipse(u, v, 0.66, 0.25, 0.25, 0.19), c[3]
    yield ellipse(u, v, 0.5, 0.27, 0.08, 0.2), c[3] * 0.6
    yield ellipse(u, v, 0.72, 0.3, 0.05, 0.05), c[3] * 0.2


def ball(u, v, c, swing) -> Parts:
    yield ellipse(u, v, 0, 0, 0.95, 0.95), c[0]
    yield np.maximum(np.hypot(u, v) - 0.95, abs(np.hypot(u - 0.9, v) - 0.8) - 0.18), c[1]


def tree(u, v, c, swing) -> Parts:
    yield box(u, v, 0, -0.55, 0.09, 0.45), c[3] * 0.5 + 0.1
    for cu, cv, r in ((-0.3, 0.2, 0.45), (0.3, 0.15, 0.45), (0, 0.45, 0.5)):
        yield ellipse(u, v, cu, cv, r, r), mix(c[0] * 0.6, np.float32([0.2, 0.45, 0.15]), 0.7)


def board(u, v, c, swing) -> Parts:
    yield box(u, v, 0, 0, 0.75, 0.6), c[0]
    for line in (-0.35, 0, 0.35):
        yield box(u, v, 0, line, 0.65, 0.1), c[1]


class Kind(NamedTuple):
    """What the figures of one kind have in common.

    parts: draws it. appeal: how much it attracts, 1 for people. share: how frequent it is.
    radius: range in degrees. size: its radius in metres if it stands on the ground, 0 if it hangs
    in the air. base: v of its lowest point. focus: v of where people look at it. moves: whether it
    can move.
    """

    parts: Callable[..., Parts]
    appeal: float
    share: float
    radius: tuple[float, float]
    size: float = 0.0
    base: float = 0.0
    focus: float = 0.0
    moves: bool = True


KINDS = {
    "person": Kind(person, 1.0, 0.35, (5, 17), size=0.88, base=-0.96, focus=0.5),
    "animal": Kind(animal, 0.8, 0.2, (3, 11), size=0.5, base=-0.75, focus=0.1),
    "ball": Kind(ball, 0.6, 0.15, (2, 7)),
    "tree": Kind(tree, 0.1, 0.15, (6, 20), size=2.5, base=-1, moves=False),
    "board": Kind(board, 0.1, 0.15, (4, 14), moves=False),
}


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Return the rotation by an angle about a unit axis (3,), right-handed: (3, 3) float64."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


class Figure(NamedTuple):
    """A figure turns about a unit axis (3,) in the world at `speed`, in radians a second.

    pose: (3, 3), the directions of its right, its top and its centre at time 0, as columns.
    colours: (4, 3) RGB in [0, 1]. opacity: in [0, 1].
    """

    kind: Kind
    radius: float
    pose: np.ndarray
    colours: np.ndarray
    axis: np.ndarray = UP
    speed: float = 0.0
    opacity: float = 1.0

    def at(self, seconds: float) -> np.ndarray:
        """Return its pose at a time: (3, 3)."""
        return rotation(self.axis, self.speed * seconds) @ self.pose

    def focus(self, seconds: float) -> np.ndarray:
        """Return the direction of where people look at it: a unit vector (3,)."""
        lift = self.kind.focus * self.radius
        _, top, centre = self.at(seconds).T
        return math.cos(lift) * centre + math.sin(lift) * top

    def draw(
        self, local: np.ndarray, pixel: float, seconds: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return its colours (N, 3) and its coverage (N,) in [0, 1], without its opacity.

        local: rays (N, 3) in the axes of its pose. pixel: the width of a pixel, over which edges
        are smooth.
        """
        sine = np.hypot(local[:, 0], local[:, 1])
        scale = np.arctan2(sine, local[:, 2]) / np.maximum(sine, 1e-9) / self.radius
        u, v = local[:, 0] * scale * math.copysign(1, self.speed), local[:, 1] * scale
        swing = math.sin(3.7 * self.speed / self.radius * seconds)  # a step every 0.85 radii
        colours, coverage = np.zeros_like(local), np.zeros_like(u)
        for distance, part in self.kind.parts(u, v, self.colours, swing):
            share = step(-distance, pixel / self.radius)
            colours, coverage = mix(colours, part, share), coverage + (1 - coverage) * share
        colours /= np.maximum(coverage, 1e-6)[:, None]
        return colours * (1 + 0.2 * (v - 0.6 * u))[:, None], coverage


def random_figure(rng: Generator, name: str, eye: float) -> Figure:
    """Return a random figure of a kind of KINDS; eye: height of the camera in metres."""
    kind = KINDS[name]
    radius = math.radians(rng.uniform(*kind.radius))
    if kind.size:
        latitude = -math.atan((eye + kind.base * kind.size) * radius / kind.size)
    else:
        latitude = rng.normal(0, 0.4)
    pose = rotation(UP, rng.uniform(0, 2 * math.pi)) @ rotation(np.array([-1.0, 0, 0]), latitude)
    skin = mix(np.float32([0.95, 0.78, 0.66]), np.float32([0.35, 0.2, 0.13]), rng.random())
    hair = colour(rng, (0.2, 0.7), (0.05, 0.6), (0.03, 0.12))
    vivid = (0.5, 0.95) if rng.random() < 0.5 else (0, 0.5)
    colours = np.stack([colour(rng, vivid, (0.1, 1)), colour(rng, vivid, (0.1, 1)), skin, hair])
    axis, speed = UP, 0.0
    if kind.moves and rng.random() < 0.75:
        speed = radius * rng.uniform(0.5, 3) * rng.choice([-1, 1])
        if not kind.size:  # along any great circle, so that some cross the poles
            axis = rotation(pose[:, 2], rng.uniform(0, 2 * math.pi)) @ pose[:, 0]
    opacity = rng.uniform(0.08, 0.25) if rng.random() < 0.1 else 1.0  # some are camouflaged
    return Figure(kind, radius, pose, colours, axis, speed, opacity)
