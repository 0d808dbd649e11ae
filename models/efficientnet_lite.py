"""A U-Net whose way down is EfficientNet-Lite0, with a choice of padding.

M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML
2019, table 1, in its Lite form: no squeeze-and-excitation, ReLU6, the first and last stage not
scaled (tensorflow/tpu, models/official/efficientnet/lite).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Kernel, stride, expansion, output channels, repeats of each stage.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM = 32
LEVELS = (0, 1, 2, 4, 6)  # stages after which the features of one resolution are complete
WIDTHS = tuple(STAGES[k][3] for k in LEVELS)  # 16, 24, 40, 112, 320 channels


class Conv(nn.Sequential):
    """Padding, convolution, BatchNorm and, where `activate`, ReLU6.

    Strided as TensorFlow does it, which the weights are trained for: an even image is padded one
    pixel less before than behind.
    """

    def __init__(self, c_in, c_out, kernel, stride, groups, padding, activate=True):
        super().__init__()
        self.stride, self.kernel = stride, kernel
        self.pad = padding(kernel // 2) if kernel > 1 else nn.Identity()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.01)
        self.activate = nn.ReLU6(inplace=True) if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        top, left = ((1 - n % 2) * (self.stride - 1) for n in x.shape[-2:])
        x = self.pad(x)[..., top:, left:]
        return self.activate(self.norm(self.conv(x)))


class Block(nn.Module):
    """Inverted residual: 1×1 expansion, depthwise convolution, 1×1 projection."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int, padding):
        super().__init__()
        wide = c_in * expansion
        layers = [Conv(c_in, wide, 1, 1, 1, padding)] if expansion > 1 else []
        layers.append(Conv(wide, wide, kernel, stride, wide, padding))
        layers.append(Conv(wide, c_out, 1, 1, 1, padding, activate=False))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """(B, C, H, W) in [0, 1] → features at 1/2, 1/4, 1/8, 1/16, 1/32 with WIDTHS channels.

    padding: padding(p) is a module that adds p pixels on each side.
    in_channels: RGB and what follows it; the further channels' first weights are zero when the
    pretrained ones are loaded.
    """

    def __init__(self, in_channels: int, padding: Callable[[int], nn.Module]):
        super().__init__()
        self.stem = Conv(in_channels, STEM, 3, 2, 1, padding)
        channels, stages = STEM, []
        for kernel, stride, expansion, out, repeats in STAGES:
            blocks = []
            for k in range(repeats):
                blocks.append(
                    Block(channels, out, kernel, stride if k == 0 else 1, expansion, padding)
                )
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem((x - 127 / 255) * (255 / 128))
        levels = []
        for k, stage in enumerate(self.stages):
            x = stage(x)
            if k in LEVELS:
                levels.append(x)
        return levels


class Up(nn.Module):
    """Doubling by repetition, skip connection, twice: padding, 3×3 convolution, BatchNorm, ReLU."""

    def __init__(self, low: int, skip: int, out: int, padding: Callable[[int], nn.Module]):
        super().__init__()
        layers = []
        for channels in (low + skip, out):
            layers += [
                padding(1),
                nn.Conv2d(channels, out, 3, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.layers(torch.cat([skip, x[..., : skip.shape[-2], : skip.shape[-1]]], dim=1))


class LiteUNet(nn.Module):
    """U-Net with EfficientNetLite0 on the way down: (B, C, H, W) → (B, OUT, H/2, W/2)."""

    OUT = 32

    def __init__(self, in_channels: int, padding: Callable[[int], nn.Module]):
        super().__init__()
        self.encoder = EfficientNetLite0(in_channels, padding)
        outputs = (112, 80, 56, self.OUT)
        below = (WIDTHS[-1], *outputs[:-1])
        self.ups = nn.ModuleList(
            Up(low, skip, out, padding)
            for low, skip, out in zip(below, WIDTHS[-2::-1], outputs, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        *skips, x = self.encoder(x)
        for up in self.ups:
            x = up(x, skips.pop())
        return x
