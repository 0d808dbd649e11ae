"""Equirectangular images to cube faces and back."""

from enum import IntEnum

import torch
from torch import Tensor, nn

from projection.resampling import Resampling
from projection.sphere import check_size, directions, equirectangular_taps


class Face(IntEnum):
    """The order of the faces in a batch, as in AVS360 (Chao et al. 2020)."""

    BACK = 0
    BOTTOM = 1
    FRONT = 2
    LEFT = 3
    RIGHT = 4
    TOP = 5


# For each face the directions of u (right), v (down) and of the face's centre, as (x, y, z).
FACE_AXES = torch.tensor(
    [
        [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
        [[1, 0, 0], [0, 0, -1], [0, -1, 0]],
        [[1, 0, 0], [0, -1, 0], [0, 0, 1]],
        [[0, 0, 1], [0, -1, 0], [-1, 0, 0]],
        [[0, 0, -1], [0, -1, 0], [1, 0, 0]],
        [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
    ],
    dtype=torch.float64,
)


def face_directions(face_size: int, pad: int = 0) -> Tensor:
    """Return the points of the cube [−1, 1]³ at all pixel centres: (6, S+2p, S+2p, 3) float64.

    Padding is folded over the cube's edges: u = ±(1 + d) is at u = ±1 and d below the face.
    """
    centres = torch.arange(-pad, face_size + pad, dtype=torch.float64)
    centres = (centres + 0.5) * 2 / face_size - 1
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    inside_u, inside_v = u.clamp(-1, 1), v.clamp(-1, 1)
    depth = 1 - (u - inside_u).abs() - (v - inside_v).abs()
    return torch.stack([inside_u, inside_v, depth], dim=-1) @ FACE_AXES[:, None]


def locate(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the face that each direction (..., 3) hits, and u and v there, (...) each."""
    along = FACE_AXES.flatten(0, 1) @ points.reshape(-1, 3).mT
    u, v, depth = along.unflatten(0, (6, 3)).unbind(1)  # each (6, N)
    face = depth.argmax(0, keepdim=True)
    depth = depth.gather(0, face)
    coordinates = face, *(a.gather(0, face) / depth for a in (u, v))
    return tuple(values.view(points.shape[:-1]) for values in coordinates)


class Equi2Cube(nn.Module):
    """Convert equirectangular images to cube faces by bilinear interpolation on the sphere.

    forward: (B, C, H, W) → (B·6, C, S, S), floats or uint8 (rounded). Wraps at ±180° and across the
    poles. Raises ValueError for an image that is not H×W.

    >>> from projection import directions
    >>> height = directions(8, 16)[None, ..., 1].unsqueeze(1)  # y of every pixel: up is 1
    >>> Equi2Cube(8, 16, 2)(height).mean((1, 2, 3))[[Face.TOP, Face.BOTTOM]].sign()
    tensor([ 1., -1.])
    """

    def __init__(self, height: int, width: int, face_size: int):
        super().__init__()
        check_size(height, width)
        check_size(face_size, face_size)
        self.height, self.width, self.face_size = height, width, face_size
        taps = equirectangular_taps(face_directions(face_size), height, width)
        self.sample = Resampling(*taps, (height, width))

    def forward(self, image: Tensor) -> Tensor:
        if image.dim() != 4 or image.shape[-2:] != (self.height, self.width):
            expected = f"(B, C, {self.height}, {self.width})"
            raise ValueError(f"expected images {expected}, got {tuple(image.shape)}")
        return self.sample(image).transpose(1, 2).flatten(0, 1)


class Cube2Equi(nn.Module):
    """Convert cube faces to equirectangular images, interpolating across the faces' edges.

    forward: (B·6, C, S, S) → (B, C, H, W), floats or uint8. Raises ValueError for other faces.

    >>> faces = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 4)  # each holds its number
    >>> Cube2Equi(4, 8, 16)(faces)[0, 0, 4, [0, 4, 8, 12]]  # back, left, front, right
    tensor([0., 3., 2., 4.])
    """

    def __init__(self, face_size: int, height: int, width: int):
        super().__init__()
        check_size(face_size, face_size)
        self.height, self.width, self.face_size = height, width, face_size
        taps = cube_taps(directions(height, width, torch.float64).flatten(0, 1), face_size)
        index, weight = (a.unflatten(1, (height, width)) for a in taps)
        self.sample = Resampling(index, weight, (6, face_size, face_size))

    def forward(self, faces: Tensor) -> Tensor:
        size = self.face_size
        if faces.dim() != 4 or faces.shape[0] % 6 or faces.shape[-2:] != (size, size):
            raise ValueError(f"expected faces (B*6, C, {size}, {size}), got {tuple(faces.shape)}")
        return self.sample(faces.unflatten(0, (-1, 6)).transpose(1, 2))


def cube_taps(points: Tensor, face_size: int) -> tuple[Tensor, Tensor]:
    """Return linear interpolation at directions (N, 3) as four taps on the pixels of six faces.

    The pixel centres of all faces are the vertices of a cube with bevelled edges. The direction is
    projected onto it from the centre and hits a square of four pixels inside a face, a trapezoid
    of two pixels of each face on a bevel, or a triangle of three pixels at a corner of the cube. So
    the result is continuous everywhere.

    Returns: index into six flattened faces and weight, (4, N) each.
    """
    face, u, v = locate(points)
    last = 1 - 1 / face_size  # coordinate of a face's outermost pixel centres
    bevel = 1 - last

    def across(a: Tensor) -> Tensor:
        """Return the position on the bevel beyond `last`: 0 at this face, 1 at the next one."""
        return ((a.abs() - last) / (bevel * (1 + a.abs()))).clamp(min=0)

    over_u, over_v = across(u), across(v)
    along_u, along_v = u.abs() * (1 - over_v * bevel), v.abs() * (1 - over_u * bevel)
    corner = (along_u > last) & (along_v > last)

    def cells(a: Tensor, along: Tensor, over: Tensor) -> tuple[Tensor, Tensor]:
        """Return padded rows or columns (0 and S+1: neighbours), and fractions towards the next."""
        pixel = (a.sign() * along + 1) * face_size / 2 + 0.5
        on_bevel = along > last
        first = torch.where(a > 0, face_size, 0)
        fraction = torch.where(a > 0, over, 1 - over)
        low = torch.where(on_bevel, first, pixel.floor().clamp(1, max(face_size - 1, 1)))
        return low.long(), torch.where(on_bevel, fraction, pixel - low)

    column, x = cells(u, along_u, over_u)
    row, y = cells(v, along_v, over_v)
    weight = torch.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x])

    # At a corner: weights of this face's pixel and of those beyond u and beyond v.
    scale = (1 + 2 * last) / (1 + u.abs() + v.abs())
    own, next_u, next_v = (scale * a / bevel - last / bevel for a in (1, u.abs(), v.abs()))
    triangle = torch.zeros_like(weight)
    right, lower = (u > 0).long(), (v > 0).long()
    for beyond_v, beyond_u, w in ((0, 0, own), (0, 1, next_u), (1, 0, next_v)):
        tap_row, tap_column = 1 - lower ^ beyond_v, 1 - right ^ beyond_u
        triangle.scatter_(0, (2 * tap_row + tap_column)[None], w[None])
    weight = torch.where(corner, triangle, weight)

    pixels = padded_pixels(face_size)
    index = [pixels[face, row + i, column + j] for i in (0, 1) for j in (0, 1)]
    return torch.stack(index), weight


def padded_pixels(face_size: int, pad: int = 1) -> Tensor:
    """Return each padded pixel's index into six flattened faces: (6, S+2p, S+2p) int64."""
    face, u, v = locate(face_directions(face_size, pad))
    column, row = (((a + 1) * face_size / 2).long().clamp(0, face_size - 1) for a in (u, v))
    return (face * face_size + row) * face_size + column
