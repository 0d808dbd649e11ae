"""The equirectangular grid on the sphere: pixels, angles, directions, areas, bilinear taps.

Angles are in radians. The first four functions take numbers, arrays and tensors alike.
"""

import math

import torch
from torch import Tensor


def latitude_of(row, height: int):
    """Return the latitude at rows of an image, also between pixel centres."""
    return math.pi / 2 - (row + 0.5) * math.pi / height


def longitude_of(column, width: int):
    """Return the longitude at columns of an image, in (−π, π) inside it."""
    return (column + 0.5) * 2 * math.pi / width - math.pi


def row_of(latitude, height: int):
    """Return the fractional row at latitudes; −0.5 is the north pole."""
    return (math.pi / 2 - latitude) * height / math.pi - 0.5


def column_of(longitude, width: int):
    """Return the fractional column at longitudes; −0.5 is −π."""
    return (longitude + math.pi) * width / (2 * math.pi) - 0.5


def direction_of(longitude: Tensor, latitude: Tensor) -> Tensor:
    """Return unit vectors (..., 3) towards longitudes and latitudes, which are broadcast."""
    longitude, latitude = torch.broadcast_tensors(longitude, latitude)
    across = latitude.cos()
    return torch.stack([across * longitude.sin(), latitude.sin(), across * longitude.cos()], -1)


def angles_of(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return longitudes in [−π, π] and latitudes (...) of directions (..., 3) of any length."""
    x, y, z = points.unbind(-1)
    return torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))


def orientation(yaw: float, pitch: float, roll: float = 0.0) -> Tensor:
    """Return a camera's axes in world coordinates: (3, 3) float64, columns right, up, ahead."""
    (sy, sp, sr), (cy, cp, cr) = ([f(a) for a in (yaw, pitch, roll)] for f in (math.sin, math.cos))
    turn = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]], dtype=torch.float64)
    lift = torch.tensor([[1, 0, 0], [0, cp, sp], [0, -sp, cp]], dtype=torch.float64)
    lean = torch.tensor([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]], dtype=torch.float64)
    return turn @ lift @ lean


def latitudes(height: int) -> Tensor:
    """Return the latitude of each row's centre in radians, north first: (H,) float64."""
    return latitude_of(torch.arange(height, dtype=torch.float64), height)


def longitudes(width: int) -> Tensor:
    """Return the longitude of each column's centre in radians, in (−π, π): (W,) float64."""
    return longitude_of(torch.arange(width, dtype=torch.float64), width)


def directions(height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return the unit vector (x right, y up, z forward) of each pixel centre.

    Returns: (H, W, 3), computed in float64, returned in `dtype` (torch's default if None).
    """
    check_size(height, width)
    points = direction_of(longitudes(width), latitudes(height)[:, None])
    return points.to(dtype or torch.get_default_dtype())


def solid_angles(height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return the exact solid angle of one pixel of each row, in steradians.

    A pixel of row i spans Δλ = 2π/W between latitudes φ ± π/2H and covers
    Δλ (sin(φ + π/2H) − sin(φ − π/2H)) = Δλ · 2 cos φ sin(π/2H).

    Returns: (H, 1) in `dtype` (torch's default if None); over the H×W image they sum to 4π.
    """
    check_size(height, width)
    area = 2 * math.pi / width * 2 * latitudes(height).cos() * math.sin(math.pi / (2 * height))
    return area[:, None].to(dtype or torch.get_default_dtype())


def equirectangular_taps(points: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return bilinear interpolation at any direction as four taps on an H×W image.

    Columns wrap at ±180°. A row beyond a pole is the first row inside it, half a turn away; if W is
    odd, this is half a column off the grid, so each row has its own column fraction.

    points: (..., 3) float64 directions of any length.
    Returns: index into the flattened image, (4, ...) int64, and weight, (4, ...) float64.
    """
    longitude, latitude = angles_of(points)
    row, column = row_of(latitude, height), column_of(longitude, width)
    index, weight = [], []
    north = row.floor()
    for tap_row, row_weight in ((north, north + 1 - row), (north + 1, row - north)):
        beyond = (tap_row < 0) | (tap_row >= height)
        tap_row = torch.where(tap_row < 0, 0, tap_row.clamp(max=height - 1))
        tap_column = torch.where(beyond, column + width / 2, column)
        west = tap_column.floor()
        for c, column_weight in ((west, west + 1 - tap_column), (west + 1, tap_column - west)):
            index.append(tap_row.long() * width + c.long() % width)
            weight.append(row_weight * column_weight)
    return torch.stack(index), torch.stack(weight)


def check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"an image needs at least one row and one column, got {height}×{width}")
