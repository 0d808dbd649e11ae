"""Perspective views of the sphere: from positions in a view to directions, and back.

`extent` holds the tangents of half the horizontal and half the vertical field of view. u and v are
±1 at the edges of the view. Cameras are defined in projection/__init__.py.
"""

import math

import torch
from torch import Tensor

from projection.sphere import check_size


def extent_of(fov: float, height: int, width: int) -> tuple[float, float]:
    """Return the extent of a view with square pixels. Raises ValueError for invalid sizes.

    fov: horizontal field of view in (0, 180). The vertical one is 58.7° for 90° at 16:9.
    """
    check_size(height, width)
    if not 0 < fov < 180:
        raise ValueError(f"the field of view must be between 0 and 180 degrees, got {fov}")
    across = math.tan(math.radians(fov / 2))
    return across, across * height / width


def from_plane(u: Tensor, v: Tensor, extent: tuple[float, float]) -> Tensor:
    """Return directions (..., 3) in camera coordinates, z = 1, of positions in the view."""
    u, v = torch.broadcast_tensors(u * extent[0], v * -extent[1])
    return torch.stack([u, v, torch.ones_like(u)], dim=-1)


def to_plane(points: Tensor, extent: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return u and v (...) of unit vectors (..., 3) in camera coordinates; inf behind it."""
    x, y, z = points.unbind(-1)
    in_front = z >= 1e-3
    z = torch.where(in_front, z, 1)
    plane = x / (z * extent[0]), -y / (z * extent[1])
    u, v = (torch.where(in_front, coordinate, math.inf) for coordinate in plane)
    return u, v


def view_rays(extent: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Return directions (h, w, 3) float64 in the camera's axes, z = 1, of the pixels of a view."""
    v, u = ((2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in size)
    return from_plane(u, v[:, None], extent)


def samples_across(extent: tuple[float, float], view_width: int, height: int, width: int) -> int:
    """Return the samples across a view's middle pixel that are at most one source pixel apart."""
    return steps(2 * extent[0] / view_width, min(math.pi / height, 2 * math.pi / width))


def steps(length: float, longest: float) -> int:
    """Return the smallest number of equal parts of a length that are no longer than `longest`."""
    return max(1, math.ceil(length / longest - 1e-9))
