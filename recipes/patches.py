"""Photographs on the sphere: tangent-plane projection, soft outlines, painting front to back.

A photograph lies in the plane that touches the sphere at the photograph's centre, as an ideal lens
projects it. Its coordinates are u to the right and v downwards, ±1 at its edges. Angles are in
radians.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch

from projection.perspective import from_plane, to_plane
from projection.sphere import angles_of, column_of, orientation, row_of

FAR = 3.0  # a coordinate outside every photograph


def pose(longitude: float, latitude: float, roll: float = 0.0) -> np.ndarray:
    """Return the axes of a photograph at a direction: (3, 3), columns right, up and centre.

    roll: clockwise rotation of the upright photograph as seen from inside the sphere.
    """
    return orientation(longitude, latitude, roll).numpy()


def angles(rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return longitudes and latitudes (…) of directions (…, 3)."""
    return tuple(angle.numpy() for angle in angles_of(torch.from_numpy(rays)))


class Outline(NamedTuple):
    """The shape in which a photograph fades out. The opacity is 0 at its edges and beyond.

    power: exponent of a superellipse; 2 is an ellipse, 16 nearly a rectangle.
    softness: width of the fading edge as a share of the photograph's half width.
    bumps: depth of the dents in the outline.
    waves: (3,) frequency and two phases of the dents.
    """

    power: float
    softness: float
    bumps: float
    waves: np.ndarray

    def opacity(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the opacity in [0, 1] at points of the photograph, of any shape."""
        u, v = u.clip(-FAR, FAR), v.clip(-FAR, FAR)
        distance = (abs(u) ** self.power + abs(v) ** self.power) ** (1 / self.power)
        frequency, first, second = self.waves
        dents = 1 + np.sin(frequency * u + first) * np.sin(frequency * v + second)
        inside = ((1 - distance * (1 + self.bumps * dents)) / self.softness).clip(0, 1)
        return inside * inside * (3 - 2 * inside)


class Patch(NamedTuple):
    """The place of a photograph on the sphere.

    pose: (3, 3), see the function of this name. extent: (2,) tangents of half its horizontal and
    vertical field of view.
    """

    pose: np.ndarray
    extent: np.ndarray
    outline: Outline

    @property
    def solid_angle(self) -> float:
        """The solid angle of the whole rectangle in steradians, that of a right pyramid."""
        a, b = self.extent
        return 4 * math.asin(a * b / math.sqrt((1 + a * a) * (1 + b * b)))

    @property
    def radius(self) -> float:
        """The angle from the centre to the corners."""
        return math.atan(math.hypot(*self.extent))

    def seen_from(self, camera: np.ndarray) -> "Patch":
        """Return the patch in a camera's axes, given their rotation (3, 3) to the world's."""
        return self._replace(pose=camera.T @ self.pose)

    def project(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return u and v (…) of rays (…, 3); FAR for rays that do not meet the plane."""
        local = torch.from_numpy(rays @ self.pose.astype(rays.dtype)).double()
        return tuple(a.clamp(-FAR, FAR).numpy() for a in to_plane(local, self.extent))

    def directions(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return unit vectors (N, 3) towards points (N,) of the photograph."""
        plane = (torch.from_numpy(a).double() for a in (u, v))
        rays = from_plane(*plane, self.extent).numpy() @ self.pose.T
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)

    def opacity(self, rays: np.ndarray) -> np.ndarray:
        """Return the opacity in [0, 1] along rays (…, 3)."""
        return self.outline.opacity(*self.project(rays))


class Canvas:
    """An equirectangular picture that is painted from front to back.

    light: (H, W, 3) colours so far. left: (H, W) share of each pixel that is still transparent.
    """

    def __init__(self, rays: np.ndarray):
        """rays: (H, W, 3) float32, the directions of the pixels."""
        self.rays = rays
        self.light = np.zeros_like(rays)
        self.left = np.ones(rays.shape[:2], np.float32)

    def put(self, patch: Patch, image: np.ndarray) -> None:
        """Paint a photograph, uint8 (h, w, 3), behind everything that was painted before."""
        box = _box(patch.pose[:, 2], patch.radius, *self.left.shape)
        u, v = patch.project(self.rays[box])
        share = self.left[box] * patch.outline.opacity(u, v).astype(np.float32)
        height, width = image.shape[:2]
        column = ((u + 1) * (width / 2) - 0.5).astype(np.float32)
        row = ((v + 1) * (height / 2) - 0.5).astype(np.float32)
        colours = cv2.remap(image, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        self.light[box] += share[..., None] * colours
        self.left[box] -= share

    def visible(self, patch: Patch, rays: np.ndarray) -> np.ndarray:
        """Return the visible share (N,) of a photograph along rays (N, 3) if it were put now."""
        height, width = self.left.shape
        longitude, latitude = angles(rays)
        row, column = row_of(latitude, height) + 0.5, column_of(longitude, width) + 0.5
        left = self.left[row.astype(int).clip(max=height - 1), column.astype(int) % width]
        return left * patch.opacity(rays)


def _box(centre: np.ndarray, radius: float, height: int, width: int) -> tuple:
    """Return an index of the rows and columns of an H×W image that hold a spherical cap."""
    longitude, latitude = map(float, angles(centre))
    first = math.floor(row_of(latitude + radius, height) + 0.5)
    last = math.ceil(row_of(latitude - radius, height) + 0.5)
    rows = slice(max(first, 0), min(last, height))
    if abs(latitude) + radius >= math.pi / 2:  # a pole is inside
        return rows, slice(None)
    half = math.asin(math.sin(radius) / math.cos(latitude))
    west = math.floor(column_of(longitude - half, width) + 0.5)
    east = math.ceil(column_of(longitude + half, width) + 0.5)
    if east - west >= width:
        return rows, slice(None)
    if west >= 0 and east <= width:
        return rows, slice(west, east)
    return rows, np.arange(west, east) % width
