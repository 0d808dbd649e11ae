"""The nine taps of a kernel on the sphere: their positions and their sampling.

The taps are those of Coors et al., "SphereNet", ECCV 2018: a 3×3 grid, one pixel of the equator
apart, on the plane that touches the sphere at the output pixel, projected onto the sphere. The
image is sampled there bilinearly, in one of two ways:
    reference  exactly as in the authors' code of SST-Sal: float32 grids, everything half a pixel
               up and to the left, zeros beyond the image's edges, and taps beyond a pole on the
               wrong side of it.
    seamless   longitude wraps, and the image continues across the poles, so that rolling the image
               rolls the result. With `half_pixel` the shift of half a pixel is kept, which weights
               trained by the authors' code need.

Images are lists of pixels, (H·W, B, C), so that a tap moves B·C adjacent numbers. CPUs process
blocks of BLOCK_PIXELS pixels whose samples fit into the cache, in two thirds of the time.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from common.options import SAMPLINGS
from projection.resampling import Resampling, SumBags
from projection.sphere import direction_of, equirectangular_taps, longitudes

BLOCK_PIXELS = 1920
T = TypeVar("T")


def tap_angles(rows: Tensor, height: int, width: int, over_pole: bool) -> tuple[Tensor, Tensor]:
    """Return the angles of the nine taps of kernels centred on rows (R,), by the authors' formula.

    over_pole: whether to place a tap beyond a pole on its other side; the one-argument arctangent
    of the authors' code leaves it on this side.
    Returns: latitude of each tap and its longitude minus the centre's in radians, (R, 3, 3) each,
    indexed by kernel row (north first) and kernel column (west first).
    """
    step_y, step_x = math.pi / height, 2 * math.pi / width
    latitude = (math.pi / 2 - (rows + 0.5) * step_y)[:, None, None]
    sign = torch.tensor([-1, 0, 1], dtype=torch.float64)
    x = (math.tan(step_x) * sign).expand(3, 3)
    y = -math.tan(step_y) * sign[:, None] / math.cos(step_x) ** sign.abs()
    rho = torch.hypot(x, y)
    v = rho.atan()
    rho = torch.where(rho == 0, 1, rho)  # only a divisor; the numerators at the centre are 0
    sine = v.cos() * latitude.sin() + y * v.sin() * latitude.cos() / rho
    east = x * v.sin()
    forward = rho * latitude.cos() * v.cos() - y * latitude.sin() * v.sin()
    turn = torch.atan2(east.expand_as(forward), forward) if over_pole else (east / forward).atan()
    return torch.where((x == 0) & (y == 0), latitude, sine.asin()), turn


def reference_grid(height: int, width: int, stride: int = 1) -> Tensor:
    """Return the nine taps of each output pixel in the coordinates of F.grid_sample.

    The authors' grid scales pixel indices by the size alone, while align_corners=False expects
    pixel centres; this causes the shift by half a pixel.
    Returns: (H/stride, W/stride, 3, 3, 2) float32.
    """
    rows = torch.arange(0, height, stride, dtype=torch.float64)
    latitude, east = tap_angles(rows, height, width, over_pole=False)
    around = longitudes(width)[::stride, None, None] + east[:, None] + math.pi
    # With the width added first, a tap on the first column's centre is 0 and not width − ε.
    tap_column = (around * width / (2 * math.pi) - 0.5 + width) % width
    tap_row = ((math.pi / 2 - latitude) * height / math.pi - 0.5)[:, None].expand_as(around)
    return torch.stack([2 * tap_column / width - 1, 2 * tap_row / height - 1], -1).float()


def reference_taps(height: int, width: int, stride: int) -> tuple[Tensor, Tensor]:
    """Return the taps of `reference_grid` as indices of four pixels and their weights, (4, N) each.

    Sums of pixels with these weights equal F.grid_sample; outside the image the weight is 0.
    """
    x, y = reference_grid(height, width, stride).view(-1, 2).unbind(-1)
    # float64 reproduces the single rounding of grid_sample's fused multiply-add.
    column = ((x + 1).double() * (width / 2) - 0.5).float()
    row = ((y + 1).double() * (height / 2) - 0.5).float()
    north, west = row.floor(), column.floor()
    index, weight = [], []
    for r, row_weight in ((north, north + 1 - row), (north + 1, row - north)):
        for c, column_weight in ((west, west + 1 - column), (west + 1, column - west)):
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            index.append((r * width + c).where(inside, 0).long())
            weight.append((row_weight * column_weight).where(inside, 0))
    return torch.stack(index), torch.stack(weight)


def seamless_taps(height: int, width: int, stride: int, half_pixel: bool) -> tuple[Tensor, Tensor]:
    """Return seamless taps in this form, centred on stride×stride pixels unless `half_pixel`."""
    shift, centre = (0.5, 0.0) if half_pixel else (0.0, (stride - 1) / 2)
    rows = torch.arange(0, height, stride, dtype=torch.float64) + centre
    latitude, east = tap_angles(rows, height, width, over_pole=True)
    latitude = latitude[:, None] + shift * math.pi / height
    west = (shift - centre) * 2 * math.pi / width
    longitude = longitudes(width)[::stride, None, None] + east[:, None] - west
    points = direction_of(longitude, latitude)
    return equirectangular_taps(points.view(-1, 3), height, width)


class SphereTaps(Resampling):
    """Sample the nine taps around every output pixel of an H×W image; also the adjoint map.

    stride: step between output pixels, a divisor of H and W. sampling, half_pixel: see above.
    Raises ValueError for another sampling.
    """

    def __init__(self, height, width, stride=1, sampling="seamless", half_pixel=False):
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
        if sampling == "reference":
            index, weight = reference_taps(height, width, stride)
        else:
            index, weight = seamless_taps(height, width, stride, half_pixel)
        super().__init__(index, weight, (height * width,))
        self.out_size = (height // stride, width // stride)

    def map_blocks(self, work: Callable[[slice], T], x: Tensor) -> list[T]:
        """Return work(block) for all blocks of output pixels (one on a GPU), without gradients.

        On a CPU, each of torch's threads takes whole blocks, which are too small to be divided: on
        two cores this takes three quarters of the time.
        """
        pixels, number = math.prod(self.out_size), torch.get_num_threads()
        if not x.is_cpu or torch.compiler.is_compiling():
            return [work(slice(0, pixels))]
        step = max(1, BLOCK_PIXELS // x.shape[1])
        blocks = [slice(start, start + step) for start in range(0, pixels, step)]
        with ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            results = list(pool.map(torch.no_grad()(work), blocks))
        torch.set_num_threads(number)  # the pool has changed it for threads that start later
        return results

    def read(self, x: Tensor, block: slice) -> Tensor:
        """Sample the taps of n output pixels, without a gradient: (H·W, B, C) → (n, B, 9·C)."""
        if torch.compiler.is_compiling():  # with operations that ONNX has
            samples = self(x.movedim(0, -1)).movedim(-1, 0)
        else:
            corners = slice(36 * block.start, 36 * block.stop)
            rows, weight = (a[corners].view(-1, 4) for a in (self.bags.rows, self.bags.weight))
            samples = embedding_bag(rows, x.flatten(1), mode="sum", per_sample_weights=weight)
        return samples.view(-1, 9, *x.shape[1:]).transpose(1, 2).flatten(2)

    def read_all(self, x: Tensor) -> Tensor:
        """Sample all taps with a gradient: (H·W, B, C) → (N, 9, B, C)."""
        return SumBags.apply(x.flatten(1), self.bags, self.back).view(-1, 9, *x.shape[1:])

    def adjoint(self, samples: Tensor) -> Tensor:
        """Return the gradient of images from that of all taps: (N, 9, B, C) → (H·W, B, C)."""
        return self.back.sums(samples.flatten(2).flatten(0, 1)).view(-1, *samples.shape[2:])
