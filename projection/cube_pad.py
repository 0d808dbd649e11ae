"""Cube padding: convolutions that see across the edges of the cube (Cheng et al. 2018)."""

from functools import lru_cache

import torch
from torch import Tensor, nn

from projection.cubemap import FACE_AXES, padded_pixels


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

    def forward(self, faces: Tensor) -> Tensor:
        if faces.dim() != 4 or faces.shape[0] % 6 or faces.shape[-1] != faces.shape[-2]:
            raise ValueError(f"expected faces (B*6, C, S, S), got {tuple(faces.shape)}")
        if self.pad >= faces.shape[-1]:
            raise ValueError(f"pad {self.pad} needs faces larger than {faces.shape[-1]} pixels")
        return _pad_faces(faces, self.pad) if self.pad else faces

    def extra_repr(self) -> str:
        return str(self.pad)


@torch.library.custom_op("saliency360::pad_faces", mutates_args=())
def _pad_faces(faces: Tensor, pad: int) -> Tensor:
    """Copies to six centres and 24 edges; autograd's own slicing is many times slower.

    An operator of its own, so that torch.compile takes it as one and goes on behind it.
    """
    padded = _like(faces, faces.shape[-1] + 2 * pad)
    inside, outside = _cubes(faces), _cubes(padded)
    outside[..., pad:-pad, pad:-pad, :] = inside
    source, _, vertices = _borders(faces.shape[-1], pad, faces.device)
    for strip, copy in zip(_strips(outside, pad, pad), _gather(inside, source), strict=True):
        strip.copy_(copy.reshape(strip.shape))
    mean = _vertex_mean(_corners(inside), vertices)
    for i, rows in enumerate((slice(pad), slice(-pad, None))):
        for j, columns in enumerate((slice(pad), slice(-pad, None))):
            outside[:, :, rows, columns] = mean[:, :, i, j, None, None]
    return padded


@torch.library.custom_op("saliency360::unpad_faces", mutates_args=())
def _unpad_faces(gradient: Tensor, pad: int) -> Tensor:
    """The gradient of what was padded.

    Every border pixel of a face lies in the padding of each neighbour that it is next to
    just once, so the gradient is gathered in the same way, and added instead of copied.
    """
    result = _like(gradient, gradient.shape[-1] - 2 * pad)
    inside, outside = _cubes(result), _cubes(gradient)
    inside.copy_(outside[..., pad:-pad, pad:-pad, :])
    _, target, vertices = _borders(result.shape[-1], pad, gradient.device)
    for strip, copy in zip(_strips(inside, pad, 0), _gather(outside, target), strict=True):
        strip.add_(copy.reshape(strip.shape))
    blocks = [
        outside[:, :, rows, columns].sum((2, 3))
        for rows in (slice(pad), slice(-pad, None))
        for columns in (slice(pad), slice(-pad, None))
    ]
    blocks = torch.stack(blocks, dim=2).unflatten(2, (2, 2))
    _corners(inside).add_(_vertex_mean(blocks, vertices))
    return result


@_pad_faces.register_fake
def _(faces: Tensor, pad: int) -> Tensor:
    return _like(faces, faces.shape[-1] + 2 * pad)


@_unpad_faces.register_fake
def _(gradient: Tensor, pad: int) -> Tensor:
    return _like(gradient, gradient.shape[-1] - 2 * pad)


def _keep_pad(ctx, inputs, output) -> None:
    ctx.pad = inputs[1]


def _backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
    return _unpad_faces(gradient, ctx.pad), None


_pad_faces.register_autograd(_backward, setup_context=_keep_pad)


def _like(faces: Tensor, size: int) -> Tensor:
    """Empty faces of another size in the same memory format."""
    last = faces.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        (*faces.shape[:2], size, size),
        dtype=faces.dtype,
        device=faces.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )


def _cubes(faces: Tensor) -> Tensor:
    """View of (B·6, C, S, S) as (B, 6, S, S, C)."""
    return faces.unflatten(0, (-1, 6)).permute(0, 1, 3, 4, 2)


def _strips(cubes: Tensor, pad: int, margin: int) -> tuple[Tensor, ...]:
    """Views of the outermost p rows and columns, without `margin` pixels at their ends.

    Returns: top, bottom (B, 6, p, S, C), left, right (B, 6, S, p, C).
    """
    inner = slice(margin, -margin or None)
    rows, columns = cubes[:, :, :, inner], cubes[:, :, inner]
    return rows[:, :, :pad], rows[:, :, -pad:], columns[..., :pad, :], columns[..., -pad:, :]


def _gather(cubes: Tensor, index: Tensor) -> Tensor:
    """Pixels of (B, 6, S, S, C) in four parts of equal length: (4, B, N, C)."""
    pixels = cubes.flatten(1, 3).index_select(1, index)
    return pixels.unflatten(1, (4, -1)).transpose(0, 1)


def _corners(cubes: Tensor) -> Tensor:
    """View of the corner pixels of (B, 6, S, S, C): (B, 6, 2, 2, C)."""
    step = cubes.shape[2] - 1
    return cubes[:, :, ::step, ::step]


def _vertex_mean(corners: Tensor, vertices: Tensor) -> Tensor:
    """Mean over each vertex of the cube, for face corners (B, 6, 2, 2, C); its own adjoint."""
    met = corners.flatten(1, 3).index_select(1, vertices).unflatten(1, (24, 3))
    return met.mean(2).unflatten(1, (6, 2, 2))


@lru_cache(maxsize=64)
def _borders(size: int, pad: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where the strips of all faces come from, once for each size.

    Returns int64:
        source (4·6·p·S,): of the pixels in the padding, among those of the faces; in the
            order of `_strips`, then of faces
        target (4·6·p·S,): of the faces' outermost pixels, among those of the padded faces
        vertices (24·3,): the corners that meet at the vertex of each face corner
    """
    padded = size + 2 * pad
    source_of = padded_pixels(size, pad)[None, ..., None]
    inside = torch.arange(6 * size**2).reshape(1, 6, size, size, 1)
    outside = torch.arange(6 * padded**2).reshape(1, 6, padded, padded, 1)

    def strips(cubes: Tensor, margin: int) -> Tensor:
        """The 24 strips, side by side and face by face: (24, p·S)."""
        return torch.cat([s.reshape(6, -1) for s in _strips(cubes, pad, margin)])

    source, place, border = strips(source_of, pad), strips(outside, pad), strips(inside, 0)
    order = source.argsort(1)
    # Each border strip is the source of the one padding strip that holds the same pixels.
    wanted, ranks = border.sort(1)
    holder = (source.gather(1, order)[None] == wanted[:, None]).all(-1).long().argmax(1)
    target = torch.empty_like(place).scatter_(1, ranks, place.gather(1, order)[holder])

    local = torch.tensor([[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]], dtype=torch.float64)
    points = (local @ FACE_AXES).flatten(0, 1)
    vertices = (points[:, None] == points[None]).all(-1).nonzero()[:, 1]
    return source.flatten().to(device), target.flatten().to(device), vertices.to(device)
