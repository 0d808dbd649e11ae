"""Motion channels, chosen by name: what a model sees of how the scene moves.

Flow says how far what is at a pixel of the current frame has moved since the previous one:
(2, H, W), columns to the right and rows downwards. It is estimated on a picture that is
continued beyond ±180° by its other side, so that it has no edge there.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn

from cli import InputError

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


class FlowImage:
    """Optical flow as colour-wheel image, RGB in [0, 1]: (3, H, W). White where nothing moves.

    Subclasses define flow(current, previous) for (3, H, W) images whose width is continued:
    where each pixel of `current` is in `previous`, (2, H, W) pixels.
    """

    channels = 3

    def __call__(self, previous: Tensor | None, current: Tensor) -> Tensor:
        if previous is None:
            return current.new_ones(3, *current.shape[-2:])
        width = current.shape[-1]
        margin = width // 4
        columns = torch.arange(-margin, width + margin) % width
        back = self.flow(current[..., columns], previous[..., columns])
        return flow_colours(-back[..., margin : margin + width])

    def flow(self, current: Tensor, previous: Tensor) -> Tensor:
        raise NotImplementedError


class DISFlow(FlowImage):
    """Dense inverse search (Kroeger et al., ECCV 2016) as in OpenCV: for CPUs."""

    def __init__(self):
        self.estimate = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(self, current: Tensor, previous: Tensor) -> Tensor:
        grey = [
            (torch.tensordot(GREY, frame, dims=1) * 255).round().to(torch.uint8).numpy()
            for frame in (current, previous)
        ]
        return torch.from_numpy(self.estimate.calc(*grey, None)).permute(2, 0, 1)


class RAFTFlow(FlowImage):
    """RAFT (Teed and Deng, ECCV 2020) as in torchvision: for GPUs.

    weights: a file of torchvision's raft_large or raft_small, or the authors' raft-sintel.pth
    (or raft-things.pth, raft-kitti.pth, …); checkpoints/raft*.pth if None.
    """

    def __init__(self, weights: str | Path | None = None, device: str | None = None):
        self.path = find_raft(weights)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def network(self) -> nn.Module:
        return load_raft(self.path).to(self.device)

    @torch.inference_mode()
    def flow(self, current: Tensor, previous: Tensor) -> Tensor:
        height, width = current.shape[-2:]
        rows = torch.arange(math.ceil(height / 8) * 8).clamp(max=height - 1)
        columns = torch.arange(math.ceil(width / 8) * 8).clamp(max=width - 1)
        pair = torch.stack([current, previous])[:, :, rows][..., columns].to(self.device) * 2 - 1
        return self.network(pair[:1], pair[1:])[-1][0, :, :height, :width].cpu()


def colour_wheel() -> Tensor:
    """Middlebury's wheel of 55 colours (Baker et al., IJCV 2011): (55, 3), 0 to 255."""
    wheel = []
    # From one corner of the RGB cube to the next, in so many steps.
    corners = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))
    for n, steps in enumerate((15, 6, 4, 11, 13, 6)):
        start, end = torch.tensor(corners[n]), torch.tensor(corners[(n + 1) % 6])
        change = (255 * torch.arange(steps) / steps).floor()[:, None]
        wheel.append(start + change * (end - start).sign())
    return torch.cat(wheel)


WHEEL = colour_wheel()


def flow_colours(flow: Tensor) -> Tensor:
    """Flow (2, H, W) as RGB in [0, 1], (3, H, W): direction is hue, speed is saturation.

    As RAFT's demo draws it, in 8 bits: speed in parts of the frame's largest + 1e-5.
    """
    flow = flow / (flow.square().sum(0).sqrt().max() + 1e-5)
    u, v = flow
    position = (torch.atan2(-v, -u) / math.pi + 1) / 2 * (len(WHEEL) - 1)
    first = position.floor()
    share = (position - first)[..., None]
    first = first.long()
    hue = torch.lerp(WHEEL[first], WHEEL[(first + 1) % len(WHEEL)], share) / 255
    colour = 1 - torch.hypot(u, v)[..., None] * (1 - hue)
    return ((255 * colour).floor() / 255).permute(2, 0, 1)


CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
RAFT_FILES = (
    "raft_large_C_T_SKHT_V2-ff5fadd5.pth or raft_small_C_T_V2-01064c6d.pth from "
    "https://download.pytorch.org/models/, or raft-sintel.pth, which download_models.sh of "
    "https://github.com/princeton-vl/RAFT fetches"
)


def find_raft(weights: str | Path | None) -> Path:
    if weights is None:
        found = sorted(CHECKPOINTS.glob("raft*.pth"))
        if not found:
            raise InputError(
                f"{CHECKPOINTS}: no raft*.pth for RAFT flow; put {RAFT_FILES} there, or give "
                "the file's path to RAFTFlow(weights=…), or take the motion dis, which needs none"
            )
        return found[0]
    if not Path(weights).is_file():
        raise InputError(f"{weights}: no such file of RAFT weights; get {RAFT_FILES}")
    return Path(weights)


def load_raft(path: Path) -> nn.Module:
    """torchvision's network with the weights in a file, in eval mode."""
    from torchvision.models.optical_flow import raft_large, raft_small  # slow to import

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        weights = torchvision_names(weights)
        small = len(weights["feature_encoder.convnormrelu.0.weight"]) == 32
        network = (raft_small if small else raft_large)(weights=None)
        network.load_state_dict(weights)
    except Exception as error:
        raise InputError(
            f"{path}: not the weights of a RAFT known here; get {RAFT_FILES}"
        ) from error
    return network.eval()


# Parts of the authors' parameter names and what torchvision calls them, first match first.
RAFT_NAMES: tuple[tuple[str, str | Callable], ...] = (
    (r"^module\.", ""),
    (r"^([fc])net\.", lambda m: {"f": "feature", "c": "context"}[m[1]] + "_encoder."),
    (r"_encoder\.conv1\.", "_encoder.convnormrelu.0."),
    (r"_encoder\.norm1\.", "_encoder.convnormrelu.1."),
    (r"_encoder\.conv2\.", "_encoder.conv."),
    (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(layer\d\.\d)\.norm([12])\.", r"\1.convnormrelu\2.1."),
    (r"block\.encoder\.convc(\d)\.", r"block.motion_encoder.convcorr\1.0."),
    (r"block\.encoder\.convf(\d)\.", r"block.motion_encoder.convflow\1.0."),
    (r"block\.encoder\.conv\.", "block.motion_encoder.conv.0."),
    (r"block\.gru\.conv([zrq])(\d)\.", r"block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)


def torchvision_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of raft_large by the authors' names or torchvision's, by torchvision's."""
    if "feature_encoder.convnormrelu.0.weight" in weights:
        return weights
    renamed = {}
    for name, tensor in weights.items():
        if ".norm3." in name:  # the same tensor again as downsample.1
            continue
        for theirs, ours in RAFT_NAMES:
            name = re.sub(theirs, ours, name)
        renamed[name] = tensor
    return renamed


# Each is called with the previous sampled frame (None for the first) and the current one,
# (3, H, W) RGB in [0, 1], and returns its motion image, (channels, H, W) in [0, 1].
MOTIONS = {"none": NoMotion, "difference": Difference, "dis": DISFlow, "raft": RAFTFlow}


def with_motion(spec, name: str | None, source):
    """The Spec with another way to estimate its motion, itself if `name` is None.

    Raises InputError where that gives another number of channels than the model of `source`,
    which the message names, takes.
    """
    if name and MOTIONS[name].channels != MOTIONS[spec.motion].channels:
        raise InputError(f"--motion {name}: {source} takes {spec.motion}")
    return replace(spec, motion=name) if name else spec
