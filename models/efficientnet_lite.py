"""Saliency from the features of EfficientNet-Lite0, with a choice of padding.

M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML
2019, table 1, in its Lite form: no squeeze-and-excitation, ReLU6, the first and last stage not
scaled (tensorflow/tpu, models/official/efficientnet/lite).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

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
LEVELS = (1, 2, 4, 5, 6)  # stages whose features are read
WIDTHS = tuple(STAGES[k][3] for k in LEVELS)  # 24, 40, 112, 192, 320 channels
MOTION_LEVELS = (2, 0)  # at whose resolution motion is read, too; from the coarsest


class Conv(nn.Module):
    """Padding, convolution with a bias and, where `activate`, ReLU6.

    The BatchNorm of the published network has its statistics from ImageNet and keeps them, so it
    is part of weight and bias here.

    late: of an even image, a stride of 2 takes pixels 1, 3, … instead of 0, 2, … Neither is its
    middle, so a network takes turns; TensorFlow takes the former always.
    """

    def __init__(self, c_in, c_out, kernel, stride, groups, padding, activate=True, late=False):
        super().__init__()
        self.late = late
        self.pad = padding(kernel // 2) if kernel > 1 else nn.Identity()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups)
        self.activate = nn.ReLU6(inplace=True) if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        top, left = (self.late and n % 2 == 0 for n in x.shape[-2:])
        x = self.pad(x)[..., top:, left:]
        return self.activate(self.conv(x))


class Block(nn.Module):
    """Inverted residual: 1×1 expansion, depthwise convolution, 1×1 projection."""

    def __init__(self, c_in, c_out, kernel, stride, expansion, padding, late):
        super().__init__()
        wide = c_in * expansion
        layers = [Conv(c_in, wide, 1, 1, 1, padding)] if expansion > 1 else []
        layers.append(Conv(wide, wide, kernel, stride, wide, padding, late=late))
        layers.append(Conv(wide, c_out, 1, 1, 1, padding, activate=False))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """RGB (B, 3, H, W) in [0, 1] → features at 1/4, 1/8, 1/16, 1/32, 1/32 with WIDTHS channels.

    padding: padding(p) is a module that adds p pixels on each side.
    """

    def __init__(self, padding: Callable[[int], nn.Module]):
        super().__init__()
        self.stem = Conv(3, STEM, 3, 2, 1, padding, late=True)
        channels, stages, late = STEM, [], True
        for kernel, stride, expansion, out, repeats in STAGES:
            late = late != (stride == 2)
            blocks = []
            for k in range(repeats):
                step = stride if k == 0 else 1
                turn = late and step == 2
                blocks.append(Block(channels, out, kernel, step, expansion, padding, turn))
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


class LiteReadout(nn.Module):
    """A few layers that read saliency from what EfficientNetLite0 sees, and from motion.

    (B, 3 + M, H, W) → (B, OUT, H/4, W/4). What the encoder learned of a million photographs is
    worth more than what a thousand with fixations could make of it, as M. Kümmerer, T. Wallis
    and M. Bethge found (DeepGaze II, 2016): its first FIXED stages stay as they are, the others
    are to be learned slowly.

    H and W are multiples of STEP: a side that does not halve evenly shifts coarse features by
    up to half of their pixel. Raises ValueError for others.
    """

    OUT, FIXED, STEP = 64, 3, 32

    def __init__(self, in_channels: int, padding: Callable[[int], nn.Module]):
        super().__init__()
        self.encoder = EfficientNetLite0(padding)
        for fixed in (self.encoder.stem, *self.encoder.stages[: self.FIXED]):
            fixed.requires_grad_(False)
        self.sees_motion = in_channels > 3
        widths = list(WIDTHS)
        for level in MOTION_LEVELS if self.sees_motion else ():
            widths.insert(level, in_channels - 3)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(c), nn.Conv2d(c, self.OUT, 1), nn.Dropout2d(0.5))
            for c in widths
        )
        mix = [nn.BatchNorm2d(self.OUT), nn.ReLU()]
        for reach in (1, 2):
            mix += [
                padding(reach),
                nn.Conv2d(self.OUT, self.OUT, 3, dilation=reach, bias=False),
                nn.BatchNorm2d(self.OUT),
                nn.ReLU(),
            ]
        self.mix = nn.Sequential(*mix)
        self.pad = padding(1)

    def forward(self, x: Tensor) -> Tensor:
        if any(n % self.STEP for n in x.shape[-2:]):
            sides = "×".join(map(str, x.shape[-2:]))
            raise ValueError(f"sides are multiples of {self.STEP} pixels, not {sides}")
        features = self.encoder(x[:, :3].contiguous(memory_format=torch.channels_last))
        for level in MOTION_LEVELS if self.sees_motion else ():
            size = features[level].shape[-2:]
            features.insert(level, adaptive_avg_pool2d(x[:, 3:], size))
        total = None
        for level, feature in reversed(list(zip(self.levels, features, strict=True))):
            part = level(feature)
            if total is not None:
                same = total.shape == part.shape
                part = part + (total if same else self.enlarge(total))
            total = part
        return self.mix(total)

    def enlarge(self, x: Tensor) -> Tensor:
        """Doubled bilinearly: (B, C, H, W) → (B, C, 2H, 2W).

        The padding takes the place of what interpolation would repeat at the edges, so that on
        cube faces there is no step between them.
        """
        return interpolate(self.pad(x), scale_factor=2.0, mode="bilinear")[..., 2:-2, 2:-2]
