"""SST-Sal written plainly: what models/sphere_layers.py must equal, and be faster than.

Every layer resamples its input to an image three times as high and wide, which holds the nine
taps of every pixel as a 3×3 tile, and then convolves or pools with stride 3. Reference
sampling only; the oracle of tests/test_sst_sal.py and of benchmarks/sst_sal.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.sphere_taps import reference_grid


class PlainSSTSal:
    """weights: state dict of SSTSal. Grids are made once, as the original caches them."""

    def __init__(self, weights: dict[str, Tensor], height: int, width: int):
        self.weights = weights
        self.full = reference_grid(height, width)
        self.pooling = reference_grid(height, width, stride=2)
        self.half = reference_grid(height // 2, width // 2)

    def conv(self, part: str, x: Tensor) -> Tensor:
        """Gates before their activation, (B, 4·hidden, H, W), of part "encoder" or "decoder"."""
        tiles = sample(x, self.full if part == "encoder" else self.half)
        weight = self.weights[f"{part}.lstm.conv.weight"]
        return F.conv2d(tiles, weight, self.weights[f"{part}.lstm.conv.bias"], stride=3)

    def cell(self, part: str, x: Tensor, state: tuple | None) -> tuple[Tensor, Tensor]:
        if state is None:
            hidden = len(self.weights[f"{part}.lstm.conv.bias"]) // 4
            state = (x.new_zeros(len(x), hidden, *x.shape[-2:]),) * 2
        h, c = state
        i, f, o, g = self.conv(part, torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(sample(x, self.pooling), 3)

    def __call__(self, clip: Tensor) -> Tensor:
        """clip: (B, T, C, H, W), BGR of the frames, then of the flow → (B, T, 1, H, W)."""
        encoder, decoder, maps = None, None, []
        for x in clip.unbind(1):
            encoder = self.cell("encoder", x, encoder)
            decoder = self.cell("decoder", self.pool(encoder[0]), decoder)
            maps.append(F.interpolate(decoder[0], scale_factor=2, mode="nearest"))
        return torch.stack(maps, dim=1)


def sample(x: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=False)
