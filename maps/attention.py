"""A saliency map in numbers: its density, peaks, attention around a direction and in tiles.

A map is piecewise constant over the pixels of projection/__init__.py. What is said about it does
not depend on its scale. A map that is zero everywhere prefers no direction, and so it counts as
uniform attention.
"""

import math

import cv2
import numpy as np
from torch import Tensor

from projection.sphere import latitudes, longitudes, solid_angles

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
    areas = solid_angles(*maps.shape[-2:]).double().numpy()
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
    maps = np.asarray(saliency)
    height, width = maps.shape
    pixel = math.pi / height
    rows, columns, cosine = _cap(longitude, latitude, radius + pixel / 2, height, width)
    inside = np.clip((radius - np.arccos(cosine)) / pixel + 0.5, 0, 1)
    areas = solid_angles(height, width).double().numpy()[:, 0]
    total, values = areas @ maps.sum(1, dtype=np.float64), maps[rows, columns]
    if not total:
        total, values = 4 * math.pi, 1.0
    return min(1.0, float((values * areas[rows] * inside).sum() / total))


def peaks(saliency: np.ndarray | Tensor, count: int) -> list[tuple[float, float]]:
    """Return the (longitude, latitude) of the highest peaks in radians, the highest first.

    saliency: (H, W), not negative. A peak is a pixel that is as high as all others within RADIUS
    and not within RADIUS of a peak found before; distances are angles on the sphere. There may be
    fewer than `count` of them, and none in a map that is the same everywhere. Its place within the
    pixel is the maximum of a quadratic around it; see `_summit`.
    """
    values = np.asarray(saliency, np.float32)
    height, width = values.shape
    latitude, longitude = latitudes(height).numpy(), longitudes(width).numpy()
    # A peak is also the highest in a rectangle inside its cap, which is quick to find out.
    side = 2 * int(RADIUS / math.sqrt(2) / math.pi * height) + 1
    across = 2 * int(RADIUS / math.sqrt(2) / math.pi * width / 2) + 1
    highest = cv2.dilate(values, np.ones((side, across), np.uint8))
    left = np.flatnonzero((values == highest) & (values > values.min()))
    left = left[np.argsort(-values.flat[left], kind="stable")]
    found: list[tuple[float, float]] = []
    while len(left) and len(found) < count:
        row, column = divmod(int(left[0]), width)
        rows, columns, _ = _cap(longitude[column], latitude[row], RADIUS, height, width)
        above = np.argmax(values[rows, columns])
        if values[rows[above], columns[above]] <= values[row, column]:
            found.append(_summit(values, longitude[column], latitude[row]))
        else:  # on the slope of a higher place
            row, column = rows[above], columns[above]
        # What is left is no higher than this place, so near it there is no other peak.
        far = _cosines(
            longitude[column], latitude[row], longitude[left % width], latitude[left // width]
        ) < math.cos(RADIUS)
        far[0] = False
        left = left[far]
    return found


def _summit(values: np.ndarray, longitude: float, latitude: float) -> tuple[float, float]:
    """Return the maximum of the quadratic that fits a map best around one of its pixels.

    The fit is made in the plane that touches the sphere there, in which a pixel has its angle and
    bearing (azimuthal equidistant), so that neither seam nor pole is special. Pixels weigh as much
    as their solid angle, less towards the edge of the cap. The next fit is around the maximum
    found: around a symmetric peak's own place, the fit is symmetric, too, and stays there. Where
    there is no maximum, the place stays as it is.
    """
    height, width = values.shape
    radius = min(FIT * math.pi / height, math.pi / 2)
    place = longitude, latitude
    for _ in range(4):
        rows, columns, cosine = _cap(*place, radius, height, width)
        at = latitudes(height).numpy()[rows], longitudes(width).numpy()[columns] - place[0]
        east = np.cos(at[0]) * np.sin(at[1])
        north = np.sin(at[0]) * math.cos(place[1]) - np.cos(at[0]) * math.sin(place[1]) * np.cos(
            at[1]
        )
        angle = np.arctan2(np.hypot(east, north), cosine) / radius
        x, y = (a * angle / np.maximum(np.hypot(east, north), 1e-12) for a in (east, north))
        terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
        weighted = terms * np.cos(at[0]) * (1 - angle**2).clip(0) ** 2
        fit = np.linalg.lstsq(weighted @ terms.T, weighted @ values[rows, columns], rcond=None)[0]
        _, slope_x, slope_y, xx, xy, yy = fit
        bend = 4 * xx * yy - xy**2
        if xx >= 0 or bend <= 0:
            break
        x, y = (xy * slope_y - 2 * yy * slope_x) / bend, (xy * slope_x - 2 * xx * slope_y) / bend
        if math.hypot(x, y) > 0.5:
            break
        place = _moved(*place, radius * x, radius * y)
    return place


def _moved(longitude: float, latitude: float, east: float, north: float) -> tuple[float, float]:
    """Return where a great circle leads that starts in a direction east and north, in radians."""
    angle = math.hypot(east, north)
    scale = math.sin(angle) / angle if angle else 0.0
    forward = math.cos(angle) * math.cos(latitude) - scale * north * math.sin(latitude)
    up = math.cos(angle) * math.sin(latitude) + scale * north * math.cos(latitude)
    turned = longitude + math.atan2(scale * east, forward)
    return math.remainder(turned, 2 * math.pi), math.atan2(up, math.hypot(forward, scale * east))


def _cosines(longitude: float, latitude: float, longitudes, latitudes) -> np.ndarray:
    """Return the cosine of the angle between one direction and others; arrays that broadcast."""
    level = math.cos(latitude) * np.cos(latitudes) * np.cos(longitudes - longitude)
    return (level + math.sin(latitude) * np.sin(latitudes)).clip(-1, 1)


def _cap(longitude: float, latitude: float, radius: float, height: int, width: int):
    """Return the pixels within an angle of a direction: rows, columns, cosine of the angle."""
    first, last = ((math.pi / 2 - latitude + a) * height / math.pi for a in (-radius, radius))
    rows = np.arange(max(0, math.floor(first)), min(height, math.ceil(last)))
    band = latitudes(height).numpy()[rows, None]
    cosine = _cosines(longitude, latitude, longitudes(width).numpy(), band)
    row, column = np.nonzero(cosine >= math.cos(min(radius, math.pi)))
    return rows[row], column, cosine[row, column]


def _overlaps(tiles: int, pixels: int, measure) -> np.ndarray:
    """Return how much of each pixel lies in each tile, (tiles, pixels).

    measure: integral of the area along an axis that goes from 0 to 1.
    """
    tile, pixel = np.linspace(0, 1, tiles + 1)[:, None], np.linspace(0, 1, pixels + 1)
    start, end = np.maximum(tile[:-1], pixel[:-1]), np.minimum(tile[1:], pixel[1:])
    return measure(np.maximum(start, end)) - measure(start)
