"""The equirectangular grid on the sphere: directions, areas, bilinear sampling."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag


def latitudes(height: int) -> Tensor:
    """Return the latitude of each row's centre in radians, north first: (H,) float64."""
    return math.pi / 2 - (torch.arange(height, dtype=torch.float64) + 0.5) * math.pi / height


def longitudes(width: int) -> Tensor:
    """Return the longitude of each column's centre in radians, in (−π, π): (W,) float64."""
    return (torch.arange(width, dtype=torch.float64) + 0.5) * 2 * math.pi / width - math.pi


def directions(height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return the unit vector (x right, y up, z forward) of each pixel centre.

    Returns: (H, W, 3), computed in float64, returned in `dtype` (torch's default if None).
    """
    check_size(height, width)
    latitude, longitude = latitudes(height)[:, None], longitudes(width)[None, :]
    x = latitude.cos() * longitude.sin()
    y = latitude.sin().expand(height, width)
    z = latitude.cos() * longitude.cos()
    return torch.stack([x, y, z], dim=-1).to(dtype or torch.get_default_dtype())


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

    Columns wrap at ±180°; a row beyond a pole is the first row inside it, half a turn away
    (half a column off the grid where W is odd, hence a column fraction for each row).

    points: (..., 3) float64 directions of any length.
    Returns: index into the flattened image, (4, ...) int64, and weight, (4, ...) float64.
    """
    x, y, z = points.unbind(-1)
    row = (math.pi / 2 - torch.atan2(y, torch.hypot(x, z))) * height / math.pi - 0.5
    column = (torch.atan2(x, z) + math.pi) * width / (2 * math.pi) - 0.5
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


class Resampling(nn.Module):
    """A fixed linear map from P source to N target pixels with K taps each.

    index: (K, N) int64 into the source; weight: (K, N).
    """

    def __init__(self, index: Tensor, weight: Tensor):
        super().__init__()
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("weight", weight.to(torch.get_default_dtype()), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (..., P), any floating type → (..., N), summed in float32 at the least."""
        images = pixels.shape[:-1]
        exporting = torch.compiler.is_exporting()  # ONNX has no bags, and any number of images
        if exporting or images.numel() == 1 or (pixels.requires_grad and torch.is_grad_enabled()):
            taps = (pixels.index_select(-1, i) * w for i, w in zip(self.index, self.weight))
            return sum(taps).to(pixels.dtype)
        # Many times faster on a CPU, but not for one image, nor backwards.
        table = pixels.reshape(-1, pixels.shape[-1]).T
        table = table.to(torch.promote_types(table.dtype, self.weight.dtype)).contiguous()
        index, weight = (taps.T.contiguous() for taps in (self.index, self.weight.to(table.dtype)))
        sums = embedding_bag(index, table, per_sample_weights=weight, mode="sum")
        return sums.T.reshape(*images, len(sums)).to(pixels.dtype)


def check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"an image needs at least one row and one column, got {height}×{width}")
