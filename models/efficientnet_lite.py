"""The backbone with EfficientNet-Lite0 features.

M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML
2019, table 1, in its Lite form: no squeeze-and-excitation, ReLU6, the first and last stage not
scaled (tensorflow/tpu, models/official/efficientnet/lite).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from models.backbone import Backbone
from models.unet import padded_conv
from projection import CubePadding

# Kernel, stride, expansion, output channels and repeats of each stage.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM_CHANNELS = 32
LATE_PADDING_SIZE = 17  # smaller faces, in units of the padding, are padded after expansion
LEVELS = (1, 2, 4, 5, 6)  # stages whose features are used
WIDTHS = tuple(STAGES[k][3] for k in LEVELS)  # 24, 40, 112, 192, 320 channels
OUT_CHANNELS = 64
MOTION_LEVELS = (2, 0)  # levels at which motion is added, the coarser one first


def enlarge(x: Tensor, pad: nn.Module) -> Tensor:
    """Double the resolution bilinearly: (B·6, C, S, S) → (B·6, C, 2S, 2S).

    pad: cube padding, which avoids a step between neighbouring faces, or another one.
    """
    if not isinstance(pad, CubePadding):
        return interpolate(x, scale_factor=2.0, mode="bilinear")
    return interpolate(pad(x), scale_factor=2.0, mode="bilinear")[..., 2:-2, 2:-2]


class Conv(nn.Module):
    """A convolution with ReLU6 if `activate`; ImageNet's BatchNorm is folded into it."""

    def __init__(self, c_in, c_out, kernel, stride=1, groups=1, activate=True):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups)
        self.activate = nn.ReLU6(inplace=True) if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        trained = torch.is_grad_enabled() and weight.requires_grad
        if trained and self.conv.groups > 1 and x.is_cpu:  # in bfloat16 three times as slow
            with torch.autocast("cpu", enabled=False):
                return self.activate(self.conv(x.to(weight.dtype)))
        return self.activate(self.conv(x))


class Block(nn.Module):
    """Inverted residual: 1×1 expansion, depthwise convolution, 1×1 projection.

    Without gradients, large faces are padded before the expansion: 9 % less time, same result.
    """

    def __init__(self, c_in, c_out, kernel, stride, expansion, late, layer=CubePadding):
        """layer: function that makes a padding layer, see models.backbone.Backbone."""
        super().__init__()
        wide = c_in * expansion
        self.expand = Conv(c_in, wide, 1) if expansion > 1 else nn.Identity()
        self.padding = kernel // 2
        self.pad = layer(self.padding, late)
        self.depthwise = Conv(wide, wide, kernel, stride, wide)
        self.project = Conv(wide, c_out, 1, activate=False)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        small = x.shape[-1] < LATE_PADDING_SIZE * self.padding
        if torch.is_grad_enabled() or small or not isinstance(self.pad, CubePadding):
            padded = self.pad(self.expand(x))
        else:
            padded = self.pad.fill_corners(self.expand(self.pad(x)))
        projected = self.project(self.depthwise(padded))
        return projected + x if self.residual else projected


class EfficientNetLite0(nn.Module):
    """RGB faces (B·6, 3, S, S) in [0, 1] → features of WIDTHS at strides 4, 8, 16, 32, 32."""

    def __init__(self, padding: Callable = CubePadding):
        super().__init__()
        # A stride of 2 is not symmetric on even faces: early and late centres alternate.
        self.pad = padding(1, late=True)
        self.stem = Conv(3, STEM_CHANNELS, 3, stride=2)
        channels, late, self.stages = STEM_CHANNELS, True, nn.ModuleList()
        for kernel, stride, expansion, out, repeats in STAGES:
            late = late != (stride == 2)
            first = Block(channels, out, kernel, stride, expansion, late and stride == 2, padding)
            more = out, out, kernel, 1, expansion, False, padding
            rest = (Block(*more) for _ in range(repeats - 1))
            self.stages.append(nn.Sequential(first, *rest))
            channels = out

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(self.pad((x - 127 / 255) * (255 / 128)))
        features = [x := stage(x) for stage in self.stages]
        return [features[k] for k in LEVELS]


class EfficientNetReadout(nn.Module):
    """EfficientNetLite0 with a small decoder, which adds the motion image.

    The encoder's first FIXED stages keep their ImageNet weights, the others have a small learning
    rate (see Kümmerer, Wallis and Bethge, DeepGaze II, 2016).

    forward: (B·6, 3 + M, S, S) → (B·6, OUT_CHANNELS, S/4, S/4). S is a multiple of 32; otherwise
    coarse features would be shifted by up to half of their pixel.
    """

    FIXED = 3

    def __init__(self, in_channels: int, base_channels: int = 0, padding: Callable = CubePadding):
        """base_channels is ignored; the other backbones use it."""
        super().__init__()
        self.encoder = EfficientNetLite0(padding)
        for fixed in (self.encoder.stem, *self.encoder.stages[: self.FIXED]):
            fixed.requires_grad_(False)
        self.motion_levels = MOTION_LEVELS if in_channels > 3 else ()
        widths, out = list(WIDTHS), OUT_CHANNELS
        for level in self.motion_levels:
            widths.insert(level, in_channels - 3)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(c), nn.Conv2d(c, out, 1), nn.Dropout2d(0.5))
            for c in widths
        )
        mix = *padded_conv(out, out, padding), *padded_conv(out, out, padding, dilation=2)
        self.mix = nn.Sequential(nn.BatchNorm2d(out), nn.ReLU(), *mix)
        self.pad = padding(1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x[:, :3])
        motion = x[:, 3:].contiguous(memory_format=torch.channels_last)  # also for one channel
        for level in self.motion_levels:
            features.insert(level, avg_pool2d(motion, x.shape[-1] // features[level].shape[-1]))
        coarsest_first = zip(reversed(self.levels), reversed(features), strict=True)
        total, *parts = (level(feature) for level, feature in coarsest_first)
        for part in parts:  # the sum has the memory format of the first part
            total = (total if total.shape == part.shape else enlarge(total, self.pad)) + part
        return self.mix(total)


EFFICIENTNET_LITE0 = Backbone(
    EfficientNetReadout,
    channels=OUT_CHANNELS,
    stride=4,
    faces=(96, 32),
    learning_rate_scales={"encoder.": 0.1},
)
