"""A virtual camera in a 360° video: what is seen on a path, such as that of views.follow."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import av
import cv2
import numpy as np
from torch import Tensor

from projection.perspective import extent_of, samples_across, view_rays
from projection.sphere import angles_of, column_of, orientation, row_of
from video.layout import Layout
from video.yuv import mono, planes, to_yuv420p
from views.frames import FrameWithMap


def followed_views(
    frames: Iterable[FrameWithMap],
    path: Mapping[int, Sequence[float]],
    layout: Layout,
    fov: float,
    size: tuple[int, int],
) -> Iterator[tuple[np.ndarray, av.VideoFrame]]:
    """Yield (view, frame): (3·h/2, w) uint8 yuv420p, of a camera on a path.

    path: longitude and latitude in degrees by the number of the frame. fov, size: as in Camera.
    """
    camera = None
    for frame in frames:
        panorama = mono(to_yuv420p(frame.image), layout)
        camera = camera or Camera(fov, size, len(panorama) * 2 // 3, panorama.shape[1])
        yield camera(panorama, *path[frame.number]), frame.image


class Camera:
    """Takes the picture of a view out of the panoramas of a video.

    fov: horizontal field of view in degrees. size: (h, w) of the view, both even.
    height, width: of the panoramas, both even.

    Where a pixel of the view spans several of the panorama, it is the mean of as many samples,
    by OpenCV's interpolation in steps of 1/32 pixel.
    """

    def __init__(self, fov: float, size: tuple[int, int], height: int, width: int):
        self.size = size
        self.samples = n = samples_across(extent_of(fov, *size), size[1], height, width)
        # Rays and panorama of luma and of chroma, which is half as large.
        self.parts = []
        for part in (1, 2):
            view = size[0] * n // part, size[1] * n // part
            rays = view_rays(extent_of(fov, *view), view).float()
            self.parts.append((rays, (height // part, width // part)))
        self.latitude, self.places = math.nan, []  # columns and rows that were last read

    def __call__(self, picture: np.ndarray, longitude: float, latitude: float) -> np.ndarray:
        """Return the view of a (3·H/2, W) uint8 yuv420p panorama: (3·h/2, w) yuv420p.

        longitude, latitude: degrees of its middle; the horizon is level.
        """
        if latitude != self.latitude:  # else the places move along the rows
            self.latitude, turn = latitude, orientation(0, math.radians(latitude)).float().T
            luma, chroma = (_places(rays @ turn, *size) for rays, size in self.parts)
            self.places = [luma, chroma, chroma]
        out = np.empty((self.size[0] * 3 // 2, self.size[1]), np.uint8)
        for plane, target, (column, row) in zip(planes(picture), planes(out), self.places):
            column = column + np.float32((longitude + 180) % 360 - 180) / 360 * plane.shape[1]
            view = cv2.remap(plane, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
            target[:] = cv2.resize(view, target.shape[::-1], interpolation=cv2.INTER_AREA)
        return out


def _places(rays: Tensor, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the column and row (h, w) float32 of an H×W panorama along rays (h, w, 3)."""
    longitude, latitude = angles_of(rays)
    row = row_of(latitude, height).clamp(0, height - 1)
    return column_of(longitude, width).numpy(), row.numpy()
