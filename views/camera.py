"""A virtual camera that moves through a 360° video on a path, such as that of views.follow."""

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
    """Yield views, (3·h/2, w) yuv420p, of a camera on a path (degrees by frame), and frames."""
    camera = None
    for frame in frames:
        panorama = mono(to_yuv420p(frame.image), layout)
        camera = camera or Camera(fov, size, len(panorama) * 2 // 3, panorama.shape[1])
        yield camera(panorama, *path[frame.number]), frame.image


class Camera:
    """Extract a perspective view from panoramas of a video.

    fov: horizontal field of view in degrees. size: (h, w) of the view; height, width: of the
    panoramas; all even. A pixel of the view that spans several of the panorama is the mean of as
    many samples, which OpenCV interpolates in steps of 1/32 pixel.
    """

    def __init__(self, fov: float, size: tuple[int, int], height: int, width: int):
        self.size = size
        self.samples = n = samples_across(extent_of(fov, *size), size[1], height, width)
        # Rays and panorama size for luma and for chroma, which is half as large.
        self.parts = []
        for part in (1, 2):
            view = size[0] * n // part, size[1] * n // part
            rays = view_rays(extent_of(fov, *view), view).float()
            self.parts.append((rays, (height // part, width // part)))
        self.latitude, self.places = math.nan, []  # columns and rows of the last view

    def __call__(self, picture: np.ndarray, longitude: float, latitude: float) -> np.ndarray:
        """Return the view of a (3·H/2, W) uint8 yuv420p panorama: (3·h/2, w) yuv420p.

        longitude, latitude: centre of the view in degrees; the horizon is level.
        """
        if latitude != self.latitude:  # otherwise the samples only move along rows
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
    """Return columns and rows (h, w) float32 of an H×W panorama for rays (h, w, 3)."""
    longitude, latitude = angles_of(rays)
    row = row_of(latitude, height).clamp(0, height - 1)
    return column_of(longitude, width).numpy(), row.numpy()
