"""A saliency map in numbers: its density, peaks, attention around a direction and in tiles.

A map is piecewise constant over the pixels of projection/__init__.py, and its scale does not
matter. A map that is zero everywhere counts as uniform attention.
"""

import math
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from projection import sphere

RADIUS = math.radians(10)  # of a cap of attention, and least angle between two peaks
FIT = 4.0  # radius in rows of the cap to which a peak's quadratic is fitted


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
        raise ValueError("a density needs maps that are finite and not negative")
    scaled = np.where(peak > 0, maps / np.where(peak > 0, peak, 1), 1).astype(np.float32)
    areas = sphere.solid_angles(*maps.shape[-2:]).double().numpy()
    return (scaled / (scaled * areas).sum((-2, -1), keepdims=True)).astype(np.float32)


def not_negative(maps: Tensor) -> Tensor:
    """Shift maps (..., H, W) with negative values, of SST-Sal's reference sampling, up to 0."""
    return maps - maps.amin((-2, -1), keepdim=True).clamp(max=0)


def tiles(saliency: np.ndarray | Tensor, rows: int, columns: int) -> np.ndarray:
    """Return the share of attention in each tile of a grid over the panorama, exact for any grid.

    saliency: (..., H, W). Returns: (..., rows, columns) float32, each map's sum is 1; the first
    row is the northernmost, the first column begins at longitude −π.
    """
    height, width = saliency.shape[-2:]
    down = _overlaps(rows, height, lambda y: -np.cos(np.pi * y))
    across = _overlaps(columns, width, lambda x: 2 * np.pi * x)
    return (down @ density(saliency) @ across.T).astype(np.float32)


def share(
    saliency: np.ndarray | Tensor, longitude: float, latitude: float, radius: float = RADIUS
) -> float:
    """Return the share of a map's attention within an angle of a direction.

    saliency: (H, W), not negative. Angles are in radians. Pixels at the cap's edge count in part.
    """
    maps = np.asarray(saliency, np.float32)
    across = math.cos(latitude)
    x, y, z = across * math.sin(longitude), math.sin(latitude), across * math.cos(longitude)
    centre, pixel = np.array([x, y, z]), math.pi / len(maps)
    cap, points = _cap(centre, radius + pixel / 2, maps.shape)
    inside = np.clip((radius - np.arccos((points @ centre).clip(-1, 1))) / pixel + 0.5, 0, 1)
    areas = _grid(*maps.shape)[1]
    total, values = areas @ maps.sum(1, dtype=np.float64), maps[cap]
    if not total:
        total, values = 4 * math.pi, 1.0
    return min(1.0, float((values * areas[cap[0]] * inside).sum() / total))


def peaks(saliency: np.ndarray | Tensor, count: int) -> list[tuple[float, float]]:
    """Return the (longitude, latitude) of the highest peaks in radians, the highest first.

    saliency: (H, W), not negative. A peak is a pixel that is as high as all others within RADIUS
    and not within RADIUS of a higher peak; a constant map has none. Its place within the pixel is
    the maximum of a quadratic around it; see `_summit`.
    """
    values = np.asarray(saliency, np.float32)
    height, width = values.shape
    # A peak is also the highest in a rectangle inside its cap, which is quick to find out.
    down, across = (int(RADIUS / math.sqrt(2) * n / math.pi) for n in (height, width / 2))
    highest = cv2.dilate(values, np.ones((2 * down + 1, 2 * across + 1), np.uint8))
    left = np.where(values == highest, values, np.float32(-1))
    places, lowest = [], values.min()
    while len(places) < count:
        row, column = divmod(int(left.argmax()), width)
        if (value := left[row, column]) <= lowest:
            break
        point = _grid(height, width)[0][row, column]
        cap, _ = _cap(point, RADIUS, values.shape)
        if values[cap].max() <= value:
            places.append(_summit(values, point))
            left[cap] = -1
        left[row, column] = -1
    return [(math.atan2(x, z), math.atan2(y, math.hypot(x, z))) for x, y, z in places]


def _summit(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the maximum of the quadratic that fits a map best around one of its pixels: (3,).

    The fit is made in the plane that touches the sphere there. Pixels weigh as much as their solid
    angle, less towards the edge of the cap. The next fit is around the maximum of the one before.
    Where there is no maximum, the place stays as it is.
    """
    radius = min(FIT * math.pi / len(values), math.pi / 2)
    for _ in range(4):
        cap, points = _cap(place, radius, values.shape)
        x, y, z = place
        across = math.hypot(x, z) or 1
        axes = np.array([(z, 0, -x), (-x * y, across**2, -y * z)]) / across  # east and north
        x, y = axes @ points.T / math.sin(radius)
        terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
        area = np.hypot(points[:, 0], points[:, 2])
        weighted = terms * area * (1 - x * x - y * y).clip(0) ** 2
        fit = np.linalg.lstsq(weighted @ terms.T, weighted @ values[cap], rcond=None)[0]
        _, slope_x, slope_y, xx, xy, yy = fit
        bend = 4 * xx * yy - xy**2
        if xx >= 0 or bend <= 0:
            break
        step = np.array([xy * slope_y - 2 * yy * slope_x, xy * slope_x - 2 * xx * slope_y]) / bend
        if np.hypot(*step) > 0.5:
            break
        place = place + math.sin(radius) * step @ axes
        place = place / np.linalg.norm(place)
    return place


@lru_cache(4)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the direction of each pixel, (H, W, 3), and the solid angle in each row, (H,)."""
    points = sphere.directions(height, width, torch.float64).numpy()
    return points, sphere.solid_angles(height, width, torch.float64).numpy()[:, 0]


def _cap(centre: np.ndarray, radius: float, size: tuple[int, int]) -> tuple[tuple, np.ndarray]:
    """Return the pixels within an angle of a direction (3,): rows and columns, and directions."""
    (x, y, z), (height, width) = centre.tolist(), size
    latitude, longitude = math.asin(min(max(y, -1.0), 1.0)), math.atan2(x, z)
    top, bottom = (sphere.row_of(latitude + angle, height) for angle in (radius, -radius))
    rows = np.arange(max(0, math.floor(top)), min(math.ceil(bottom) + 1, height))
    columns = np.arange(width)
    if abs(latitude) + radius < math.pi / 2:  # no pole is inside
        reach = min(math.asin(math.sin(radius) / math.cos(latitude)) + math.tau / width, math.pi)
        west = math.floor(sphere.column_of(longitude - reach, width))
        east = math.ceil(sphere.column_of(longitude + reach, width))
        columns = np.arange(west, min(east + 1, west + width)) % width
    points = _grid(height, width)[0][rows[:, None], columns]
    i, j = (points @ centre >= math.cos(min(radius, math.pi))).nonzero()
    return (rows[i], columns[j]), points[i, j]


def _overlaps(tiles: int, pixels: int, measure) -> np.ndarray:
    """Return how much of each pixel lies in each tile, (tiles, pixels).

    measure: integral of the area along an axis that goes from 0 to 1.
    """
    tile, pixel = np.linspace(0, 1, tiles + 1)[:, None], np.linspace(0, 1, pixels + 1)
    start, end = np.maximum(tile[:-1], pixel[:-1]), np.minimum(tile[1:], pixel[1:])
    return measure(np.maximum(start, end)) - measure(start)
