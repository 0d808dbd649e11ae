"""The equirectangular grid on the sphere: pixels, angles, directions, areas, bilinear sampling.

Angles are in radians. The first four functions take numbers, arrays and tensors alike.
"""

import math
from collections.abc import Callable

import cv2
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import embedding_bag

OPENCV = int(cv2.__version__.partition(".")[0])
SHORT = (torch.float32, torch.bfloat16, torch.float16)


def latitude_of(row, height: int):
    """Return the latitude at rows of an image, which may lie between pixel centres."""
    return math.pi / 2 - (row + 0.5) * math.pi / height


def longitude_of(column, width: int):
    """Return the longitude at columns of an image, in (−π, π) inside it."""
    return (column + 0.5) * 2 * math.pi / width - math.pi


def row_of(latitude, height: int):
    """Return the row at latitudes, with its fraction: −0.5 is the north pole."""
    return (math.pi / 2 - latitude) * height / math.pi - 0.5


def column_of(longitude, width: int):
    """Return the column at longitudes, with its fraction: −0.5 is −π."""
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
    """Return the axes of a camera: (3, 3) float64, columns right, up and ahead.

    It rotates directions from the camera's axes to the world's. The camera is turned to the right
    by `yaw`, then up by `pitch`, so that it looks at this longitude and latitude, and then
    clockwise about the line of sight by `roll`, so that its upper edge leans to its right.
    """
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

    Columns wrap at ±180°; a row beyond a pole is the first row inside it, half a turn away
    (half a column off the grid where W is odd, hence a column fraction for each row).

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


class Resampling(nn.Module):
    """A fixed linear map from the pixels of an image to N places, with four taps for each.

    index: (4, *places) integers into the flattened image; weight: (4, *places). They are kept with
    32 bits, which are half the memory to read, unless another dtype of weights is asked for.
    size: shape of the image, its width last: (H, W), or (6, S, S) for faces.
    forward: (..., *size) → (..., *places), for which the channels come before `size`: summed in
    float32 at the least, rounded for integers, in channels_last memory format. Gradients are those
    of the transposed map, to any order.

    Where the taps are a square of neighbours, as nearly everywhere, OpenCV sums them on a CPU. It
    rounds places to float32, 2⁻¹⁵ of a pixel at most before row and column 1024, and for uint8 to
    1/32 of a pixel. Before version 5 it does that for floats too, where it is not used then.
    """

    def __init__(self, index: Tensor, weight: Tensor, size: tuple[int, ...], dtype=None):
        super().__init__()
        self.size, self.places = tuple(size), tuple(index.shape[1:])
        weight = weight.to(dtype or torch.get_default_dtype())
        self.register_buffer("index", index.flatten(1).int(), persistent=False)
        self.register_buffer("weight", weight.flatten(1), persistent=False)
        sides = (
            s for shape in (self.size, self.places) for s in (math.prod(shape[:-1]), shape[-1])
        )
        self.short = max(sides) < 2**15  # so that OpenCV takes images of these shapes
        self._laid_out = {}

    def _apply(self, *args, **kwargs):
        self._laid_out = {}  # for another device
        return super()._apply(*args, **kwargs)

    def forward(self, image: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # ONNX has no bags, and any number of images
            pixels = image.flatten(-len(self.size))
            index = self.index.long() if image.requires_grad else self.index  # faster backwards
            taps = (pixels.index_select(-1, i) * w for i, w in zip(index, self.weight))
            return _as(sum(taps), image.dtype).unflatten(-1, self.places)
        lead = image.shape[: image.dim() - len(self.size)]
        images = image.reshape(math.prod(lead[:-1]), *(lead[-1:] or (1,)), *self.size)
        if torch.is_grad_enabled() and images.requires_grad:
            result = _Linear.apply(images, self._to_places, self._to_pixels)
        else:
            result = self._to_places(images)
        return result.reshape(*lead, *self.places)

    def _to_places(self, images: Tensor) -> Tensor:
        """(B, C, *size) → (B, C, *places)."""
        kind = torch.uint8 if images.dtype == torch.uint8 else torch.float32
        exact = kind == torch.uint8 or (OPENCV >= 5 and images.dtype in SHORT)
        if not (exact and self.short and images.device.type == "cpu"):
            return _sum_bags(images, self._once(self._bags), self.places)
        place, others, taps, weight = self._once(self._squares)
        maps = self._once(self._rounded_squares) if kind == torch.uint8 else (place, None)
        channels = images.shape[1] if images.shape[1] in (3, 4) else 1  # OpenCV's exact ways
        planes = images.reshape(-1, channels, *self.size).movedim(1, -1).to(kind)
        result = torch.empty(len(planes), *place.shape[:2], channels, dtype=kind)
        for plane, target in zip(planes, result):
            # A copy reads floats in order, which fetches them faster than cv2.remap would.
            copy = plane.contiguous if kind == torch.uint8 else plane.clone
            source, to = copy(memory_format=torch.contiguous_format), target.numpy()
            source = source.view(-1, self.size[-1], channels)
            cv2.remap(source.numpy(), *maps, cv2.INTER_LINEAR, to, cv2.BORDER_REPLICATE)
            if len(others):
                sums = source.view(-1, channels).index_select(0, taps).view(4, -1, channels)
                sums = _as((sums * weight).sum(0), kind)
                target.view(-1, channels).index_copy_(0, others, sums)
            del source  # so that the next image finds its memory, still in the cache
        result = result.flatten(1, 2).mT.reshape(*images.shape[:2], *self.places)
        return result.to(images.dtype)

    def _to_pixels(self, images: Tensor) -> Tensor:
        """(B, C, *places) → (B, C, *size), the transposed map."""
        return _sum_bags(images, self._once(self._transposed_bags), self.size)

    def _once(self, lay_out: Callable):
        if lay_out.__name__ not in self._laid_out:
            with torch.inference_mode(False):  # tensors made there could not be used in training
                self._laid_out[lay_out.__name__] = lay_out()
        return self._laid_out[lay_out.__name__]

    def _squares(self):
        """Return where cv2.remap finds the places, and the taps of those that it can't sum.

        Returns: place (rows, columns, 2) float32; of the n others the number among the places
        (n,), the pixels (4·n,) and the weights (4, n, 1).
        """
        width, first = self.size[-1], self.index[0]
        beside = torch.tensor([0, 1, width, width + 1], dtype=torch.int32)[:, None]
        others = (self.index - first != beside).any(0) | (first % width == width - 1)
        x = first % width + self.weight[1::2].sum(0)
        y = first // width + self.weight[2:].sum(0)
        place = torch.stack([x, y], dim=-1).masked_fill(others[:, None], 0).float()
        others = others.nonzero()[:, 0]
        taps = self.index[:, others].flatten(), self.weight[:, others, None]
        return place.view(-1, self.places[-1], 2).numpy(), others, *taps

    def _rounded_squares(self):
        return cv2.convertMaps(self._once(self._squares)[0], None, cv2.CV_16SC2)

    def _bags(self):
        index, weight = (a.T.flatten() for a in (self.index, self.weight))
        offsets = torch.arange(0, len(index) + 1, 4, dtype=torch.int32, device=index.device)
        return index, weight, offsets

    def _transposed_bags(self):
        index, order = self.index.flatten().sort(stable=True)
        pixels = torch.arange(math.prod(self.size) + 1, dtype=torch.int32, device=index.device)
        offsets = torch.searchsorted(index, pixels, out_int32=True)
        return (order % self.index.shape[1]).int(), self.weight.flatten()[order], offsets


class _Linear(Function):
    """A linear map, given as a function, and its transposed map, which is its gradient."""

    @staticmethod
    def forward(ctx, images, there, back):
        ctx.there, ctx.back = there, back
        return there(images)

    @staticmethod
    def backward(ctx, gradient):
        return _Linear.apply(gradient, ctx.back, ctx.there), None, None


def _sum_bags(images: Tensor, bags: tuple[Tensor, Tensor, Tensor], shape: tuple) -> Tensor:
    """Return weighted sums of pixels: (B, C, ...) → (B, C, *shape).

    bags: index and weight of all taps, and where those of each sum begin, with the end after them.
    """
    if not images.numel():
        return images.new_zeros(*images.shape[:2], *shape)
    index, weight, offsets = bags
    table = images.movedim((0, 1), (-2, -1)).to(torch.promote_types(images.dtype, torch.float32))
    table = table.reshape(math.prod(images.shape[2:]), math.prod(images.shape[:2])).contiguous()
    weight = weight.to(table.dtype)
    sums = embedding_bag(
        index, table, offsets, mode="sum", per_sample_weights=weight, include_last_offset=True
    )
    sums = sums.view(*shape, *images.shape[:2]).movedim(-2, 0).contiguous().movedim(-1, 1)
    return _as(sums, images.dtype)


def _as(sums: Tensor, dtype: torch.dtype) -> Tensor:
    return sums.to(dtype) if dtype.is_floating_point else sums.round().to(dtype)


def check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"an image needs at least one row and one column, got {height}×{width}")
