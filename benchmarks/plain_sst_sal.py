"""A plain formulation of SST-Sal, as in the authors' code.

Every layer resamples its input to an image three times as high and wide, which holds the nine taps
of every pixel as a 3×3 tile, and then convolves or pools with stride 3. It has reference sampling
only. tests/test_sst_sal.py checks models/sphere_layers.py against it, and benchmarks/sst_sal.py
compares their speed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.sphere_taps import reference_grid


class PlainSSTSal:
    """The network as a function of clips; grids are made once, as the authors' code caches them.

    weights: state dict of SSTSal.
    """

    def __init__(self, weights: dict[str, Tensor], height: int, width: int):
        self.weights = weights
        self.full = tile_grid(height, width)
        self.pooling = tile_grid(height, width, stride=2)
        self.half = tile_grid(height // 2, width // 2)

    def conv(self, part: str, x: Tensor) -> Tensor:
        """Return the gates of the encoder or decoder before activation, (B, 4·hidden, H, W)."""
        tiles = sample(x, self.full if part == "encoder" else self.half)
        weight = self.weights[f"{part}.lstm.conv.weight"]
        return F.conv2d(tiles, weight, self.weights[f"{part}.lstm.conv.bias"], stride=3)

    def cell(self, part: str, x: Tensor, state: tuple | None) -> tuple[Tensor, Tensor]:
        """Return the next hidden and cell state, (B, hidden, H, W) each; a None state is zeros."""
        if state is None:
            hidden = len(self.weights[f"{part}.lstm.conv.bias"]) // 4
            state = (x.new_zeros(len(x), hidden, *x.shape[-2:]),) * 2
        h, c = state
        i, f, o, g = self.conv(part, torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def pool(self, x: Tensor) -> Tensor:
        """Return the maximum of the nine taps: (B, C, H, W) → (B, C, H/2, W/2)."""
        return F.max_pool2d(sample(x, self.pooling), 3)

    def __call__(self, clip: Tensor) -> Tensor:
        """clip: (B, T, C, H, W), BGR of the frames and then of the flow → (B, T, 1, H, W)."""
        encoder, decoder, maps = None, None, []
        for x in clip.unbind(1):
            encoder = self.cell("encoder", x, encoder)
            decoder = self.cell("decoder", self.pool(encoder[0]), decoder)
            maps.append(F.interpolate(decoder[0], scale_factor=2, mode="nearest"))
        return torch.stack(maps, dim=1)


def tile_grid(height: int, width: int, stride: int = 1) -> Tensor:
    """Return the authors' grid for F.grid_sample: (1, 3·H/stride, 3·W/stride, 2) float32."""
    return reference_grid(height, width, stride).transpose(1, 2).flatten(2, 3).flatten(0, 1)[None]


def sample(x: Tensor, grid: Tensor) -> Tensor:
    """Sample an image bilinearly: (B, C, H, W) and grid (1, 3H', 3W', 2) → (B, C, 3H', 3W')."""
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=False)
