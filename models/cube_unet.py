"""Cube-padded U-Net (Vo 2020), with the cube padding of Cheng et al. 2018."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from models.base import SaliencyModel
from models.efficientnet_lite import EfficientNetReadout, enlarge, padded_conv
from models.equator_prior import gaze_density, longitude_density
from projection import Cube2Equi, CubePadding, Equi2Cube
from projection.cube_pad import FACE_PADDINGS, pad_each_face
from video.motion import MOTIONS
from video.spec import Spec, check_number


def double_conv(c_in: int, c_out: int) -> nn.Sequential:
    """Return cube padding, 3×3 convolution, BatchNorm and ReLU, twice."""
    return nn.Sequential(*padded_conv(c_in, c_out), *padded_conv(c_out, c_out))


class UNet(nn.Module):
    """Encoder and decoder with skip connections, a level deeper than the published network.

    Pooling keeps the last row and column of faces that do not halve evenly; on the way up the
    result is cropped to its skip connection.

    widths, outputs: channels of each level on the way down and up, finest first, in units of
        base_channels. order: in which levels are made on the way up, and skip connection and what
        comes from below are joined; −1 is the reverse.

    forward: (B·6, C, S, S) → (B·6, base_channels, S, S).
    """

    smallest_face, face_step, output_stride = 17, 1, 1  # 17: two pixels at the lowest level
    published = False
    learning_rate_scales: dict[str, float] = {}
    widths: tuple[int, ...] = (1, 2, 4, 8, 8)
    outputs: tuple[int, ...] = (1, 1, 2, 4)
    upsampling, order = "nearest", 1

    def __init__(self, in_channels: int, base_channels: int):
        super().__init__()
        base = self.out_channels = base_channels
        self.stem = double_conv(in_channels, base)
        self.down = nn.ModuleList(double_conv(base * a, base * b) for a, b in pairwise(self.widths))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        below = [*self.outputs[1:], self.widths[-1]]
        levels = list(zip(self.widths[:-1], below, self.outputs, strict=True))
        up = [double_conv(base * (a + b), base * c) for a, b, c in levels[:: self.order]]
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
    """The published cube-padded U-Net (Vo 2020), layer by layer.

    It takes faces that do not halve evenly, too, which its authors' code does not.
    """

    smallest_face, published = 9, True
    widths, outputs = (1, 2, 4, 8), (1, 2, 4)
    upsampling, order = "bilinear", -1


# Called with (in_channels, base_channels). Each states its smallest face and the step between
# faces that it takes, its output stride, out_channels and learning_rate_scales, and whether motion
# and head are as published, too: a sigmoid on each face, PyTorch's initialisation.
BACKBONES: dict[str, Any] = {
    "plain": UNet,
    "published": PublishedUNet,
    "efficientnet_lite0": EfficientNetReadout,
}
PADDINGS = ("cube", *FACE_PADDINGS)
LATITUDES = 33  # at which the latitude bias is learned
PROBABILITY_EPS = 1e-7  # and 1 less it: limits of a probability whose logit is taken


class CubeUNet(SaliencyModel):
    """A U-Net over the six cube faces of each frame: RGB and motion.

    A cube face does not know where on the sphere it is, and people look at the horizon first. So
    the map is sigmoid(image logits + latitude bias); the bias begins as the logarithm of the
    equator prior and is learned with the network. The bias to straight ahead is not learned and
    not there during training, in which clips are turned to any side.

    in_channels: 3 (RGB) and those of the motion: 1 (difference), 3 (optical flow) or one's own.
    base_channels: width of the plain and of the published backbone.
    height, width: size in pixels of the frames.
    face_size: pixels along the edge of a face, width // 4 if None.
    backbone: a name in BACKBONES.
    front: power of the equator prior's density over longitude by which maps favour straight
        ahead, from 0 (not at all) to 1.
    local_prior: whether the network says at each place how much the latitude bias counts there,
        from 0 (not at all) to twice: somebody near the camera is looked at wherever they are.
    second_look: weight, from 0 to 1, of the logits of the same faces at half the size, in which
        a look sees twice as far; 0 for none. The face at full size has the rest.
    latitude_bias: whether there is one. None: not with the published backbone.
    padding: "cube", or for comparison "zero" or "replicate", which pad each face by itself.

    forward: frames (B, T, 3, H, W), motion (B, T, in_channels − 3, H, W) → (B, T, 1, H, W)
    in [0, 1]. Raises ValueError where the channels or the size don't match.

    >>> model = CubeUNet(base_channels=4, height=40, width=80)
    >>> model(torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80)).shape
    torch.Size([1, 2, 1, 40, 80])
    """

    name = "cube_unet"
    parallel = True
    qualities = {"fast": 0.75}
    latitude_bias: Tensor
    front_bias: Tensor

    def __init__(
        self,
        in_channels: int = 4,
        base_channels: int = 32,
        height: int = 240,
        width: int = 480,
        face_size: int | None = None,
        backbone: str = "plain",
        front: float = 0.0,
        local_prior: bool = False,
        second_look: float = 0.0,
        latitude_bias: bool | None = None,
        padding: str = "cube",
    ):
        if backbone not in BACKBONES:
            raise ValueError(f"backbone is one of {', '.join(BACKBONES)}, got {backbone!r}")
        kind = BACKBONES[backbone]
        motions = {3 + motion.channels: name for name, motion in MOTIONS.items()}
        motions |= {3: "none", 4: "colour_difference" if kind.published else "difference", 6: "dis"}
        if in_channels not in motions:
            raise ValueError(f"in_channels is 3 (RGB), 4 (difference) or 6 (flow): {in_channels}")
        if padding not in PADDINGS:
            raise ValueError(f"padding is one of {', '.join(PADDINGS)}, got {padding!r}")
        if latitude_bias is None:
            latitude_bias = not kind.published
        if not 0 <= front <= 1:
            raise ValueError(f"front is from 0 to 1: {front}")
        if not 0 <= second_look <= 1:
            raise ValueError(f"second_look is from 0 to 1: {second_look}")
        check_number("base_channels", base_channels, 1, 256)
        super().__init__(
            Spec(height=height, width=width, motion=motions[in_channels]),
            in_channels=in_channels,
            base_channels=base_channels,
            height=height,
            width=width,
            face_size=face_size,
            backbone=backbone,
            front=front,
            local_prior=local_prior,
            second_look=second_look,
            latitude_bias=latitude_bias,
            padding=padding,
        )
        size, looks = face_size or width // 4, 2 if second_look else 1
        smallest, step = looks * kind.smallest_face, looks * kind.face_step
        check_number("face_size", size, 1, width // 2 + 1)
        if size < smallest or size % step:
            sizes = ", ".join(str(smallest + k * step) for k in range(3))
            raise ValueError(f"faces of {size} pixels; this backbone takes {sizes}, …")
        self.backbone = kind(in_channels, base_channels).to(memory_format=torch.channels_last)
        scales = self.backbone.learning_rate_scales
        self.learning_rate_scales = {f"backbone.{part}": scale for part, scale in scales.items()}
        self.pad, self.second_look = CubePadding(1), second_look
        self.to_cube = Equi2Cube(height, width, size)
        self.to_equi = Cube2Equi(size // self.backbone.output_stride, height, width)
        self.head = nn.Conv2d(self.backbone.out_channels, 1, 1)
        if not kind.published:  # most of a saliency map is dark
            nn.init.constant_(self.head.get_parameter("bias"), -3.0)
        self.prior_head = nn.Conv2d(self.backbone.out_channels, 1, 1) if local_prior else None
        if self.prior_head:  # in the beginning the latitude bias counts once everywhere
            for parameter in self.prior_head.parameters():
                nn.init.zeros_(parameter)
        if padding != "cube":
            pad_each_face(self, padding)
        prior = gaze_density(LATITUDES, 1)
        prior = (prior / prior.max()).log().float().view(1, 1, LATITUDES)
        if latitude_bias:
            self.latitude_bias = nn.Parameter(prior)
        else:
            self.register_buffer("latitude_bias", torch.zeros_like(prior), persistent=False)
        front_bias = (front * longitude_density(width).log()).float()
        self.register_buffer("front_bias", front_bias, persistent=False)

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        logits, latitude_bias = self.logits(frames, motion)
        logits = logits + latitude_bias
        if not self.training:
            logits = logits + self.front_bias
        return logits.sigmoid().unflatten(0, frames.shape[:2])

    def logits(self, frames: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Return image logits (B·T, 1, H, W) and the latitude bias, which is added to them."""
        clips, channels = torch.cat([frames, motion], dim=2), self.arguments["in_channels"]
        if clips.shape[2] != channels:
            given = f"got {frames.shape[2]} + {motion.shape[2]}"
            raise ValueError(f"expected 3 + {channels - 3} channels of frames and motion, {given}")
        faces = self.to_cube(clips.flatten(0, 1)).contiguous(memory_format=torch.channels_last)
        logits = self.read(faces)
        if self.second_look:
            second = enlarge(self.read(avg_pool2d(faces, 2)), self.pad)
            logits = torch.lerp(logits, second, self.second_look)
        if self.backbone.published:  # probabilities are interpolated
            logits = self.to_equi(logits.sigmoid()).logit(PROBABILITY_EPS)
        else:
            logits = self.to_equi(logits)
        rows = clips.shape[-2]
        latitude_bias = interpolate(self.latitude_bias, size=rows, mode="linear").unsqueeze(-1)
        if self.prior_head:
            latitude_bias = 2 * logits[:, 1:].sigmoid() * latitude_bias
        return logits[:, :1], latitude_bias

    def read(self, faces: Tensor) -> Tensor:
        """Return image logits, and those of the local prior if there is one: (B·T·6, 1 or 2, S, S).

        faces: (B·T·6, C, S', S'), of which the backbone makes features of S×S.
        """
        features = self.backbone(faces)
        heads = [self.head, self.prior_head] if self.prior_head else [self.head]
        return torch.cat([head(features) for head in heads], dim=1).float()
