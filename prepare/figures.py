"""Figures of rendered scenes: people, animals, vehicles, signs and what nobody looks at.

A figure is a flat drawing on the sphere that moves as a rigid body, so that it keeps its shape
and its solid angle wherever it goes. Angles are radians unless named.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from prepare.worlds import colour, mix, step

UP = np.array([0.0, 1.0, 0.0])

# The parts of a figure are drawn back to front: (signed distance, colour) at u to the right and v
# upwards, (N,), inside the unit disc. `c` holds five colours: main, second, accent, skin, hair;
# `swing` goes from −1 to 1 with the steps of a figure that moves and is 0 for others.


def ellipse(u, v, cu, cv, ru, rv):
    return (np.hypot((u - cu) / ru, (v - cv) / rv) - 1) * min(ru, rv)


def box(u, v, cu, cv, ru, rv):
    return np.maximum(abs(u - cu) - ru, abs(v - cv) - rv)


def person(u, v, c, swing):
    for side in (-1, 1):
        lean = side * swing * (-0.25 - v)
        yield box(u + 0.45 * lean, v, side * 0.1, -0.6, 0.08, 0.36), c[1]
        yield box(u - 0.4 * side * swing * (0.3 - v), v, side * 0.24, 0.02, 0.06, 0.3), c[0] * 0.8
    yield ellipse(u, v, 0, 0, 0.21, 0.4), c[0]
    yield ellipse(u, v, 0, 0.62, 0.19, 0.21), c[4]
    yield ellipse(u, v, 0, 0.58, 0.155, 0.19), c[3]


def face(u, v, c, swing):
    yield ellipse(u, v, 0, -0.95, 0.75, 0.35), c[0]
    yield ellipse(u, v, 0, 0.2, 0.68, 0.75), c[4]
    yield box(u, v, 0, -0.6, 0.2, 0.3), c[3] * 0.85
    yield ellipse(u, v, 0, 0, 0.55, 0.74), c[3]
    for side in (-1, 1):
        yield ellipse(u, v, side * 0.23, 0.12, 0.13, 0.08), np.float32([0.95, 0.95, 0.95])
        yield ellipse(u, v, side * 0.23 + 0.04 * swing, 0.12, 0.06, 0.07), c[4] * 0.4
        yield box(u, v, side * 0.23, 0.27, 0.15, 0.03), c[4]
    yield ellipse(u, v, 0, -0.12, 0.06, 0.13), c[3] * 0.8
    yield ellipse(u, v, 0, -0.4, 0.22, 0.06 + 0.03 * swing), np.float32([0.6, 0.15, 0.15])


def animal(u, v, c, swing):
    for foot, side in ((-0.45, 1), (-0.3, -1), (0.3, 1), (0.45, -1)):
        yield box(u + side * swing * (0.4 + v) * 0.5, v, foot, -0.45, 0.06, 0.3), c[0] * 0.8
    yield ellipse(u, v, -0.68, 0.2 + 0.05 * swing, 0.12, 0.28), c[0] * 0.9
    yield ellipse(u, v, 0, 0, 0.62, 0.3), c[0]
    yield ellipse(u, v, 0.62, 0.38, 0.08, 0.22), c[1]
    yield ellipse(u, v, 0.66, 0.25, 0.25, 0.19), c[0]
    yield ellipse(u, v, 0.72, 0.3, 0.05, 0.05), c[4] * 0.3


def car(u, v, c, swing):
    yield ellipse(u, v, -0.05, 0.12, 0.55, 0.36), c[0] * 0.9
    yield ellipse(u, v, -0.05, 0.16, 0.44, 0.24), np.float32([0.25, 0.3, 0.35])
    yield box(u, v, 0, -0.12, 0.92, 0.2), c[0]
    yield box(u, v, 0.84, -0.05, 0.07, 0.06), np.float32([1, 0.95, 0.7])
    for wheel in (-0.5, 0.5):
        yield ellipse(u, v, wheel, -0.32, 0.2, 0.2), np.float32([0.08, 0.08, 0.08])
        yield ellipse(u, v, wheel, -0.32, 0.1, 0.1), np.float32([0.6, 0.6, 0.6])


def ball(u, v, c, swing):
    yield ellipse(u, v, 0, 0, 0.95, 0.95), c[0]
    yield np.maximum(np.hypot(u, v) - 0.95, abs(np.hypot(u - 0.9, v) - 0.8) - 0.18), c[1]


def star(u, v, c, swing):
    points = 4 + int(c[2, 0] * 4)
    yield np.hypot(u, v) - 0.68 - 0.27 * np.cos(points * np.arctan2(u, v)), c[0]
    yield ellipse(u, v, 0, 0, 0.3, 0.3), c[2]


def sign(u, v, c, swing):
    yield box(u, v, 0, -0.5, 0.05, 0.5), np.float32([0.4, 0.4, 0.4])
    yield box(u, v, 0, 0.25, 0.75, 0.55), c[0]
    yield box(u, v, 0, 0.25, 0.68, 0.48), c[1]
    for line in (0.55, 0.3, 0.05):
        yield box(u, v, 0, line, 0.3 + 0.28 * np.sin(9 * (line + c[2, 1])), 0.07), c[2]


def lamp(u, v, c, swing):
    yield ellipse(u, v, 0, 0, 0.35, 0.35), np.float32([1.6, 1.5, 1.2])


def tree(u, v, c, swing):
    yield box(u, v, 0, -0.55, 0.09, 0.45), c[4] * 0.5 + 0.1
    for cu, cv, r in ((-0.3, 0.2, 0.45), (0.3, 0.15, 0.45), (0, 0.45, 0.5)):
        yield ellipse(u, v, cu, cv, r, r), mix(c[0] * 0.6, np.float32([0.2, 0.45, 0.15]), 0.7)


def panel(u, v, c, swing):
    yield box(u, v, 0, 0, 0.4 + 0.3 * c[2, 0], 0.4 + 0.3 * c[2, 1]), c[0]


def shade(u, v, c, swing):
    yield ellipse(u, v, 0, 0, 0.7, 0.3 + 0.4 * c[2, 0]), c[4] * 0.5


class Kind(NamedTuple):
    """parts: how it is drawn; appeal: how much it attracts; radius: range in degrees;
    share: how common; focus: height (v) of where people look; softness of its edge;
    roams: whether it moves by itself."""

    parts: Callable
    appeal: float
    radius: tuple[float, float]
    share: float
    focus: float = 0.0
    softness: float = 0.0
    roams: bool = True


KINDS = {
    "person": Kind(person, 1.0, (5, 17), 6, focus=0.4),
    "face": Kind(face, 1.1, (3, 12), 2),
    "animal": Kind(animal, 0.8, (3, 12), 2, focus=0.1),
    "car": Kind(car, 0.65, (4, 14), 2),
    "ball": Kind(ball, 0.6, (1.5, 7), 1.5),
    "star": Kind(star, 0.5, (1.5, 7), 1),
    "sign": Kind(sign, 0.5, (3, 10), 1, focus=0.25, roams=False),
    "lamp": Kind(lamp, 0.35, (3, 7), 1, softness=0.5),
    "tree": Kind(tree, 0.1, (6, 18), 1.5, roams=False),
    "panel": Kind(panel, 0.1, (4, 13), 1.5, roams=False),
    "shade": Kind(shade, 0.03, (8, 18), 1, softness=0.9),
}


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rotation about a unit axis (3,) by an angle, right-handed: (3, 3) float64."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


class Figure(NamedTuple):
    """Something to look at. It turns about `axis` at `speed` (rad/s) while it sways about its
    own right, by `sway` at `rate` (Hz): along the horizon, along any great circle, or in place.

    pose: (3, 3), columns right, up and centre in the world at time 0. It is present for `stay`
    of every `period` seconds, beginning at `start`. colours: (5, 3); opacity in [0, 1].
    """

    kind: Kind
    radius: float
    pose: np.ndarray
    colours: np.ndarray
    axis: np.ndarray = UP
    speed: float = 0.0
    sway: float = 0.0
    rate: float = 0.0
    opacity: float = 1.0
    start: float = 0.0
    stay: float = math.inf
    period: float = math.inf

    def at(self, seconds: float) -> np.ndarray:
        """Its pose at a time: (3, 3)."""
        swaying = rotation(self.pose[:, 0], self.sway * math.sin(2 * math.pi * self.rate * seconds))
        return rotation(self.axis, self.speed * seconds) @ swaying @ self.pose

    def age(self, seconds: float) -> float:
        """Seconds since it appeared; infinite for what was always there, negative if away."""
        if math.isinf(self.period):
            return math.inf
        age = (seconds - self.start) % self.period
        return age if age < self.stay else -1.0

    def draw(
        self, local: np.ndarray, pixel: float, seconds: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """local: (N, 3) directions along right, up and centre; pixel: the width of one.

        Returns: colour (N, 3) and coverage in [0, 1] (N,).
        """
        sine = np.hypot(local[:, 0], local[:, 1])
        scale = np.arctan2(sine, local[:, 2]) / np.maximum(sine, 1e-9) / self.radius
        u, v = local[:, 0] * scale, local[:, 1] * scale
        width = max(pixel / self.radius, self.kind.softness)
        swing = math.sin(9 * seconds + self.start) if self.speed or self.sway else 0.0
        radiance, coverage = np.zeros_like(local), np.zeros_like(u)
        for distance, part in self.kind.parts(u, v, self.colours, swing):
            share = step(-distance, width)
            radiance, coverage = mix(radiance, part, share), coverage + (1 - coverage) * share
        radiance /= np.maximum(coverage, 1e-6)[:, None]
        light = 1 + 0.2 * (v - 0.6 * u) + 0.06 * np.sin(23 * u + 9 * self.radius) * np.sin(19 * v)
        return radiance * light[:, None], coverage


def random_figure(rng: Generator, crowd: float, lead: bool) -> Figure:
    """A random figure, often near the longitude `crowd`; a lead is one that must attract."""
    share = np.array([k.share * (k.appeal > 0.4 or not lead) for k in KINDS.values()])
    kind = KINDS[rng.choice(list(KINDS), p=share / share.sum())]
    latitude = rng.normal(-0.05, 0.25) if rng.random() < 0.85 else math.asin(rng.uniform(-1, 1))
    longitude = rng.normal(crowd, 0.5) if rng.random() < 0.4 else rng.uniform(0, 2 * math.pi)
    pose = rotation(UP, longitude) @ rotation(np.array([-1.0, 0, 0]), latitude)
    skin = mix(np.float32([0.95, 0.78, 0.66]), np.float32([0.35, 0.2, 0.13]), rng.random())
    hair = colour(rng, (0.2, 0.7), (0.05, 0.6), (0.03, 0.12))
    vivid = (0.5, 0.95) if rng.random() < 0.5 else (0, 0.5)
    colours = np.stack([*(colour(rng, vivid, (0.1, 1)) for _ in range(3)), skin, hair])
    facts = {}
    if kind.roams and rng.random() < 0.6:
        facts["speed"] = math.radians(rng.uniform(5, 40)) * rng.choice([-1, 1])
        if rng.random() < 0.3:  # along any great circle; others keep to their latitude
            facts["axis"] = rotation(pose[:, 2], rng.uniform(0, 2 * math.pi)) @ pose[:, 0]
    if kind.roams and rng.random() < 0.3:
        facts |= {"sway": math.radians(rng.uniform(1, 10)), "rate": rng.uniform(0.1, 1)}
    if not lead and rng.random() < 0.3:  # comes and goes
        stay = rng.uniform(1.5, 6)
        facts |= {"stay": stay, "period": stay + rng.uniform(1, 5), "start": rng.uniform(-3, 3)}
    if not lead and rng.random() < 0.15:  # hardly differs from what is behind it
        facts["opacity"] = rng.uniform(0.08, 0.25)
    return Figure(kind, math.radians(rng.uniform(*kind.radius)), pose, colours, **facts)
