"""Photographs on the sphere: the tangent-plane projection, soft outlines, painting front to back.

A photograph lies in the plane that touches the sphere at its middle, as an ideal lens took it.
Its coordinates are u to the right and v downwards, ±1 at its edges. Angles are radians.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from prepare.figures import UP, rotation

RIGHT, AHEAD = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
FAR = 3.0  # a coordinate outside every photograph


def pose(longitude: float, latitude: float, roll: float = 0.0) -> np.ndarray:
    """Right, up and middle of a photograph at a direction, as the columns of (3, 3).

    Upright, then turned clockwise by the roll as seen from inside the sphere.
    """
    return rotation(UP, longitude) @ rotation(RIGHT, -latitude) @ rotation(AHEAD, -roll)


class Outline(NamedTuple):
    """Where a photograph fades out: opacity 0 at its edges and beyond.

    power: 2 is an ellipse, 16 nearly a rectangle. softness: width of the fading edge over the
    half width of the photograph. bumps: how far the outline dents inwards; waves: of the dents,
    (3,) a frequency and two phases.
    """

    power: float
    softness: float
    bumps: float
    waves: np.ndarray

    def opacity(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Of points of the photograph, any shape, in [0, 1]."""
        u, v = u.clip(-FAR, FAR), v.clip(-FAR, FAR)
        distance = (abs(u) ** self.power + abs(v) ** self.power) ** (1 / self.power)
        frequency, first, second = self.waves
        dents = 1 + np.sin(frequency * u + first) * np.sin(frequency * v + second)
        inside = ((1 - distance * (1 + self.bumps * dents)) / self.softness).clip(0, 1)
        return inside * inside * (3 - 2 * inside)


class Patch(NamedTuple):
    """Where a photograph lies. extent: tangents of half its fields of view, (2,)."""

    pose: np.ndarray
    extent: np.ndarray
    outline: Outline

    @property
    def solid_angle(self) -> float:
        """Steradians of the whole rectangle: that of a pyramid with right angles at its base."""
        a, b = self.extent
        return 4 * math.asin(a * b / math.sqrt((1 + a * a) * (1 + b * b)))

    @property
    def radius(self) -> float:
        """Angle from the middle to the corners."""
        return math.atan(math.hypot(*self.extent))

    def seen_from(self, camera: np.ndarray) -> "Patch":
        """In the axes of a camera, whose rotation to the world's axes is (3, 3)."""
        return self._replace(pose=camera.T @ self.pose)

    def project(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u and v (…) of rays (…, 3); far outside for those that do not meet the plane."""
        right, up, depth = np.moveaxis(rays @ self.pose.astype(rays.dtype), -1, 0)
        behind = depth < 1e-3
        depth = np.where(behind, 1, depth)
        plane = right / (depth * self.extent[0]), -up / (depth * self.extent[1])
        return tuple(np.where(behind, FAR, coordinate) for coordinate in plane)

    def directions(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Unit vectors (N, 3) of points (N,) of the photograph."""
        across, upwards = u * self.extent[0], -v * self.extent[1]
        rays = np.stack([across, upwards, np.ones_like(across)], axis=-1) @ self.pose.T
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)

    def opacity(self, rays: np.ndarray) -> np.ndarray:
        """Along rays (…, 3), in [0, 1]."""
        return self.outline.opacity(*self.project(rays))


class Canvas:
    """An equirectangular picture that fills up from front to back.

    light: (H, W, 3) colours so far; left: (H, W) share that what comes behind still gets.
    """

    def __init__(self, rays: np.ndarray):
        """rays: (H, W, 3) float32, the directions of the pixels."""
        self.rays = rays
        self.light = np.zeros_like(rays)
        self.left = np.ones(rays.shape[:2], np.float32)

    def put(self, patch: Patch, image: np.ndarray) -> None:
        """Put a photograph, uint8 (h, w, 3), behind what is there."""
        box = _box(patch.pose[:, 2], patch.radius, *self.left.shape)
        u, v = patch.project(self.rays[box])
        share = self.left[box] * patch.outline.opacity(u, v).astype(np.float32)
        height, width = image.shape[:2]
        column = ((u + 1) * (width / 2) - 0.5).astype(np.float32)
        row = ((v + 1) * (height / 2) - 0.5).astype(np.float32)
        colours = cv2.remap(image, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        self.light[box] += share[..., None] * colours
        self.left[box] -= share

    def share_at(self, patch: Patch, rays: np.ndarray) -> np.ndarray:
        """How much of a photograph would be seen along rays (N, 3) if it were put now: (N,)."""
        height, width = self.left.shape
        row = np.arccos(rays[:, 1].clip(-1, 1)) * height / math.pi
        column = (np.arctan2(rays[:, 0], rays[:, 2]) + math.pi) * width / (2 * math.pi)
        left = self.left[row.astype(int).clip(max=height - 1), column.astype(int) % width]
        return left * patch.opacity(rays)


def _box(middle: np.ndarray, radius: float, height: int, width: int) -> tuple:
    """Index of the rows and columns of an H×W image that a cap of the sphere needs."""
    latitude, longitude = math.asin(middle[1].clip(-1, 1)), math.atan2(middle[0], middle[2])
    first = math.floor((math.pi / 2 - latitude - radius) * height / math.pi)
    last = math.ceil((math.pi / 2 - latitude + radius) * height / math.pi)
    rows = slice(max(first, 0), min(last, height))
    if abs(latitude) + radius >= math.pi / 2:  # a pole is inside
        return rows, slice(None)
    half = math.asin(math.sin(radius) / math.cos(latitude))
    west = math.floor((longitude - half + math.pi) * width / (2 * math.pi))
    east = math.ceil((longitude + half + math.pi) * width / (2 * math.pi))
    if east - west >= width:
        return rows, slice(None)
    if west >= 0 and east <= width:
        return rows, slice(west, east)
    return rows, np.arange(west, east) % width
