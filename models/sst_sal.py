"""SST-Sal: a recurrent encoder and decoder on the sphere for saliency of 360° video.

Bernal-Berdun, Martin, Gutierrez, Masia, "SST-Sal: A spherical spatio-temporal approach for
saliency prediction in 360° videos", Computers & Graphics 106, 2022.
"""

import torch
from torch import Tensor, nn

from models.base import SaliencyModel
from models.sphere_layers import ConvLSTMCell, SphereMaxPool2d, to_images, to_pixels
from models.sphere_taps import SphereTaps
from projection.resampling import Resampling
from projection.sphere import directions, equirectangular_taps
from video.spec import MAX_PIXELS, Spec, check_number


class SSTSal(SaliencyModel):
    """Recurrent network from clips to saliency maps; each clip starts from a state of zeros.

    The encoder is a ConvLSTM at full resolution and spherical pooling to half of it; the decoder
    is a ConvLSTM at half resolution with one hidden channel, which is the saliency.

    in_channels: 6 (frames and colour-wheel images of optical flow) or 3 (frames alone; the
        authors' variant has 9 hidden channels).
    sampling: of the image on the sphere, see models/sphere_taps.py.
        "reference" returns the decoder's raw state, in (−1, 1), each value in 2×2 pixels, as
        the authors' code does. "seamless" enlarges it bilinearly across the seam and the poles
        and subtracts each frame's minimum, which does not change the loss.
    half_pixel: whether seamless sampling keeps the half-pixel shift of the authors' code, as their
        weights require. False for new training.
    height, width: input size in pixels; the height is even, the width a multiple of 4.

    forward: frames (B, T, 3, H, W) and motion (B, T, in_channels − 3, H, W), RGB in [0, 1] →
    (B, T, 1, H, W), computed in at least float32 even under autocast, because the recurrence
    amplifies rounding errors. Raises ValueError for another size or number of channels; so does the
    constructor for invalid arguments.

    >>> model = SSTSal(in_channels=3, hidden_channels=2, height=8, width=16)
    >>> model(torch.rand(1, 5, 3, 8, 16), torch.rand(1, 5, 0, 8, 16)).shape
    torch.Size([1, 5, 1, 8, 16])
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
            raise ValueError(f"in_channels must be 6 (with flow) or 3 (without), got {in_channels}")
        check_number("hidden_channels", hidden_channels, 1, 512)
        if height * width > MAX_PIXELS // 4:  # nine taps need more memory than one pixel
            raise ValueError(f"SSTSal takes at most {MAX_PIXELS // 4} pixels: {height}×{width}")
        if height % 2 or width % 4:
            raise ValueError(f"height must be even and width a multiple of 4, got {height}×{width}")
        fade = 4 if sampling == "seamless" else 0  # 0 gives the authors' windows
        motion = "dis" if in_channels == 6 else "none"
        spec = Spec(height, width, 8.0, clip_length=20, warm_up=4, fade=fade, motion=motion)
        super().__init__(
            spec,
            in_channels=in_channels,
            hidden_channels=hidden_channels,
            sampling=sampling,
            half_pixel=half_pixel,
            height=height,
            width=width,
        )
        self.half_size = (height // 2, width // 2)
        full = SphereTaps(height, width, 1, sampling, half_pixel)
        pooling = SphereTaps(height, width, 2, sampling, half_pixel)
        half = SphereTaps(*self.half_size, 1, sampling, half_pixel)
        encoder = ConvLSTMCell(in_channels, hidden_channels, full)
        self.encoder = nn.ModuleDict({"lstm": encoder, "pool": SphereMaxPool2d(pooling)})
        self.decoder = nn.ModuleDict({"lstm": ConvLSTMCell(hidden_channels, 1, half)})
        if sampling == "seamless":
            taps = equirectangular_taps(directions(height, width, torch.float64), *self.half_size)
            self.enlarge = Resampling(*taps, self.half_size)

    @classmethod
    def arguments_for(cls, motion_channels: int) -> dict:
        """Return the arguments of the authors' two variants: with flow, and smaller without."""
        return {"in_channels": 3 + motion_channels, "hidden_channels": 36 if motion_channels else 9}

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        given = frames.shape[2] + motion.shape[2], *frames.shape[-2:]
        wanted = self.arguments["in_channels"], self.spec.height, self.spec.width
        if given != wanted:
            channels = "{} channels of {}×{} pixels, got {} of {}×{}".format(*wanted, *given)
            raise ValueError(f"this SSTSal takes {channels}")
        encoder, decoder, maps = None, None, []
        with torch.autocast(frames.device.type, enabled=False):
            for images in zip(frames.unbind(1), motion.unbind(1), strict=True):
                encoder, decoder = self.step(images, encoder, decoder)
                maps.append(self.to_map(decoder[0]))
        return torch.stack(maps, dim=1)

    def step(self, images, encoder, decoder) -> tuple[tuple, tuple]:
        """Return the states of encoder and decoder after RGB images (B, C, H, W)."""
        bgr = torch.cat([image.flip(1) for image in images], dim=1)  # the weights' channel order
        encoder = self.encoder["lstm"](to_pixels(bgr), encoder)
        return encoder, self.decoder["lstm"](self.encoder["pool"](encoder[0]), decoder)

    def to_map(self, state: Tensor) -> Tensor:
        """Turn the decoder's hidden state, (H/2·W/2, B, 1), into maps, (B, 1, H, W)."""
        image = to_images(state, self.half_size)
        if self.arguments["sampling"] == "reference":
            return image.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        image = self.enlarge(image)
        return image - image.amin(dim=(-2, -1), keepdim=True)
