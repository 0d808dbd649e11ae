"""Perspective views of panoramas and back, and rotated panoramas. Angles are in degrees."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from projection.perspective import extent_of, from_plane, samples_across, steps, to_plane
from projection.resampling import Resampling
from projection.sphere import (
    direction_of,
    directions,
    equirectangular_taps,
    latitude_of,
    latitudes,
    longitude_of,
    orientation,
)


def _places(n: int) -> list[tuple[float, float]]:
    """Return the centres of n×n equal parts of a pixel: rows and columns from 0 to 1."""
    centres = [(k + 0.5) / n for k in range(n)]
    return [(row, column) for row in centres for column in centres]


class Equi2Perspective(nn.Module):
    """Renders what an ideal camera in the middle of the sphere sees.

    Where a pixel of the view spans several of the source, it is the mean of as many bilinear
    samples (samples_across), and rows near the poles are smoothed first. Otherwise one sample is
    taken, as Equi2Cube does. Wraps at ±180° and across the poles.

    fov: horizontal field of view; the vertical one follows from square pixels, see extent_of.
    size: (h, w) of the view. Raises ValueError for others.
    forward: (B, C, H, W), yaw, pitch, roll → (B, C, h, w). Raises ValueError for no such image.

    >>> from projection import directions
    >>> right = directions(8, 16)[None, ..., 0].unsqueeze(1)  # x of every pixel
    >>> Equi2Perspective(90, (2, 2))(right, yaw=90).mean() > 0.7
    tensor(True)
    """

    def __init__(self, fov: float, size: tuple[int, int]):
        super().__init__()
        self.fov, self.size, self.extent = fov, tuple(size), extent_of(fov, *size)

    def rays(self, yaw=0.0, pitch=0.0, roll=0.0, place=(0.5, 0.5)) -> Tensor:
        """Return directions (h, w, 3) float64, not of unit length, of the view's pixels.

        place: row and column inside each pixel, from 0 to 1.
        """
        grids = (torch.arange(n, dtype=torch.float64) for n in self.size)
        v, u = (2 * (grid + at) / len(grid) - 1 for grid, at in zip(grids, place))
        camera = orientation(*map(math.radians, (yaw, pitch, roll)))
        return from_plane(u, v[:, None], self.extent) @ camera.T

    def forward(self, image: Tensor, yaw=0.0, pitch=0.0, roll=0.0) -> Tensor:
        height, width = _size(image)
        n = samples_across(self.extent, self.size[1], height, width)
        pixels = image.to(torch.promote_types(image.dtype, torch.float32))
        if n > 1:
            pixels = _smooth_polar_rows(pixels, 2 * self.extent[0] / self.size[1] / n)
        views = (_sample(pixels, self.rays(yaw, pitch, roll, place)) for place in _places(n))
        return (sum(views, torch.zeros(())) / n**2).to(image.dtype)


class Perspective2Equi(nn.Module):
    """Puts a view onto the sphere: the inverse of Equi2Perspective where the view covers it.

    A pixel of the sphere is the mean of bilinear samples, as many as make it at most one pixel of
    the view from one to the next, of those that lie inside the view.

    fov: horizontal field of view of the views. size: (H, W) of the equirectangular image.
    forward: (B, C, h, w), yaw, pitch, roll → image (B, C, H, W), 0 where nothing is covered, and
    weight (1, 1, H, W), the share of each pixel that is covered. Several views are merged by
    Σ image·weight / Σ weight. Raises ValueError for no such image.

    >>> image, weight = Perspective2Equi(90, (4, 8))(torch.ones(1, 1, 5, 5))
    >>> image[0, 0, 1]  # a row above the equator: the front quarter is covered
    tensor([0., 0., 0., 1., 1., 0., 0., 0.])
    """

    def __init__(self, fov: float, size: tuple[int, int]):
        super().__init__()
        extent_of(fov, *size)
        self.fov, self.size = fov, tuple(size)

    def forward(self, view: Tensor, yaw=0.0, pitch=0.0, roll=0.0) -> tuple[Tensor, Tensor]:
        (height, width), (h, w) = self.size, _size(view)
        extent = extent_of(self.fov, h, w)
        camera = orientation(*map(math.radians, (yaw, pitch, roll)))
        pixel = max(math.pi / height, 2 * math.pi / width)
        secant = math.hypot(1, *extent)  # 1 / cos of the angle to the corners
        n = steps(pixel, 2 * extent[0] / w / secant**2)
        ahead = directions(height, width, torch.float64).flatten(0, 1) @ camera[:, 2]
        near = (ahead >= math.cos(math.acos(1 / secant) + pixel)).nonzero()[:, 0]
        row, column = (near // width).double(), (near % width).double()
        values = view.to(torch.promote_types(view.dtype, torch.float32))
        total, weight = 0, torch.zeros(len(near), dtype=values.dtype)
        for i, j in _places(n):
            place = longitude_of(column + j - 0.5, width), latitude_of(row + i - 0.5, height)
            u, v = to_plane(direction_of(*place) @ camera, extent)
            inside = (u.abs() <= 1) & (v.abs() <= 1)
            grid = torch.stack([u, v], dim=-1).clamp(-1, 1).expand(len(view), 1, -1, -1).to(values)
            sampled = grid_sample(values, grid, padding_mode="border", align_corners=False)
            total = total + sampled[:, :, 0] * inside.to(values)
            weight += inside
        weight, near = weight.to(view.device), near.to(view.device)
        image = values.new_zeros(*view.shape[:2], height * width)
        image[..., near] = total / weight.clamp(min=1)
        covered = values.new_zeros(1, 1, height * width)
        covered[..., near] = weight / n**2
        return tuple(a.unflatten(-1, self.size).to(view.dtype) for a in (image, covered))


def rotate(image: Tensor, yaw=0.0, pitch=0.0, roll=0.0, inverse: bool = False) -> Tensor:
    """Return the panorama as a camera sees it that is turned so, by bilinear interpolation.

    Its middle is what was at longitude `yaw` and latitude `pitch`. inverse: undo such a rotation,
    so that what was in the middle comes to longitude `yaw` and latitude `pitch`.

    image: (B, C, H, W) → (B, C, H, W). Raises ValueError for no such image.

    >>> rotate(torch.arange(4.0).view(1, 1, 1, 4), yaw=90)
    tensor([[[[1., 2., 3., 0.]]]])
    """
    height, width = _size(image)
    camera = orientation(*map(math.radians, (yaw, pitch, roll)))
    turn = camera if inverse else camera.T
    return _sample(image, directions(height, width, torch.float64) @ turn)


def _sample(image: Tensor, rays: Tensor) -> Tensor:
    """Return an equirectangular image (B, C, H, W) along rays (h, w, 3): (B, C, h, w)."""
    size = image.shape[-2:]
    dtype = torch.promote_types(image.dtype, torch.float32)
    return Resampling(*equirectangular_taps(rays, *size), size, dtype).to(image.device)(image)


def _smooth_polar_rows(image: Tensor, spacing: float) -> Tensor:
    """Blur rows along the longitude where samples `spacing` radians apart skip columns.

    The standard deviation is half the distance of samples in columns where that is much more than
    1, and 0 where it is 1.
    """
    height, width = image.shape[-2:]
    columns = spacing * width / (2 * math.pi) / latitudes(height).cos()[:, None]
    spread = 0.5 * (columns**2 - 1).clamp(min=0).sqrt()
    frequency = torch.arange(width // 2 + 1, dtype=torch.float64) * 2 * math.pi / width
    keep = (-0.5 * (spread * frequency) ** 2).exp().to(image)
    spectrum = torch.fft.rfft(image)
    return torch.fft.irfft(spectrum * keep, n=width)


def _size(image: Tensor) -> tuple[int, int]:
    if image.dim() != 4 or not image.is_floating_point():
        raise ValueError(f"expected images (B, C, H, W), got {tuple(image.shape)}, {image.dtype}")
    height, width = image.shape[-2:]
    return height, width
