"""Motion images, chosen by name: what a model gets to know about how the scene moves.

Optical flow states how far the content of each pixel of the current frame has moved since the
previous one: (2, H, W), columns to the right and rows downwards. It is estimated on pictures that
continue beyond ±180° with their other side, so that it has no edge there.
"""

import math
from collections.abc import Callable
from typing import Protocol

import cv2
import torch
from torch import Tensor

from common.options import MOTION_NAMES
from video import raft

GREY = torch.tensor([0.299, 0.587, 0.114])  # luma of ITU-R BT.601


class Motion(Protocol):
    """Makes the motion image (channels, H, W) of the current sampled frame.

    previous (None for the first frame), current: (3, H, W) RGB. All are in [0, 1].
    """

    channels: int

    def __call__(self, previous: Tensor | None, current: Tensor) -> Tensor: ...


class NoMotion:
    """No motion image: (0, H, W)."""

    channels = 0

    def __call__(self, previous: Tensor | None, current: Tensor) -> Tensor:
        return current.new_empty(0, *current.shape[-2:])


class Difference:
    """|grey_t − grey_{t−1}| of consecutive sampled frames, zero for the first: (1, H, W)."""

    channels = 1

    def __call__(self, previous: Tensor | None, current: Tensor) -> Tensor:
        if previous is None:
            return current.new_zeros(1, *current.shape[-2:])
        return torch.tensordot(GREY, current - previous, dims=1).abs()[None]


class FlowImage:
    """Optical flow as colour-wheel image, RGB in [0, 1]: (3, H, W). White where nothing moves.

    Subclasses define flow(current, previous) of (3, H, W) images: where each pixel of `current`
    is in `previous`, (2, H, W) pixels.
    """

    channels = 3
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


def colour_wheel() -> Tensor:
    """Return Middlebury's wheel of 55 colours (Baker et al., IJCV 2011): (55, 3), 0 to 255."""
    wheel = []
    # From each of these corners of the RGB cube to the next, in 15, 6, 4, … steps.
    corners = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))
    for n, steps in enumerate((15, 6, 4, 11, 13, 6)):
        start, end = torch.tensor(corners[n]), torch.tensor(corners[(n + 1) % 6])
        change = (255 * torch.arange(steps) / steps).floor()[:, None]
        wheel.append(start + change * (end - start).sign())
    return torch.cat(wheel)


WHEEL = colour_wheel()


def flow_colours(flow: Tensor) -> Tensor:
    """Return flow (2, H, W) as RGB in [0, 1], (3, H, W): direction is hue, speed is saturation.

    Colours are those of RAFT's demo, in 8 bits: speed is divided by the frame's largest + 1e-5.
    torchvision.utils.flow_to_image divides by the largest + 1e-7 instead, so that a still frame's
    noise of 1e-6 pixels is shown in full colours; values of real clips differ by 1/255 at most.
    """
    flow = flow / (flow.square().sum(0).sqrt().max() + 1e-5)
    u, v = flow
    position = (torch.atan2(-v, -u) / math.pi + 1) / 2 * (len(WHEEL) - 1)
    first = position.long()
    share = (position - first)[..., None]
    hue = torch.lerp(WHEEL[first], WHEEL[(first + 1) % len(WHEEL)], share) / 255
    colour = 1 - torch.hypot(u, v)[..., None] * (1 - hue)
    return ((255 * colour).floor() / 255).permute(2, 0, 1)


KINDS: tuple[type[Motion], ...] = (NoMotion, Difference, DISFlow, RAFTFlow)
MOTIONS = dict(zip(MOTION_NAMES, KINDS, strict=True))
