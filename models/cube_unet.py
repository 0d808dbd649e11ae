"""Cube-padded U-Net (Vo 2020), with the cube padding of Cheng et al. 2018."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from common.components import BACKBONES, MOTIONS
from models.base import SaliencyModel
from models.efficientnet_lite import enlarge
from models.equator_prior import gaze_density, longitude_density
from projection import Cube2Equi, Equi2Cube, solid_angles
from projection.cube_pad import PADDINGS
from video.spec import Spec, check_number

LATITUDES = 33  # support points of the latitude bias
PROBABILITY_EPS = 1e-7  # probabilities are clamped to [ε, 1 − ε] before their logit


class CubeUNet(SaliencyModel):
    """A U-Net over the six cube faces of each frame: RGB and motion.

    A cube face does not contain its position on the sphere, but people look at the horizon first.
    So the map is sigmoid(image logits + latitude bias). The bias is initialised with the logarithm
    of the equator prior and learned with the network. The preference for straight ahead is not
    learned; it is off during training, where clips are rotated at random.

    in_channels: 3 (RGB) plus those of the motion image: 1 (difference), 3 (optical flow) or others.
    base_channels: width of the plain and of the published backbone.
    height, width: size in pixels of the frames.
    face_size: pixels along the edge of a face, width // 4 if None.
    backbone: a name in BACKBONES.
    front: strength of the preference for straight ahead, from 0 to 1: the power of the equator
        prior's density over longitude.
    prior_share: share of the map's integral, from 0 to 1, that is distributed like the equator
        prior (over latitude alone if front is 0), which is too broad to hide what stands out.
        Off during training, like the front.
    local_prior: predict a per-pixel gate in [0, 2] for the latitude bias, since people near the
        camera attract attention at every latitude.
    second_look: weight, from 0 to 1, of the logits of the same faces at half the size, where the
        receptive field is twice as large. The faces at full size have the remaining weight.
    latitude_bias: whether to use one. None: unless the backbone is the published one.
    padding: "cube", or for comparison "zero" or "replicate", which pad each face by itself.

    forward: frames (B, T, 3, H, W), motion (B, T, in_channels − 3, H, W) → (B, T, 1, H, W)
    in [0, 1]. Raises ValueError if the channels or the size don't match.

    >>> model = CubeUNet(base_channels=4, height=40, width=80)
    >>> model(torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80)).shape
    torch.Size([1, 2, 1, 40, 80])
    """

    name = "cube_unet"
    parallel = True
    qualities = {"fast": 0.75}
    components = {"backbone": BACKBONES}
    latitude_bias: Tensor
    front_bias: Tensor
    prior: Tensor
    areas: Tensor

    def __init__(
        self,
        in_channels: int = 4,
        base_channels: int = 32,
        height: int = 240,
        width: int = 480,
        face_size: int | None = None,
        backbone: str = "plain",
        front: float = 0.0,
        prior_share: float = 0.0,
        local_prior: bool = False,
        second_look: float = 0.0,
        latitude_bias: bool | None = None,
        padding: str = "cube",
    ):
        if backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}")
        kind = BACKBONES[backbone]
        motions = {3 + motion.channels: name for name, motion in MOTIONS.items()}
        motions |= {3: "none", 4: kind.motion, 6: "dis"}
        if in_channels not in motions:
            raise ValueError(f"in_channels is 3 (RGB), 4 (difference) or 6 (flow): {in_channels}")
        if padding not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}")
        if latitude_bias is None:
            latitude_bias = kind.head.latitude_bias
        shares = {"front": front, "prior_share": prior_share, "second_look": second_look}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {share}")
        check_number("base_channels", base_channels, 1, 256)
        super().__init__(
            Spec(height=height, width=width, motion=motions[in_channels]),
            in_channels=in_channels,
            base_channels=base_channels,
            height=height,
            width=width,
            face_size=face_size,
            backbone=backbone,
            **shares,
            local_prior=local_prior,
            latitude_bias=latitude_bias,
            padding=padding,
        )
        size, looks = face_size or width // 4, 2 if second_look else 1
        smallest, step = (looks * pixels for pixels in kind.faces)
        check_number("face_size", size, 1, width // 2 + 1)
        if size < smallest or size % step:
            sizes = ", ".join(str(smallest + k * step) for k in range(3))
            raise ValueError(f"faces of {size} pixels; this backbone takes {sizes}, …")
        network = kind.build(in_channels, base_channels, PADDINGS[padding])
        self.backbone = network.to(memory_format=torch.channels_last)
        scales = kind.learning_rate_scales
        self.learning_rate_scales = {f"backbone.{part}": scale for part, scale in scales.items()}
        self.pad, self.second_look = PADDINGS[padding](1), second_look
        self.to_cube = Equi2Cube(height, width, size)
        self.to_equi = Cube2Equi(size // kind.stride, height, width)
        channels = kind.channels or base_channels
        self.head = nn.Conv2d(channels, 1, 1)
        if kind.head.bias is not None:
            nn.init.constant_(self.head.get_parameter("bias"), kind.head.bias)
        self.projects_probabilities = kind.head.projects_probabilities
        self.prior_head = nn.Conv2d(channels, 1, 1) if local_prior else None
        if self.prior_head:  # the initial gate is 1 everywhere
            for parameter in self.prior_head.parameters():
                nn.init.zeros_(parameter)
        bias = gaze_density(LATITUDES, 1)
        bias = (bias / bias.max()).log().float().view(1, 1, LATITUDES)
        if latitude_bias:
            self.latitude_bias = nn.Parameter(bias)
        else:
            self.register_buffer("latitude_bias", torch.zeros_like(bias), persistent=False)
        front_bias = (front * longitude_density(width).log()).float()
        self.register_buffer("front_bias", front_bias, persistent=False)
        self.prior_share = prior_share
        prior = gaze_density(height, width if front else 1)
        self.register_buffer("prior", prior.float(), persistent=False)
        self.register_buffer("areas", solid_angles(height, width), persistent=False)

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        logits, latitude_bias = self.logits(frames, motion)
        logits = logits + latitude_bias
        if not self.training:
            logits = logits + self.front_bias
        maps = logits.sigmoid()
        if self.prior_share and not self.training:
            integral = (maps * self.areas).sum((-2, -1), keepdim=True)
            maps = torch.lerp(maps, integral * self.prior, self.prior_share).clamp(max=1)
        return maps.unflatten(0, frames.shape[:2])

    def logits(self, frames: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Return image logits (B·T, 1, H, W) and the latitude bias; the map is sigmoid(sum)."""
        clips, channels = torch.cat([frames, motion], dim=2), self.arguments["in_channels"]
        if clips.shape[2] != channels:
            given = f"got {frames.shape[2]} + {motion.shape[2]}"
            raise ValueError(f"expected 3 + {channels - 3} channels of frames and motion, {given}")
        faces = self.to_cube(clips.flatten(0, 1)).contiguous(memory_format=torch.channels_last)
        looks = [self.read(faces)] if self.second_look < 1 else []
        if self.second_look:
            looks.append(enlarge(self.read(avg_pool2d(faces, 2)), self.pad))
        logits = self.fuse(*looks) if len(looks) > 1 else looks[0]
        if self.projects_probabilities:
            logits = self.to_equi(logits.sigmoid()).logit(PROBABILITY_EPS)
        else:
            logits = self.to_equi(logits)
        rows = clips.shape[-2]
        latitude_bias = interpolate(self.latitude_bias, size=rows, mode="linear").unsqueeze(-1)
        if self.prior_head:
            latitude_bias = 2 * logits[:, 1:].sigmoid() * latitude_bias
        return logits[:, :1], latitude_bias

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the mean of the image logits of two looks, and the lower of their local priors."""
        image = torch.lerp(first[:, :1], second[:, :1], self.second_look)
        return torch.cat([image, torch.minimum(first[:, 1:], second[:, 1:])], dim=1)

    def read(self, faces: Tensor) -> Tensor:
        """Return image logits, and those of the local prior if there is one: (B·T·6, 1 or 2, S, S).

        faces: (B·T·6, C, S', S'), which the backbone turns into features of S×S.
        """
        features = self.backbone(faces)
        heads = [self.head, self.prior_head] if self.prior_head else [self.head]
        return torch.cat([head(features) for head in heads], dim=1).float()
