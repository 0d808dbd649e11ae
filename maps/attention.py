"""Measures of a saliency map: density, peaks, attention around a direction and in tiles.

A map is piecewise constant over the pixels of projection/__init__.py, and its scale is irrelevant.
An all-zero map counts as uniform attention.
"""

import math
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from projection import sphere

CAP_RADIUS = math.radians(10)  # of a cap around a peak, and smallest angle between two peaks


def density(saliency: np.ndarray | Tensor) -> np.ndarray:
    """Return maps as densities per steradian, whose integral over the sphere is 1.

    saliency: (..., H, W), not negative, on any scale. Returns: (..., H, W) float32.
    Raises ValueError for values that are negative or not finite.

    >>> float(density(np.zeros((2, 4)))[0, 0]) * 4 * math.pi
    1.0
    """
    maps = np.asarray(saliency, np.float32)
    peak = maps.max((-2, -1), keepdims=True)
    if not (np.isfinite(peak).all() and maps.min() >= 0):
        raise ValueError("a density needs finite, non-negative maps")
    scaled = np.where(peak > 0, maps / np.where(peak > 0, peak, 1), 1).astype(np.float32)
    areas = sphere.solid_angles(*maps.shape[-2:]).double().numpy()
    return (scaled / (scaled * areas).sum((-2, -1), keepdims=True)).astype(np.float32)


def not_negative(maps: Tensor) -> Tensor:
    """Shift maps (..., H, W) with negative values, from SST-Sal's reference sampling, up to 0."""
    return maps - maps.amin((-2, -1), keepdim=True).clamp(max=0)


def tiles(saliency: np.ndarray | Tensor, rows: int, columns: int) -> np.ndarray:
    """Return the exact share of attention in each tile of a grid over the panorama.

    saliency: (..., H, W). Returns: (..., rows, columns) float32 with a sum of 1 for each map; the
    first row is the northernmost, the first column starts at longitude −π.
    """
    height, width = saliency.shape[-2:]
    down = _overlaps(rows, height, lambda y: -np.cos(np.pi * y))
    across = _overlaps(columns, width, lambda x: 2 * np.pi * x)
    return (down @ density(saliency) @ across.T).astype(np.float32)


def share(
    saliency: np.ndarray | Tensor, longitude: float, latitude: float, radius: float = CAP_RADIUS
) -> float:
    """Return the share of a map's attention within an angle of a direction.

    saliency: (H, W), not negative. Angles are in radians. Pixels at the cap's edge count in part.
    """
    maps = np.asarray(saliency, np.float32)
    pixel = math.pi / len(maps)
    cap, cosines = _cap(longitude, latitude, radius + pixel / 2, maps.shape)
    inside = np.clip((radius - np.arccos(cosines.clip(-1, 1))) / pixel + 0.5, 0, 1)
    areas = _grid(*maps.shape)[2]
    sums = cv2.reduce(maps, 1, cv2.REDUCE_SUM, dtype=cv2.CV_64F)[:, 0]
    total, values = areas @ sums, maps[cap]
    if not total:
        total, values = 4 * math.pi, 1.0
    return min(1.0, float((values * areas[cap[0]] * inside).sum() / total))


def peaks(saliency: np.ndarray | Tensor, count: int) -> list[tuple[float, float]]:
    """Return the (longitude, latitude) of the highest peaks in radians, the highest first.

    saliency: (H, W), not negative. A peak is the centre of a pixel that is a maximum within
    CAP_RADIUS and not within CAP_RADIUS of a higher peak. A constant map has none.
    """
    values = np.asarray(saliency, np.float32)
    height, width = values.shape
    latitudes, longitudes, _ = _grid(height, width)
    # A peak is also the maximum of a rectangle in its cap, which is fast to compute.
    sides = (2 * int(CAP_RADIUS / math.sqrt(2) * k / math.pi) + 1 for k in (height, width / 2))
    highest = cv2.dilate(values, np.ones(tuple(sides), np.uint8))
    left = np.where(values == highest, values, -1)
    covered = np.zeros(values.shape, bool)  # within CAP_RADIUS of a peak
    places, lowest = [], values.min()
    while len(places) < count:
        row, column = np.unravel_index(left.argmax(), left.shape)
        if (value := left[row, column]) <= lowest:
            break
        left[row, column] = -1
        if covered[row, column]:
            continue
        place = longitudes[column].item(), latitudes[row].item()
        cap, _ = _cap(*place, CAP_RADIUS, values.shape)
        if values[cap].max() <= value:
            covered[cap] = True
            places.append(place)
    return places


@lru_cache(4)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the latitude of each row, the longitude of each column, and the rows' solid angles."""
    areas = sphere.solid_angles(height, width, torch.float64).numpy()[:, 0]
    return sphere.latitudes(height).numpy(), sphere.longitudes(width).numpy(), areas


def _cap(
    longitude: float, latitude: float, radius: float, size: tuple[int, int]
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return the pixels within an angle of a direction: (rows, columns), the angles' cosines."""
    height, width = size
    latitudes, longitudes, _ = _grid(height, width)
    top, bottom = (sphere.row_of(latitude + angle, height) for angle in (radius, -radius))
    rows = np.arange(max(0, math.floor(top)), min(math.ceil(bottom) + 1, height))
    cosines = np.outer(np.cos(latitudes[rows]) * math.cos(latitude), np.cos(longitudes - longitude))
    cosines += np.sin(latitudes[rows])[:, None] * math.sin(latitude)
    i, j = (cosines >= math.cos(min(radius, math.pi))).nonzero()
    return (rows[i], j), cosines[i, j]


def _overlaps(tiles: int, pixels: int, measure) -> np.ndarray:
    """Return shares of pixels in tiles, (tiles, pixels). measure: integral of the area up to x."""
    tile, pixel = np.linspace(0, 1, tiles + 1)[:, None], np.linspace(0, 1, pixels + 1)
    start, end = np.maximum(tile[:-1], pixel[:-1]), np.minimum(tile[1:], pixel[1:])
    return measure(np.maximum(start, end)) - measure(start)
