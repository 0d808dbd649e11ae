"""Where on the sphere the pixels of a picture lie: its eyes, and how much of the sphere they cover.

A picture holds one panorama, or one for each eye in two halves of equal size, of which the first
(the upper or the left one) is the left eye's. Each is equirectangular and covers longitudes from
WEST to EAST and latitudes from SOUTH to NORTH, in degrees: the centre of pixel (i, j) of its h×w
pixels is at latitude NORTH − (i + ½)·(NORTH − SOUTH)/h and longitude
WEST + (j + ½)·(EAST − WEST)/w; for the whole sphere, the convention of projection/__init__.py.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from common.options import STEREO

SPHERE = (-180.0, 180.0, -90.0, 90.0)
Coverage = tuple[float, float, float, float]


@dataclass(frozen=True)
class Layout:
    """How pictures lie on the sphere. Raises ValueError for what is no such layout.

    stereo: one of STEREO. coverage: of each eye, (WEST, EAST, SOUTH, NORTH) in degrees;
    a panorama that continues beyond ±180° is turned first. pose: yaw, pitch and roll in degrees
    that the source declares for players, which is handed on and does not move anything here.
    """

    stereo: str = "none"
    coverage: Coverage = SPHERE
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self):
        object.__setattr__(self, "coverage", tuple(map(float, self.coverage)))
        if self.stereo not in STEREO:
            raise ValueError(f"stereo is one of {', '.join(STEREO)}, got {self.stereo!r}")
        west, east, south, north = self.coverage
        if not (-180 <= west <= east - 1 <= 179 and -90 <= south <= north - 1 <= 89):
            limits = "at least 1 apart and within -180, 180, -90, 90"
            given = ", ".join(f"{angle:g}" for angle in self.coverage)
            raise ValueError(
                f"give the coverage as WEST, EAST, SOUTH, NORTH in degrees, {limits}; got {given}"
            )

    @property
    def whole(self) -> bool:
        """Whether each eye covers the whole sphere."""
        return self.coverage == SPHERE

    def eyes(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Return the rows and columns of each eye in pictures of this size, the left one first.

        An odd row or column at the end belongs to no eye.
        """
        rows = height // 2 if self.stereo == "top-bottom" else height
        columns = width // 2 if self.stereo == "left-right" else width
        first = slice(0, rows), slice(0, columns)
        if self.stereo == "none":
            return [first]
        down, right = (rows, 0) if self.stereo == "top-bottom" else (0, columns)
        return [first, (slice(down, down + rows), slice(right, right + columns))]

    def stored_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of pictures that show panoramas of height×width pixels at their scale."""
        west, east, south, north = self.coverage
        rows = max(1, round(height * ((north - south) / 180)))
        columns = max(1, round(width * ((east - west) / 360)))
        down, across = self.stereo == "top-bottom", self.stereo == "left-right"
        return rows * (1 + down), columns * (1 + across)

    def panorama(
        self, picture: np.ndarray, height: int | None = None, width: int | None = None
    ) -> np.ndarray:
        """Return the left eye's view of the whole sphere as a picture of its own.

        picture: (h, w) or (h, w, C) uint8, as it is stored. An eye that covers the whole sphere is
        returned as it is, at its own size. Any other is put into a panorama of height×width pixels
        (None: as many as give its pixels their size), whose rest repeats the eye's nearest edge:
        see `covered`.
        """
        picture = picture[self.eyes(*picture.shape[:2])[0]]
        if self.whole:
            return picture
        west, east, south, north = self.coverage
        share = (north - south) / 180, (east - west) / 360
        rows, columns = picture.shape[:2]
        height, width = height or round(rows / share[0]), width or round(columns / share[1])
        least = replace(self, stereo="none").stored_size(height, width)
        smaller = min(rows, least[0]), min(columns, least[1])
        if smaller != (rows, columns):
            picture = cv2.resize(picture, smaller[::-1], interpolation=cv2.INTER_AREA)
        grid = _grid(self.coverage, smaller, SPHERE, (height, width))
        return cv2.remap(picture, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    def covered(self, height: int, width: int) -> np.ndarray:
        """Return which pixels of a panorama of the whole sphere lie in the coverage: (H, W) bool.

        A pixel does where its centre does.
        """
        west, east, south, north = self.coverage
        latitude = 90 - (np.arange(height) + 0.5) * 180 / height
        longitude = (np.arange(width) + 0.5) * 360 / width - 180
        inside = (south <= latitude) & (latitude <= north)
        return inside[:, None] & (west <= longitude) & (longitude <= east)

    def part(self, panorama: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return what an eye of height×width pixels covers of a panorama of the whole sphere.

        panorama: (h, w) uint8, a map for example; it is averaged where it shrinks and interpolated
        where it grows.
        """
        west, east, south, north = self.coverage
        full = round(height * 180 / (north - south)), round(width * 360 / (east - west))
        smaller = min(panorama.shape[0], full[0]), min(panorama.shape[1], full[1])
        if smaller != panorama.shape:
            panorama = cv2.resize(panorama, smaller[::-1], interpolation=cv2.INTER_AREA)
        beyond = np.roll(panorama, smaller[1] // 2, axis=1)  # a pole, half a turn away
        padded = np.concatenate([beyond[1::-1], panorama, beyond[:-3:-1]])  # a cubic kernel's reach
        padded = cv2.copyMakeBorder(padded, 0, 0, 2, 2, cv2.BORDER_WRAP)
        grid = _grid(SPHERE, smaller, self.coverage, (height, width), margin=2)
        return cv2.remap(padded, *grid, cv2.INTER_CUBIC)


MONO = Layout()  # a whole sphere, as it is stored


@lru_cache(4)
def _grid(
    source: Coverage, size: tuple[int, int], target: Coverage, new: tuple[int, int], margin=0
) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel centre of one picture is in another: columns and rows, both (H, W).

    source, target: what they cover; size, new: their rows and columns. A place outside of a source
    becomes the nearest one on its edge, except across ±180° and a pole, where a sphere continues.
    margin: rows and columns before the first ones of the source.
    """
    west, east, south, north = target
    longitude = west + (np.arange(new[1]) + 0.5) * (east - west) / new[1]
    latitude = north - (np.arange(new[0]) + 0.5) * (north - south) / new[0]
    west, east, south, north = source
    column = (longitude - west) * size[1] / (east - west) - 0.5
    row = (north - latitude) * size[0] / (north - south) - 0.5
    if source != SPHERE:
        row = row.clip(0, size[0] - 1)
    if east - west < 360:
        middle = (west + east) / 2
        around = (longitude - middle + 180) % 360 - 180 + middle  # the nearer edge, round the back
        column = ((around - west) * size[1] / (east - west) - 0.5).clip(0, size[1] - 1)
    return tuple(np.meshgrid(*((place + margin).astype(np.float32) for place in (column, row))))
