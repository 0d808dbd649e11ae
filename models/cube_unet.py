"""Cube-padded U-Net (Vo 2020), with the cube padding of Cheng et al. 2018."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.base import SaliencyModel, Spec
from models.efficientnet_lite import LiteReadout
from models.equator_prior import gaze_density
from projection import Cube2Equi, CubePadding, Equi2Cube


class DoubleConv(nn.Sequential):
    """Twice: padding, 3×3 convolution, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, padding: Callable[[int], nn.Module]):
        layers = []
        for channels in (in_channels, out_channels):
            layers += [
                padding(1),
                nn.Conv2d(channels, out_channels, 3, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet(nn.Module):
    """Encoder and decoder with skip connections on cube faces of any size.

    Pooling keeps the last row and column of faces that do not halve evenly, and the way up
    doubles each pixel and crops, so that pixels meet their own skip connection exactly.
    Doubling by repetition needs no neighbour; the convolution after it sees across edges.

    padding: padding(p) is a module that adds p pixels on each side.

    forward: (B·6, C, S, S) → (B·6, base_channels, S, S), S >= 17 (two pixels at the bottom).
    """

    def __init__(self, in_channels: int, base_channels: int, padding: Callable[[int], nn.Module]):
        super().__init__()
        widths = [base_channels * m for m in (1, 2, 4, 8, 8)]
        self.stem = DoubleConv(in_channels, widths[0], padding)
        self.down = nn.ModuleList(DoubleConv(*pair, padding) for pair in pairwise(widths))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        outputs = [base_channels, base_channels, *widths[1:-2]]  # of each level, finest first
        below = [*outputs[1:], widths[-1]]
        self.up = nn.ModuleList(
            DoubleConv(skip + low, out, padding)
            for skip, low, out in zip(widths[:-1], below, outputs, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.stem(x)]
        for down in self.down:
            skips.append(down(self.pool(skips[-1])))
        x = skips.pop()
        for up in reversed(self.up):
            skip = skips.pop()
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
            if x.shape[-2:] != skip.shape[-2:]:
                x = x[..., : skip.shape[-2], : skip.shape[-1]]
            x = up(torch.cat([skip, x], dim=1))
        return x


LATITUDES = 33  # at which the logarithm of the latitude prior is learned


class CubeUNet(SaliencyModel):
    """A U-Net over the six cube faces of each frame: RGB and one motion channel.

    A cube face does not know where on the sphere it is, and people look at the horizon first.
    So what the network sees, a logit a pixel, is added to a logit a latitude, which begins as
    the equator prior's and is learned: it can be outvoted above and below.

    encoder: "plain", the published network; or "efficientnet_lite0", in its place a readout from
        features learned on photographs (models/efficientnet_lite.py), for which
        recipes/pretrained.py makes a checkpoint to --init from. It works at a quarter of the
        resolution, on faces of 96, 128, 160, … pixels. base_channels is the plain one's.
    height, width: of the equirectangular frames that the projections are built for once;
    frames of another size work too, on faces of width // 4, and build theirs at each call.
    flat: frames are flat pictures instead, the weights the same. The network sees them as they
    are; beyond their edges they are repeated, and no latitude is preferred.

    forward: frames (B, T, 3, H, W), motion (B, T, in_channels − 3, H, W) → (B, T, 1, H, W)
    in [0, 1]. Raises ValueError where the channels don't match.
    """

    name = "cube_unet"

    def __init__(
        self,
        in_channels: int = 4,
        base_channels: int = 32,
        height: int = 240,
        width: int = 480,
        face_size: int | None = None,
        encoder: str = "plain",
        flat: bool = False,
    ):
        motion = {3: "none", 4: "difference", 6: "dis"}.get(in_channels)
        if motion is None:
            raise ValueError(f"in_channels is 3 (RGB), 4 (difference) or 6 (flow): {in_channels}")
        spec = Spec(
            height=height,
            width=width,
            motion=motion,
            loss="flat_density" if flat else "smse",
            optimizer="adamw",  # the published SGD with 1e-3 learns far slower, see README
            schedule="cosine",
            learning_rate=2e-3,
            weight_decay=1e-5,
        )
        super().__init__(
            spec,
            in_channels=in_channels,
            base_channels=base_channels,
            height=height,
            width=width,
            face_size=face_size,
            encoder=encoder,
            flat=bool(flat),
        )
        self.in_channels = in_channels
        if encoder not in ("plain", "efficientnet_lite0"):
            raise ValueError(f"encoder is 'plain' or 'efficientnet_lite0': {encoder!r}")
        size = face_size or width // 4
        smallest, step = (17, 1) if encoder == "plain" else (3 * LiteReadout.STEP, LiteReadout.STEP)
        for side in (height, width) if flat else (size,):
            if side < smallest or side % step:
                sizes = ", ".join(str(smallest + k * step) for k in range(3))
                what = "pictures" if flat else "faces"
                raise ValueError(f"{what} of {side} pixels; this network takes {sizes}, …")
        self.coarse = 1 if encoder == "plain" else 4  # pixels of a face that share one output
        self.flat, padding = bool(flat), nn.ReplicationPad2d if flat else CubePadding
        if not flat:
            self.to_cube, self.to_equi = self._projections(height, width, size)
        if encoder == "plain":
            self.unet = UNet(in_channels, base_channels, padding)
        else:
            self.unet = LiteReadout(in_channels, padding)
            self.slow = {"unet.encoder.": 0.1}
        self.unet.to(memory_format=torch.channels_last)
        self.head = nn.Conv2d(base_channels if encoder == "plain" else LiteReadout.OUT, 1, 1)
        nn.init.constant_(self.head.bias, -3.0)  # most of a saliency map is dark
        prior = gaze_density(LATITUDES, 1)
        prior = (prior / prior.max()).log().float().view(1, 1, LATITUDES)
        self.latitude = nn.Parameter(prior, requires_grad=not flat)

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        seen, latitude = self.logits(frames, motion)
        return (seen + latitude).sigmoid().unflatten(0, frames.shape[:2])

    def logits(self, frames: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """What the network sees and what a latitude adds, whose sum's sigmoid is the map.

        Returns: (B·T, 1, H, W) float32 and (1, 1, H, 1), zero where the frames are flat.
        """
        clips = torch.cat([frames, motion], dim=2)
        if clips.shape[2] != self.in_channels:
            raise ValueError(
                f"expected 3 + {self.in_channels - 3} channels of frames and motion, "
                f"got {frames.shape[2]} + {motion.shape[2]}"
            )
        height, width = clips.shape[-2:]
        images = clips.flatten(0, 1)
        if self.flat:
            seen = nn.functional.interpolate(self._see(images), (height, width), mode="bilinear")
            return seen, seen.new_zeros(1, 1, height, 1)
        to_cube, to_equi = self.to_cube, self.to_equi
        if (height, width) != (to_cube.height, to_cube.width):
            made = self._projections(height, width, width // 4)
            to_cube, to_equi = (p.to(clips.device) for p in made)
        latitude = nn.functional.interpolate(self.latitude, size=height, mode="linear")
        return to_equi(self._see(to_cube(images))), latitude.unsqueeze(-1)

    def _see(self, images: Tensor) -> Tensor:
        """Faces or flat pictures (N, C, H, W) → (N, 1, H/coarse, W/coarse) float32."""
        images = images.contiguous(memory_format=torch.channels_last)
        return self.head(self.unet(images)).float()

    def _projections(self, height: int, width: int, size: int) -> tuple[Equi2Cube, Cube2Equi]:
        return Equi2Cube(height, width, size), Cube2Equi(size // self.coarse, height, width)
