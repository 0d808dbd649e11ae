"""Cube padding: convolutions that see across the edges of the cube (Cheng et al. 2018)."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from projection.cubemap import FACE_AXES

BEFORE, AFTER = ("left", "top"), ("right", "bottom")


def _side_axes(face: int) -> dict[str, tuple[Tensor, Tensor]]:
    """For each side of a face the direction out of it and the one along it."""
    right, down, _ = FACE_AXES[face]
    return {
        "left": (-right, down),
        "right": (right, down),
        "top": (-down, right),
        "bottom": (down, right),
    }


def _strips(pad: int) -> list[tuple]:
    """The 24 strips: where in the padded faces, where from, transposed or not, flips.

    Over a side one comes onto the face whose centre lies in that side's direction, and moves
    on it away from the first face's centre; so it is entered over the side that looks
    towards the first face's centre. All of it follows from the axes, for faces of any size.
    """

    def border(side: str, along: slice) -> tuple[slice, slice]:
        depth = slice(pad) if side in BEFORE else slice(-pad, None)
        return (along, depth) if side in ("left", "right") else (depth, along)

    strips = []
    for face in range(6):
        for side, (outward, along) in _side_axes(face).items():
            neighbour = int((FACE_AXES[:, 2] @ outward).argmax())
            entered = {
                other: other_along
                for other, (other_outward, other_along) in _side_axes(neighbour).items()
                if torch.equal(other_outward, FACE_AXES[face, 2])
            }
            [(other, other_along)] = entered.items()
            vertical = side in ("left", "right")
            depth_dim, along_dim = (-1, -2) if vertical else (-2, -1)
            flips = []
            if (side in BEFORE) == (other in BEFORE):
                flips.append(depth_dim)
            if not torch.equal(along, other_along):
                flips.append(along_dim)
            target = (slice(None), face, slice(None), *border(side, slice(pad, -pad)))
            source = (slice(None), neighbour, slice(None), *border(other, slice(None)))
            strips.append((target, source, vertical != (other in ("left", "right")), flips))
    return strips


def _vertices() -> Tensor:
    """For each corner of each face the three face corners that meet at its vertex.

    Corners are numbered face by face: top left, top right, bottom left, bottom right.
    Returns: (24, 3) int64.
    """
    local = torch.tensor([[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]], dtype=torch.float64)
    points = (local @ FACE_AXES).flatten(0, 1)
    meets = (points[:, None] == points[None]).all(-1)
    return meets.nonzero()[:, 1].reshape(24, 3)


class CubePadding(nn.Module):
    """Pads each cube face with the pixels of its four neighbours.

    A pixel beyond an edge is the one found by going on over it, at the same depth; this is
    the geometric neighbour on all 24 edges, for every width. No pixel lies beyond a corner:
    there the p×p block holds the mean of the three pixels that meet at that vertex.

    forward: (B·6, C, S, S) → (B·6, C, S+2p, S+2p), memory format kept.
    Raises ValueError where the batch is not whole cubes, faces are not square or p >= S.
    """

    def __init__(self, pad: int):
        super().__init__()
        if pad < 0:
            raise ValueError(f"pad must not be negative, got {pad}")
        self.pad = pad
        self.strips = _strips(pad) if pad else []
        self.register_buffer("vertices", _vertices(), persistent=False)

    def forward(self, faces: Tensor) -> Tensor:
        if faces.dim() != 4 or faces.shape[0] % 6 or faces.shape[-1] != faces.shape[-2]:
            raise ValueError(f"expected faces (B*6, C, S, S), got {tuple(faces.shape)}")
        if self.pad >= faces.shape[-1]:
            raise ValueError(f"pad {self.pad} needs faces larger than {faces.shape[-1]} pixels")
        return _PadFaces.apply(faces, self.pad, self.strips, self.vertices) if self.pad else faces

    def extra_repr(self) -> str:
        return str(self.pad)


def _corners(faces: Tensor) -> Tensor:
    """View of the corner pixels of (B, 6, C, S, S): (B, 6, C, 2, 2)."""
    step = faces.shape[-1] - 1
    return faces[..., ::step, ::step]


def _vertex_mean(corners: Tensor, vertices: Tensor) -> Tensor:
    """Mean over each vertex of the cube, for face corners (B, 6, C, 2, 2); its own adjoint."""
    flat = corners.transpose(1, 2).flatten(2)  # (B, C, 24)
    return flat[..., vertices].mean(-1).unflatten(-1, (6, 2, 2)).transpose(1, 2)


class _PadFaces(torch.autograd.Function):
    """Copies to six centres and 24 edges; autograd's own slicing is many times slower."""

    @staticmethod
    def forward(ctx, faces: Tensor, pad: int, strips: list, vertices: Tensor) -> Tensor:
        ctx.pad, ctx.strips = pad, strips
        ctx.save_for_backward(vertices)
        batch, channels, size, _ = faces.shape
        last = faces.is_contiguous(memory_format=torch.channels_last)
        ctx.format = torch.channels_last if last else torch.contiguous_format
        shape = (batch, channels, size + 2 * pad, size + 2 * pad)
        padded = torch.empty(
            shape, dtype=faces.dtype, device=faces.device, memory_format=ctx.format
        )
        inside, cubes = faces.unflatten(0, (-1, 6)), padded.unflatten(0, (-1, 6))
        cubes[..., pad:-pad, pad:-pad] = inside
        for target, source, transpose, flips in strips:
            strip = inside[source]
            strip = strip.transpose(-1, -2) if transpose else strip
            cubes[target] = strip.flip(flips) if flips else strip
        mean = _vertex_mean(_corners(inside), vertices)
        for row, rows in enumerate((slice(pad), slice(-pad, None))):
            for column, columns in enumerate((slice(pad), slice(-pad, None))):
                cubes[..., rows, columns] = mean[..., row, column, None, None]
        return padded

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        pad, (vertices,) = ctx.pad, ctx.saved_tensors
        batch, channels, size, _ = gradient.shape
        shape = (batch, channels, size - 2 * pad, size - 2 * pad)
        result = torch.empty(
            shape, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.format
        )
        cubes, inside = gradient.unflatten(0, (-1, 6)), result.unflatten(0, (-1, 6))
        inside.copy_(cubes[..., pad:-pad, pad:-pad])
        for target, source, transpose, flips in ctx.strips:
            strip = cubes[target]
            strip = strip.flip(flips) if flips else strip
            inside[source] += strip.transpose(-1, -2) if transpose else strip
        blocks = [
            cubes[..., rows, columns].sum((-2, -1))
            for rows in (slice(pad), slice(-pad, None))
            for columns in (slice(pad), slice(-pad, None))
        ]
        blocks = torch.stack(blocks, dim=-1).unflatten(-1, (2, 2))
        inside_corners = _corners(inside)
        inside_corners += _vertex_mean(blocks, vertices)
        return result, None, None, None
