"""Cube padding: convolutions that see across the edges of the cube (Cheng et al. 2018)."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from projection.cubemap import padded_pixels

LARGE, NARROW = 128, 8  # side and channels of faces that a CPU copies faster in rows than by pixels


class CubePadding(nn.Module):
    """Pad each cube face with the pixels of its four neighbours.

    The pixel beyond an edge is the one that is found by going on over the edge at the same depth.
    It is the geometric neighbour on all 24 edges, for every width. No pixel lies beyond a corner
    of a face: its p×p block holds the mean of the three pixels that meet at that vertex.

    late: leaves out the first row and column, so that a convolution with a stride of 2 takes the
        padded pixels 1, 3, … as centres instead of 0, 2, …

    forward: (B·6, C, S, S) → (B·6, C, P, P), P = S + 2p − late, in channels_last memory format.
    Raises ValueError where the batch is not whole cubes, faces are not square or p >= S.

    >>> faces = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 2, 2)  # each holds its number
    >>> CubePadding(1)(faces)[2, 0, 1]  # a row of the front face: left, front, front, right
    tensor([3., 2., 2., 4.])
    """

    def __init__(self, pad: int, late: bool = False):
        super().__init__()
        if pad < late:
            raise ValueError(f"pad must be at least {int(late)}, got {pad}")
        self.pad, self.sides = pad, (pad - late, pad)  # added before and after each row and column

    def forward(self, faces: Tensor) -> Tensor:
        if faces.dim() != 4 or faces.shape[0] % 6 or faces.shape[-1] != faces.shape[-2]:
            raise ValueError(f"expected faces (B*6, C, S, S), got {tuple(faces.shape)}")
        if self.pad >= faces.shape[-1]:
            raise ValueError(f"pad {self.pad} needs faces larger than {faces.shape[-1]} pixels")
        if not self.pad:
            return faces
        if torch.compiler.is_compiling():
            return self.fill_corners(_gathered(faces, self.sides))
        if torch.is_grad_enabled():
            return _Pad.apply(faces, self.sides)
        return _padded(faces, self.sides)

    def fill_corners(self, padded: Tensor) -> Tensor:
        """Make the corner blocks the means again after a pointwise layer on padded faces.

        A pointwise layer, such as a 1×1 convolution with its activation, then gives the same
        before a padding and after it. Without gradients `padded` itself may be changed.

        padded: (B·6, C, P, P) → the same shape.
        """
        side, size = padded.shape[-1], padded.shape[-1] - sum(self.sides)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            border, cubes = _border(size, self.sides, padded.device), _cubes(padded)
            means = cubes[:, border.meeting].mean(2)
            return _images(cubes.index_copy(1, border.corners, means), side)
        return _with_corners(padded, size, self.sides)

    def extra_repr(self) -> str:
        return str(self.pad) + ", late" * (self.sides[0] < self.pad)


class _Border(NamedTuple):
    """Indices for faces of one size and padding, all int64.

    source: (6·P²,) the pixel among those of the six faces that each padded pixel copies.
    strips: the padded pixels beyond an edge.
    corners: (N,) the padded pixels beyond a corner.
    meeting: (N, 3) the padded pixels whose mean fills each of the corners.
    """

    source: Tensor
    strips: Tensor
    corners: Tensor
    meeting: Tensor


class _Bags(NamedTuple):
    """Weighted sums of rows: row and weight of each term, and where the terms of each sum begin.

    int32, the dtype of the rows, and int32, with the end of the last sum.
    """

    index: Tensor
    weight: Tensor
    offsets: Tensor


Sides = tuple[int, int]  # pixels that are added before and after each row and column


def _border(size: int, sides: Sides, device: torch.device) -> _Border:
    return _cached_border(size, sides, device)


# As torch.compiler.assume_constant_result does, whose first call imports a second of modules.
_border._dynamo_marked_constant = True


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # tensors made in inference mode could not be used in training
def _cached_border(size: int, sides: Sides, device: torch.device) -> _Border:
    before, after = sides
    late, end, side = after - before, before + size, before + size + after
    source = padded_pixels(size, after)[:, late:, late:]
    number = torch.arange(6 * side**2).view(6, side, side)
    outside = torch.ones(side, dtype=torch.bool)
    outside[before:end] = False
    in_corner = outside[:, None] & outside
    inner = torch.arange(side).clamp(before, end - 1)  # the nearest row inside the face
    beyond = inner + torch.where(inner == before, -1, 1)  # and the first one beyond its edge
    at = inner[:, None], inner, beyond[:, None], beyond
    meeting = [number[:, at[row], at[column]] for row, column in ((0, 1), (0, 3), (2, 1))]
    border = _Border(
        source.flatten(),
        number[:, (outside[:, None] | outside) & ~in_corner].flatten(),
        number[:, in_corner].flatten(),
        torch.stack(meeting, dim=-1)[:, in_corner].flatten(0, 1),
    )
    return _Border(*(index.to(device) for index in border))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _padding_bags(
    size: int, sides: Sides, batch: int, dtype: torch.dtype, device: torch.device, back: bool
) -> _Bags:
    """Return the bags of a padding, or those of the transposed map, its gradient."""
    border = _cached_border(size, sides, torch.device("cpu"))
    terms = border.source[:, None].repeat(1, 3)
    weight = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).repeat(len(terms), 1)
    terms[border.corners], weight[border.corners] = border.source[border.meeting], 1 / 3
    place, k = weight.nonzero(as_tuple=True)
    index, weight, sums, rows = terms[place, k], weight[place, k], len(terms), 6 * size**2
    if back:
        index, order = index.sort(stable=True)
        place, index, weight, sums, rows = index, place[order], weight[order], rows, sums
    starts = torch.searchsorted(place, torch.arange(sums))
    return _of_a_batch(_Bags(index, weight.to(dtype), starts), batch, rows, device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _corner_bags(
    size: int, sides: Sides, batch: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, _Bags]:
    """Return the rows beyond corners, and the bags of their means."""
    border = _cached_border(size, sides, torch.device("cpu"))
    index, rows = border.meeting.flatten(), len(border.source)
    thirds = torch.full((len(index),), 1 / 3, dtype=torch.float64).to(dtype)
    bags = _Bags(index, thirds, torch.arange(len(index))[::3])
    corners = border.corners + rows * torch.arange(batch)[:, None]
    return corners.flatten().to(device), _of_a_batch(bags, batch, rows, device)


def _of_a_batch(bags: _Bags, batch: int, rows: int, device: torch.device) -> _Bags:
    """Repeat the bags of one image, which has this many rows."""
    number, terms = torch.arange(batch)[:, None], len(bags.index)
    end = torch.tensor([batch * terms])
    index = (bags.index + rows * number).flatten()
    offsets = torch.cat([(bags.offsets + terms * number).flatten(), end])
    bags = _Bags(index.int(), bags.weight.repeat(batch), offsets.int())
    return _Bags(*(part.to(device) for part in bags))


def _sums(rows: Tensor, bags: _Bags) -> Tensor:
    """(N, C) → weighted sums (M, C), in one pass over memory."""
    return torch.embedding_bag(
        rows, bags.index, bags.offsets, False, 0, False, bags.weight, include_last_offset=True
    )[0]


def _rows(faces: Tensor) -> Tensor:
    """(B·6, C, S, S) → (B·6·S², C), a view where the faces are in channels_last format."""
    return faces.permute(0, 2, 3, 1).reshape(-1, faces.shape[1])


def _cubes(faces: Tensor) -> Tensor:
    """(B·6, C, S, S) → (B, 6·S², C)."""
    return _rows(faces).view(-1, 6 * faces.shape[-1] ** 2, faces.shape[1])


def _images(rows: Tensor, side: int) -> Tensor:
    """(..., C) → (B·6, C, S, S) in channels_last format."""
    return rows.view(-1, side, side, rows.shape[-1]).permute(0, 3, 1, 2)


def _padded(faces: Tensor, sides: Sides) -> Tensor:
    number, channels, size, _ = faces.shape
    side = size + sum(sides)
    if channels >= NARROW or size < LARGE or faces.device.type != "cpu":
        bags = _padding_bags(size, sides, number // 6, faces.dtype, faces.device, False)
        return _images(_sums(_rows(faces), bags), side)
    border, inside = _cached_border(size, sides, faces.device), slice(sides[0], sides[0] + size)
    padded = faces.new_empty(number, side, side, channels).permute(0, 3, 1, 2)
    padded[:, :, inside, inside] = faces
    strips = _cubes(faces).index_select(1, border.source[border.strips])
    _cubes(padded).index_copy_(1, border.strips, strips)
    return _with_corners(padded, size, sides)


def _with_corners(padded: Tensor, size: int, sides: Sides) -> Tensor:
    """Put the means into the corner blocks of padded faces, or of a copy of them."""
    corners, bags = _corner_bags(size, sides, len(padded) // 6, padded.dtype, padded.device)
    rows = _rows(padded)
    return _images(rows.index_copy_(0, corners, _sums(rows, bags)), padded.shape[-1])


def _gathered(faces: Tensor, sides: Sides) -> Tensor:
    """Pad faces in operations that any graph knows; corners do not hold means yet."""
    size = faces.shape[-1]
    source = _border(size, sides, faces.device).source
    return _images(_cubes(faces).index_select(1, source), size + sum(sides))


class _Pad(Function):
    """The padding, a linear map, or the transposed one (back), each the gradient of the other."""

    @staticmethod
    def forward(ctx, images, sides, back=False):
        ctx.sides, ctx.back = sides, back
        if not back:
            return _padded(images, sides)
        size = images.shape[-1] - sum(sides)
        bags = _padding_bags(size, sides, len(images) // 6, images.dtype, images.device, True)
        return _images(_sums(_rows(images), bags), size)

    @staticmethod
    def backward(ctx, gradient):
        return _Pad.apply(gradient, ctx.sides, not ctx.back), None, None
