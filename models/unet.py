"""The plain and the published cube-padded U-Net (Vo 2020)."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.backbone import Backbone, Head
from projection import CubePadding


def padded_conv(c_in: int, c_out: int, padding: Callable, dilation: int = 1) -> list[nn.Module]:
    """Return the layers of a padded 3×3 convolution with BatchNorm and ReLU."""
    conv = nn.Conv2d(c_in, c_out, 3, dilation=dilation, bias=False)
    return [padding(dilation), conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


class UNet(nn.Module):
    """Encoder and decoder with skip connections, a level deeper than the published network.

    Pooling keeps the last row and column of faces that do not halve evenly; the decoder crops its
    features to the skip connection.

    widths, outputs: channels of each level of encoder and decoder, finest first, in units of `base`
        channels. order: of the decoder's levels, and of skip connection and upsampled features when
        they are joined; −1 is the reverse.

    forward: (B·6, in_channels, S, S) → (B·6, base, S, S).
    """

    widths: tuple[int, ...] = (1, 2, 4, 8, 8)
    outputs: tuple[int, ...] = (1, 1, 2, 4)
    upsampling, order = "nearest", 1

    def __init__(self, in_channels: int, base: int, padding: Callable = CubePadding):
        super().__init__()

        def convs(c_in: int, c_out: int) -> nn.Sequential:
            both = *padded_conv(c_in, c_out, padding), *padded_conv(c_out, c_out, padding)
            return nn.Sequential(*both)

        self.stem = convs(in_channels, base)
        self.down = nn.ModuleList(convs(base * a, base * b) for a, b in pairwise(self.widths))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        below = [*self.outputs[1:], self.widths[-1]]
        levels = list(zip(self.widths[:-1], below, self.outputs, strict=True))
        up = [convs(base * (a + b), base * c) for a, b, c in levels[:: self.order]]
        self.up = nn.ModuleList(up[:: self.order])

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.stem(x)]
        for down in self.down:
            skips.append(down(self.pool(skips[-1])))
        x = skips.pop()
        for up in reversed(self.up):
            skip = skips.pop()
            x = interpolate(x, scale_factor=2.0, mode=self.upsampling)
            both = [skip, x[..., : skip.shape[-2], : skip.shape[-1]]]
            x = up(torch.cat(both[:: self.order], dim=1))
        return x


class PublishedUNet(UNet):
    """The published U-Net (Vo 2020), layer by layer, also for faces that do not halve evenly."""

    widths, outputs = (1, 2, 4, 8), (1, 2, 4)
    upsampling, order = "bilinear", -1


PLAIN = Backbone(UNet, faces=(17, 1))  # two pixels at the coarsest level
PUBLISHED = Backbone(  # with a sigmoid on each face and PyTorch's initialisation
    PublishedUNet,
    faces=(9, 1),
    motion="colour_difference",
    head=Head(bias=None, projects_probabilities=True, latitude_bias=False),
)
