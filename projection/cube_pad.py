"""Cube padding: convolutions that see across the edges of the cube (Cheng et al. 2018)."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from projection.cubemap import padded_pixels

LARGE = 128  # sides of faces that are copied faster in rows than pixel by pixel


class CubePadding(nn.Module):
    """Pad each cube face with the pixels of its four neighbours.

    The pixel beyond an edge is the one that is found by going on over the edge at the same depth.
    It is the geometric neighbour on all 24 edges, for every width. No pixel lies beyond a corner
    of a face: its p×p block holds the mean of the three pixels that meet at that vertex.

    forward: (B·6, C, S, S) → (B·6, C, S+2p, S+2p), in channels_last memory format.
    Raises ValueError where the batch is not whole cubes, faces are not square or p >= S.

    >>> faces = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 2, 2)  # each holds its number
    >>> CubePadding(1)(faces)[2, 0, 1]  # a row of the front face: left, front, front, right
    tensor([3., 2., 2., 4.])
    """

    def __init__(self, pad: int):
        super().__init__()
        if pad < 0:
            raise ValueError(f"pad must not be negative, got {pad}")
        self.pad = pad

    def forward(self, faces: Tensor) -> Tensor:
        if faces.dim() != 4 or faces.shape[0] % 6 or faces.shape[-1] != faces.shape[-2]:
            raise ValueError(f"expected faces (B*6, C, S, S), got {tuple(faces.shape)}")
        if self.pad >= faces.shape[-1]:
            raise ValueError(f"pad {self.pad} needs faces larger than {faces.shape[-1]} pixels")
        if not self.pad:
            return faces
        border = _border(faces.shape[-1], self.pad, faces.device)
        return _Pad.apply(faces, *border) if torch.is_grad_enabled() else _padded(faces, border)

    def fill_corners(self, padded: Tensor) -> Tensor:
        """Make the corner blocks the means again after a pointwise layer on padded faces.

        A pointwise layer, such as a 1×1 convolution with its activation, then gives the same
        before a padding and after it. Without gradients `padded` itself may be changed.

        padded: (B·6, C, S+2p, S+2p) → the same shape.
        """
        size = padded.shape[-1]
        border = _border(size - 2 * self.pad, self.pad, padded.device)
        rows = _rows(padded)
        write = rows.index_copy if torch.is_grad_enabled() else rows.index_copy_
        return _images(write(1, border.corners, _means(rows, border.meeting)), size)

    def extra_repr(self) -> str:
        return str(self.pad)


class _Border(NamedTuple):
    """Indices for faces of one size and padding, all int64.

    source: (6·P²,) the pixel among those of the six faces that each padded pixel copies.
    strips: (24·p·S,) the padded pixels beyond an edge.
    beyond: (24·p·S,) the pixels that these copy.
    corners: (24·p²,) the padded pixels beyond a corner.
    meeting: (3, 24·p²) the padded pixels whose mean fills each of the corners.
    """

    source: Tensor
    strips: Tensor
    beyond: Tensor
    corners: Tensor
    meeting: Tensor


@torch.compiler.assume_constant_result
def _border(size: int, pad: int, device: torch.device) -> _Border:
    return _cached_border(size, pad, device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # tensors made in inference mode could not be used in training
def _cached_border(size: int, pad: int, device: torch.device) -> _Border:
    source, side = padded_pixels(size, pad), size + 2 * pad
    number = torch.arange(6 * side**2).view(6, side, side)
    outside = torch.ones(side, dtype=torch.bool)
    outside[pad:-pad] = False
    in_corner = outside[:, None] & outside
    inner = torch.arange(side).clamp(pad, side - pad - 1)  # the nearest row inside the face
    beyond = inner + torch.where(inner == pad, -1, 1)  # and the first one beyond its edge
    at = inner[:, None], inner, beyond[:, None], beyond
    meeting = [number[:, at[row], at[column]] for row, column in ((0, 1), (0, 3), (2, 1))]
    strips = number[:, (outside[:, None] | outside) & ~in_corner].flatten()
    border = _Border(
        source.flatten(),
        strips,
        source.flatten()[strips],
        number[:, in_corner].flatten(),
        torch.stack(meeting)[..., in_corner].flatten(1),
    )
    return _Border(*(index.to(device) for index in border))


def _rows(faces: Tensor) -> Tensor:
    """(B·6, C, S, S) → (B, 6·S², C), a view where the faces are in channels_last format."""
    return faces.permute(0, 2, 3, 1).reshape(-1, 6 * faces.shape[-1] ** 2, faces.shape[1])


def _means(rows: Tensor, meeting: Tensor) -> Tensor:
    """(B, N, C) → means of three rows each, (B, 24·p², C)."""
    one, two, three = rows.index_select(1, meeting.flatten()).chunk(3, dim=1)
    return (one + two).add_(three).div_(3)


def _images(rows: Tensor, size: int) -> Tensor:
    """(B, 6·S², C) → (B·6, C, S, S) in channels_last format."""
    return rows.view(-1, size, size, rows.shape[-1]).permute(0, 3, 1, 2)


def _padded(faces: Tensor, border: _Border) -> Tensor:
    side, size = round((len(border.source) / 6) ** 0.5), faces.shape[-1]
    if size < LARGE or torch.compiler.is_exporting():
        padded = _rows(faces).index_select(1, border.source)
    else:
        pad = (side - size) // 2
        padded = faces.new_empty(len(faces), side, side, faces.shape[1])
        padded[:, pad:-pad, pad:-pad] = faces.permute(0, 2, 3, 1)
        padded = padded.view(-1, 6 * side**2, faces.shape[1])
        padded.index_copy_(1, border.strips, _rows(faces).index_select(1, border.beyond))
    padded.index_copy_(1, border.corners, _means(padded, border.meeting))
    return _images(padded, side)


class _Pad(Function):
    """One gather. Its gradient adds up the border alone: a scatter of all pixels is slow."""

    @staticmethod
    def forward(ctx, faces, *border):
        ctx.save_for_backward(*border)
        ctx.size = faces.shape[-1]
        return _padded(faces, _Border(*border))

    @staticmethod
    def backward(ctx, gradient):
        source, strips, beyond, corners, meeting = ctx.saved_tensors
        size, pad = ctx.size, (gradient.shape[-1] - ctx.size) // 2
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        padded = _rows(gradient)
        faces = _rows(gradient[..., pad:-pad, pad:-pad])  # a copy, as its rows are not adjacent
        faces.index_add_(1, beyond, padded.index_select(1, strips))
        thirds = (padded.index_select(1, corners) / 3).repeat(1, 3, 1)
        faces.index_add_(1, source[meeting].flatten(), thirds)
        return _images(faces, size), None, None, None, None, None
