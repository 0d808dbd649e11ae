"""SST-Sal: saliency of 360° video by a recurrent encoder and decoder on the sphere.

Bernal-Berdun, Martin, Gutierrez, Masia, "SST-Sal: A spherical spatio-temporal approach for
saliency prediction in 360° videos", Computers & Graphics 106, 2022.
"""

import torch
from torch import Tensor, nn

from models.base import SaliencyModel, Spec
from models.sphere_layers import ConvLSTMCell, SphereMaxPool2d, to_images
from projection.sphere import Resampling, directions, equirectangular_taps


class Encoder(nn.Module):
    """ConvLSTM at full resolution and spherical pooling to half of it."""

    def __init__(self, in_channels: int, hidden_channels: int, **geometry):
        super().__init__()
        self.lstm = ConvLSTMCell(in_channels, hidden_channels, **geometry)
        self.pool = SphereMaxPool2d(stride=2, **geometry)


class Decoder(nn.Module):
    """ConvLSTM at half resolution whose hidden state, one channel, is the saliency."""

    def __init__(self, in_channels: int, **geometry):
        super().__init__()
        self.lstm = ConvLSTMCell(in_channels, 1, **geometry)


class SSTSal(SaliencyModel):
    """Clips to saliency maps; every clip starts from a zero state.

    in_channels: 6 (frames and colour-wheel images of flow) or 3 (frames alone; the authors'
        variant has 9 hidden channels).
    sampling: how the sphere is read, see models/sphere_taps.py.
        "reference" returns the decoder's raw state in (−1, 1), each value in 2×2 pixels, as
        the original does. "seamless" enlarges bilinearly over the seam and the poles and takes
        away each frame's minimum: the map is then non-negative and what the spherical KL,
        which scales every map to [0, 1] itself, sees of it; neither its value nor its
        gradient is changed by that.
    half_pixel: in seamless sampling, whether taps keep the half-pixel shift of the original,
        which its weights are trained for. Off for new training.

    The published learning rate of 0.8 belongs to 240×320: the spherical KL of a map shrinks
    with its number of pixels, so the Spec's learning rate grows with it.
    """

    name = "sst_sal"

    def __init__(
        self,
        in_channels: int = 6,
        hidden_channels: int = 36,
        sampling: str = "seamless",
        half_pixel: bool = False,
        height: int = 240,
        width: int = 320,
    ):
        if in_channels not in (3, 6):
            raise ValueError(f"in_channels is 6 (with flow) or 3 (without), got {in_channels}")
        if height % 2 or width % 4:
            raise ValueError(f"height must be even and width a multiple of 4, got {height}×{width}")
        spec = Spec(
            height=height,
            width=width,
            fps=8.0,
            clip_length=20,
            warm_up=4,
            fade=4 if sampling == "seamless" else 0,  # 0: the original's windows
            motion="dis" if in_channels == 6 else "none",
        )
        super().__init__(
            spec,
            in_channels=in_channels,
            hidden_channels=hidden_channels,
            sampling=sampling,
            half_pixel=half_pixel,
            height=height,
            width=width,
        )
        read = {"sampling": sampling, "half_pixel": half_pixel}
        half = {"height": height // 2, "width": width // 2}
        self.encoder = Encoder(in_channels, hidden_channels, height=height, width=width, **read)
        self.decoder = Decoder(hidden_channels, **half, **read)
        self.small = (height // 2, width // 2)
        if sampling == "seamless":
            points = directions(height, width, torch.float64).view(-1, 3)
            self.enlarge = Resampling(*equirectangular_taps(points, *self.small))

    @classmethod
    def arguments_for(cls, motion_channels: int) -> dict:
        """The authors' two variants: with flow, and a smaller one without."""
        return {"in_channels": 3 + motion_channels, "hidden_channels": 36 if motion_channels else 9}

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        """frames (B, T, 3, H, W) and motion (B, T, 3 or 0, H, W), RGB → (B, T, 1, H, W).

        Always in float32 or more: the recurrence amplifies rounding.
        """
        with torch.autocast(frames.device.type, enabled=False):
            return self._forward(frames, motion)

    def _forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        expected = (self.spec.height, self.spec.width)
        channels = frames.shape[2] + motion.shape[2]
        if frames.shape[-2:] != expected or channels != self.arguments["in_channels"]:
            raise ValueError(
                f"this SSTSal takes {self.arguments['in_channels']} channels of "
                f"{expected[0]}×{expected[1]}, got {channels} of "
                f"{frames.shape[-2]}×{frames.shape[-1]}"
            )
        encoder, decoder, maps = None, None, []
        for rgb, flow in zip(frames.unbind(1), motion.unbind(1), strict=True):
            bgr = torch.cat([rgb.flip(1), flow.flip(1)], dim=1)  # the weights' order of channels
            encoder = self.encoder.lstm(bgr.flatten(2).transpose(1, 2), encoder)
            decoder = self.decoder.lstm(self.encoder.pool.pixels(encoder[0]), decoder)
            maps.append(self.present(decoder[0]))
        return torch.stack(maps, dim=1)

    def present(self, pixels: Tensor) -> Tensor:
        """Raw state at half size, (B, H/2·W/2, 1) → map (B, 1, H, W)."""
        if self.arguments["sampling"] == "reference":
            image = to_images(pixels, self.small)
            return image.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        image = self.enlarge(pixels.transpose(1, 2))
        image = image.unflatten(2, (self.spec.height, self.spec.width))
        return image - image.amin(dim=(-2, -1), keepdim=True)
