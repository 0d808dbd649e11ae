"""Motion images, chosen by name: the model's information on motion in the scene.

Optical flow, (2, H, W), is the displacement of pixels of the current frame since the previous one,
in columns to the right and rows downwards, estimated without an edge at ±180°.
"""

import threading
from collections.abc import Callable
from functools import cache

import cv2
import torch
from torch import Tensor

from common.components import MOTIONS
from projection.sphere import latitudes
from video import raft

MIN_FLOW = 1e-4  # pixels; smaller flow is noise
STEADY = 0.03  # mean difference at which SteadyDifference is 1/e of Difference
GREY = torch.tensor([0.299, 0.587, 0.114])  # luma of ITU-R BT.601


class Motion:
    """Compute the motion image (channels, H, W) in [0, 1] of a sampled frame.

    previous (None for the first frame), current: (3, H, W) RGB in [0, 1].
    """

    channels: int
    augmentations: tuple[str, ...] = ("yaw",)  # under which it stays valid
    scales_with_contrast = False  # whether it is proportional to the contrast of the frames
    marks_movement = False  # whether it is high where something moves before a steady camera alone
    from_pictures = False  # whether to use a data set's flow pictures
    eight_bits = False  # whether its values have 8 bits

    def __call__(self, previous: Tensor | None, current: Tensor) -> Tensor:
        raise NotImplementedError

    @classmethod
    def problem(cls) -> str:
        """Return the problem of a user-defined motion, "" if nothing."""
        stated = isinstance(getattr(cls, "channels", None), int)
        return "" if stated else "has no number of channels; set the class's `channels`"


class NoMotion(Motion):
    """No motion image: (0, H, W)."""

    channels = 0
    augmentations = ("yaw", "mirror", "tilt", "light")

    def __call__(self, previous: Tensor | None, current: Tensor) -> Tensor:
        return current.new_empty(0, *current.shape[-2:])


class Difference(Motion):
    """|grey_t − grey_{t−1}| of consecutive sampled frames, zero for the first: (1, H, W)."""

    channels = 1
    augmentations: tuple[str, ...] = ("yaw", "mirror", "tilt", "light")
    scales_with_contrast = True

    def __call__(self, previous: Tensor | None, current: Tensor) -> Tensor:
        if previous is None:
            return current.new_zeros(1, *current.shape[-2:])
        return torch.tensordot(GREY, current - previous, dims=1).abs_()[None]


class SteadyDifference(Difference):
    """Difference × exp(−(m / STEADY)²), suppressed while the camera moves: (1, H, W).

    m is its largest mean over 90° of longitude within 45° of the horizon.
    """

    scales_with_contrast = False
    marks_movement = True
    augmentations = ("yaw", "mirror")

    def __call__(self, previous: Tensor | None, current: Tensor) -> Tensor:
        difference = super().__call__(previous, current)
        height, width = current.shape[-2:]
        rows, quarter = slice(height // 4, height - height // 4), max(1, width // 4)
        areas = latitudes(height)[rows].cos().float()
        columns = areas @ difference[0, rows] / areas.sum()
        total = torch.cat([columns.new_zeros(1), columns, columns[: quarter - 1]]).cumsum(0)
        mean = (total[quarter:] - total[:-quarter]).max() / quarter
        return difference * (-((mean / STEADY) ** 2)).exp()


class ColourDifference(Motion):
    """Grey value of |RGB_t − RGB_{t−1}| in 8 bits, as in the published U-Net: (1, H, W)."""

    channels = 1
    augmentations = ("yaw", "mirror", "tilt")  # it changes with saturation and hue
    eight_bits = True

    def __call__(self, previous: Tensor | None, current: Tensor) -> Tensor:
        change = torch.zeros_like(current) if previous is None else (current - previous).abs()
        pixels = (255 * change).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        return torch.from_numpy(cv2.cvtColor(pixels.numpy(), cv2.COLOR_RGB2GRAY))[None] / 255


class FlowImage(Motion):
    """Optical flow as a colour-wheel image, RGB in [0, 1]: (3, H, W). White means no motion.

    Subclasses define flow(current, previous) of (3, H, W) images: the displacement, (2, H, W)
    pixels, from each pixel of `current` to its place in `previous`.
    """

    channels = 3
    augmentations = ("yaw", "light")  # its colours depend on directions in the image
    from_pictures = eight_bits = True
    flow: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, previous: Tensor | None, current: Tensor) -> Tensor:
        if previous is None:
            return current.new_ones(3, *current.shape[-2:])
        width = current.shape[-1]
        margin = width // 4
        columns = torch.arange(-margin, width + margin) % width
        back = self.flow(current[..., columns], previous[..., columns])
        return flow_colours(-back[..., margin : margin + width])


class DISFlow(FlowImage):
    """Dense inverse search (Kroeger et al., ECCV 2016) as in OpenCV, fast on CPUs."""

    def __init__(self):
        self.estimate = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(self, current: Tensor, previous: Tensor) -> Tensor:
        frames = torch.stack([current, previous], dim=1)
        grey = (torch.tensordot(GREY, frames, dims=1) * 255).round().to(torch.uint8).numpy()
        return torch.from_numpy(self.estimate.calc(*grey, None)).permute(2, 0, 1)


class RAFTFlow(FlowImage):
    """RAFT (Teed and Deng, ECCV 2020) with the weights in checkpoints/raft*.pth, for GPUs."""

    def __init__(self):
        self.weights = raft.find_weights()

    def flow(self, current: Tensor, previous: Tensor) -> Tensor:
        return raft.estimate_flow(raft.load_raft(self.weights), current, previous)


def flow_colours(flow: Tensor) -> Tensor:
    """Return flow (2, H, W) as RGB in [0, 1], (3, H, W): hue is direction, saturation speed.

    Speed is relative to the frame's maximum; less than MIN_FLOW is white. The colours are those of
    RAFT's demo (Baker et al., IJCV 2011), at most 1/255 off.
    """
    from torchvision.utils import flow_to_image  # slow to import

    moving = flow.abs().max() > MIN_FLOW
    return flow_to_image(flow * moving).float() / 255


def motion_estimator(name: str) -> Motion:
    """Return a motion's estimator, one for each thread, as OpenCV's flow can't be shared."""
    return _estimator(name, threading.get_ident())


@cache
def _estimator(name: str, thread: int) -> Motion:
    return MOTIONS[name]()
