"""Motion channels, chosen by name: what a model sees of how the scene moves."""

import torch
from torch import Tensor

GREY = torch.tensor([0.299, 0.587, 0.114])  # luma of ITU-R BT.601


class NoMotion:
    """Nothing: (0, H, W)."""

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


# Each is called with the previous sampled frame (None for the first) and the current one,
# (3, H, W) RGB in [0, 1], and returns its motion image, (channels, H, W) in [0, 1].
MOTIONS = {"none": NoMotion, "difference": Difference}
