"""The published cube-padded U-Net (Vo 2020), layer by layer, and files of its weights."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.efficientnet_lite import padded_conv
from video.spec import HIGHEST_FPS

FIRST_WEIGHT = "enc1.c1.conv.weight"  # of a state_dict that its authors' code saves


def double_conv(c_in: int, c_out: int) -> nn.Sequential:
    """Return "c1" and "c2": cube padding, 3×3 convolution, BatchNorm and ReLU each."""
    convs = (
        nn.Sequential(OrderedDict(zip(("pad", "conv", "bn", "act"), padded_conv(c, c_out))))
        for c in (c_in, c_out)
    )
    return nn.Sequential(OrderedDict(zip(("c1", "c2"), convs)))


class PublishedUNet(nn.Module):
    """The published encoder and decoder; modules have the names that their authors gave them.

    Faces that do not halve evenly, which theirs does not take, keep their last row and column.

    forward: (B·6, C, S, S) → (B·6, base_channels, S, S).
    """

    smallest_face, face_step, output_stride, published = 9, 1, 1, True
    learning_rate_scales: dict[str, float] = {}

    def __init__(self, in_channels: int, base_channels: int):
        super().__init__()
        base = self.out_channels = base_channels
        self.enc1 = double_conv(in_channels, base)
        self.enc2 = double_conv(base, 2 * base)
        self.enc3 = double_conv(2 * base, 4 * base)
        self.enc4 = double_conv(4 * base, 8 * base)
        self.dec1 = double_conv((8 + 4) * base, 4 * base)
        self.dec2 = double_conv((4 + 2) * base, 2 * base)
        self.dec3 = double_conv((2 + 1) * base, base)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.enc1(x)]
        for encoder in (self.enc2, self.enc3, self.enc4):
            skips.append(encoder(self.pool(skips[-1])))
        x = skips.pop()
        for decoder in (self.dec1, self.dec2, self.dec3):
            skip = skips.pop()
            x = interpolate(x, scale_factor=2.0, mode="bilinear")
            x = decoder(torch.cat([x[..., : skip.shape[-2], : skip.shape[-1]], skip], dim=1))
        return x


def from_state_dict(weights: dict[str, Tensor]) -> dict:
    """Return what a checkpoint would hold of a state_dict that the authors' code has saved.

    Their motion is between consecutive frames, so the spec states the highest rate that there is.
    Raises an error of any kind for other weights.
    """
    base, channels = weights[FIRST_WEIGHT].shape[:2]
    arguments = {"in_channels": channels, "base_channels": base, "backbone": "published"}
    named = {n if n.startswith("head.") else f"backbone.{n}": t for n, t in weights.items()}
    spec = {"fps": HIGHEST_FPS}
    return {"model": "cube_unet", "arguments": arguments, "spec": spec, "weights": named}
