"""The layout of a picture on the sphere: its eyes and their coverage.

A picture contains one panorama, or one for each eye in two halves of equal size; the first (upper
or left) one is the left eye's. Each covers longitudes from WEST to EAST and latitudes from SOUTH to
NORTH, in degrees: the centre of pixel (i, j) of its h×w pixels is at latitude
NORTH − (i + ½)·(NORTH − SOUTH)/h and longitude WEST + (j + ½)·(EAST − WEST)/w.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from torch import Tensor

from common.options import STEREO

EYES = dict(zip(STEREO, ((1, 1), (2, 1), (1, 2))))  # number of eyes vertically and horizontally
SPHERE = (-180.0, 180.0, -90.0, 90.0)
Coverage = tuple[float, float, float, float]


@dataclass(frozen=True)
class Layout:
    """Layout of pictures on the sphere. Raises ValueError for an invalid one."""

    stereo: str = "none"  # one of STEREO
    coverage: Coverage = SPHERE  # of each eye: (WEST, EAST, SOUTH, NORTH) in degrees
    # Yaw, pitch, roll in degrees: copied from the source for players, not applied here.
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self):
        object.__setattr__(self, "coverage", tuple(map(float, self.coverage)))
        if self.stereo not in STEREO:
            raise ValueError(f"stereo must be one of {', '.join(STEREO)}, got {self.stereo!r}")
        west, east, south, north = self.coverage
        if not (-180 <= west <= east - 1 <= 179 and -90 <= south <= north - 1 <= 89):
            bounds = "WEST, EAST, SOUTH, NORTH in degrees, at least 1 apart, in -180, 180, -90, 90"
            raise ValueError(f"give the coverage as {bounds}; got {self.coverage}")

    @property
    def whole(self) -> bool:
        """Whether each eye covers the whole sphere."""
        return self.coverage == SPHERE

    def eyes(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Return rows and columns of each eye, left first; an odd last one belongs to neither."""
        down, across = EYES[self.stereo]
        rows, columns = height // down, width // across
        tops, lefts = (rows * i for i in range(down)), [columns * i for i in range(across)]
        return [(slice(y, y + rows), slice(x, x + columns)) for y in tops for x in lefts]

    def stored_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of pictures with the scale of panoramas of height×width pixels."""
        west, east, south, north = self.coverage
        rows = max(1, round(height * ((north - south) / 180)))
        columns = max(1, round(width * ((east - west) / 360)))
        down, across = EYES[self.stereo]
        return down * rows, across * columns

    def panorama_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the whole sphere at the scale of an eye of height×width pixels."""
        west, east, south, north = self.coverage
        return round(height * 180 / (north - south)), round(width * 360 / (east - west))

    def panorama(self, picture: np.ndarray | Tensor, height: int, width: int) -> np.ndarray:
        """Return the left eye's view of the whole sphere, height×width pixels; see `resample`.

        picture: stored picture of a type that `rgb_array` takes, or a plane of it, (h, w) uint8.
        """
        stored = np.asarray(picture) if picture.ndim == 2 else rgb_array(picture)
        eye = stored[self.eyes(*stored.shape[:2])[0]]
        return resample(eye, self.coverage, SPHERE, height, width)

    def covered(self, height: int, width: int) -> np.ndarray:
        """Return which pixel centres of a panorama are covered: (H, W) bool."""
        west, east, south, north = self.coverage
        latitude, longitude = _centres(SPHERE, height, width)
        inside = (south <= latitude) & (latitude <= north)
        return inside[:, None] & (west <= longitude) & (longitude <= east)


MONO = Layout()  # a whole sphere, as it is stored


def rgb_array(picture: np.ndarray | Tensor) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8 RGB.

    picture: such an array or tensor, or a frame's tensor (3, H, W) in [0, 1]. Raises ValueError for
    any other.
    """
    array = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else np.asarray(picture)
    if isinstance(picture, Tensor) and picture.is_floating_point() and array.shape[:-2] == (3,):
        array = np.rint(255 * array.transpose(1, 2, 0).clip(0, 1)).astype(np.uint8)
    if array.dtype != np.uint8 or array.shape[2:] != (3,) or not array.size:
        got = f"got {array.dtype} of shape {array.shape}"
        raise ValueError(f"pictures are (H, W, 3) uint8 RGB, or frames' (3, H, W) tensors; {got}")
    return array


def resample(
    picture: np.ndarray, source: Coverage, target: Coverage, height: int, width: int
) -> np.ndarray:
    """Resample a picture with coverage `source` to coverage `target`, height×width pixels.

    picture: (h, w) or (h, w, C). It is reduced by area averaging and enlarged by linear
    interpolation, across ±180°. Outside the source, edge pixels are repeated.
    """
    rows = round(height * (source[3] - source[2]) / (target[3] - target[2]))
    columns = round(width * (source[1] - source[0]) / (target[1] - target[0]))
    smaller = min(picture.shape[0], max(1, rows)), min(picture.shape[1], max(1, columns))
    if smaller != picture.shape[:2]:
        picture = cv2.resize(picture, smaller[::-1], interpolation=cv2.INTER_AREA)
    if source == target and smaller == (height, width):
        return picture
    grid = _grid(source, smaller, target, (height, width))
    return cv2.remap(picture, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _centres(coverage: Coverage, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the latitudes (H,) and longitudes (W,) of pixel centres in degrees."""
    west, east, south, north = coverage
    latitude = north - (np.arange(height) + 0.5) * (north - south) / height
    return latitude, west + (np.arange(width) + 0.5) * (east - west) / width


@lru_cache(4)
def _grid(
    source: Coverage, size: tuple[int, int], target: Coverage, new: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return columns and rows (H, W) of `target`'s pixel centres in a picture of `source`."""
    latitude, longitude = _centres(target, *new)
    west, east, south, north = source
    middle = (west + east) / 2
    longitude = (longitude - middle + 180) % 360 - 180 + middle  # to the nearer edge
    column = (longitude - west) * size[1] / (east - west) - 0.5
    if east - west < 360:
        column = column.clip(0, size[1] - 1)
    row = ((north - latitude) * size[0] / (north - south) - 0.5).clip(0, size[0] - 1)
    columns, rows = np.meshgrid(column.astype(np.float32), row.astype(np.float32))
    return columns, rows
