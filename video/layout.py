"""Where on the sphere the pixels of a picture lie: its eyes, and how much of the sphere they cover.

A picture holds one panorama, or one for each eye in two halves of equal size, of which the first
(the upper or the left one) is the left eye's. Each is equirectangular and covers longitudes from
WEST to EAST and latitudes from SOUTH to NORTH, in degrees: the centre of pixel (i, j) of its h×w
pixels is at latitude NORTH − (i + ½)·(NORTH − SOUTH)/h and longitude
WEST + (j + ½)·(EAST − WEST)/w; for the whole sphere, the convention of projection/__init__.py.
"""

from dataclasses import dataclass
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
        rows, columns = picture.shape[:2]
        height = height or round(rows * 180 / (north - south))
        width = width or round(columns * 360 / (east - west))
        return resample(picture, self.coverage, SPHERE, height, width)

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
        return resample(panorama, SPHERE, self.coverage, height, width, cubic=True)


MONO = Layout()  # a whole sphere, as it is stored


def resample(
    picture: np.ndarray,
    source: Coverage,
    target: Coverage,
    height: int,
    width: int,
    cubic: bool = False,
) -> np.ndarray:
    """Return what `target` covers of a picture that covers `source`, height×width pixels.

    picture: (h, w) or (h, w, C). It is averaged over areas where it shrinks and interpolated where
    it grows, linearly or by a cubic, across ±180°; a cubic of a whole sphere also across the poles.
    A place outside of the source gets the nearest edge.
    """
    shares = [(s[1] - s[0]) / (t[1] - t[0]) for s, t in zip(_axes(source), _axes(target))]
    scaled = max(1, round(height * shares[0])), max(1, round(width * shares[1]))
    smaller = min(picture.shape[0], scaled[0]), min(picture.shape[1], scaled[1])
    if smaller != picture.shape[:2]:
        picture = cv2.resize(picture, smaller[::-1], interpolation=cv2.INTER_AREA)
    if source == target and smaller == (height, width):
        return picture
    margin = 2 if cubic else 0  # pixels that the kernel of a cubic reaches
    if cubic:
        beyond = np.roll(picture, smaller[1] // 2, axis=1)  # a pole, half a turn away
        picture = np.concatenate([beyond[1::-1], picture, beyond[:-3:-1]])
        picture = cv2.copyMakeBorder(picture, 0, 0, margin, margin, cv2.BORDER_WRAP)
    grid = _grid(source, smaller, target, (height, width), margin)
    kind = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    return cv2.remap(picture, *grid, kind, borderMode=cv2.BORDER_WRAP)


def _axes(coverage: Coverage) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the latitudes and the longitudes of a coverage, each as (least, greatest)."""
    west, east, south, north = coverage
    return (south, north), (west, east)


@lru_cache(4)
def _grid(
    source: Coverage, size: tuple[int, int], target: Coverage, new: tuple[int, int], margin=0
) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel centre of one picture is in another: columns and rows, both (H, W).

    source, target: what they cover; size, new: their rows and columns. A place outside of a source
    becomes the nearest one on its edge, except across ±180°. margin: rows and columns that were
    put around a source which is a whole sphere, so that it continues across the poles, too.
    """
    west, east, south, north = target
    longitude = west + (np.arange(new[1]) + 0.5) * (east - west) / new[1]
    latitude = north - (np.arange(new[0]) + 0.5) * (north - south) / new[0]
    west, east, south, north = source
    column = (longitude - west) * size[1] / (east - west) - 0.5
    row = (north - latitude) * size[0] / (north - south) - 0.5
    if not margin:
        row = row.clip(0, size[0] - 1)
    if east - west < 360:
        middle = (west + east) / 2
        around = (longitude - middle + 180) % 360 - 180 + middle  # the nearer edge, round the back
        column = ((around - west) * size[1] / (east - west) - 0.5).clip(0, size[1] - 1)
    return tuple(np.meshgrid(*((place + margin).astype(np.float32) for place in (column, row))))
