"""FastGaze, a small published network for flat pictures, used as a teacher.

L. Theis, I. Korshunova, A. Tejani, F. Huszár: "Faster gaze prediction with dense networks and
Fisher pruning", 2018. Twitter published 121,000 weights as `fastgaze.vxm`
(github.com/twitter-research/image-crop-analysis, Apache-2.0). The file is a list of names and
values; the layers are convolutions with their activation, poolings, and a Gaussian blur.
"""

import struct
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from common.errors import InputError

CONVOLUTION, POOLING, GAUSSIAN = 0, 2, 3  # types of layers
RELU, LEAKY = 1, 4  # types of activations; others are none
MEAN_BGR = np.array([103.9, 116.8, 123.7], np.float32)
WIDTHS = 480, 800  # pixels of the panoramas whose densities are averaged
MARGIN = 1 / 8  # of the width: what is repeated beyond the seam


class Gaussian(nn.Module):
    """Blurs (B, 1, H, W), whose edges are repeated."""

    def __init__(self, size: int, sigma: float):
        super().__init__()
        weights = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * sigma**2))
        self.register_buffer("weights", weights / weights.sum())
        self.pad = nn.ReplicationPad2d(size // 2)

    def forward(self, x: Tensor) -> Tensor:
        columns = nn.functional.conv2d(self.pad(x), self.weights.view(1, 1, -1, 1))
        return nn.functional.conv2d(columns, self.weights.view(1, 1, 1, -1))


def read_entries(path: Path) -> dict[str, bytes]:
    """Return the values in a .vxm file by name. Raises InputError for any other file."""
    content, position, entries = path.read_bytes(), 8, {}

    def part() -> bytes:
        nonlocal position
        (length,) = struct.unpack_from("<I", content, position)
        position += 4 + length
        return content[position - length : position]

    try:
        while position < len(content):
            name = part().rstrip(b"\0").decode()
            entries[name] = part()
    except (struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a .vxm file ({error}); download it again") from error
    return entries


def load_fastgaze(path: Path) -> nn.Sequential:
    """Return FastGaze: BGR minus MEAN_BGR (B, 3, H, W) → log-density (B, 1, H / 16, W / 16).

    Raises InputError for a file that holds another network.
    """
    entries = read_entries(path)

    def number(name: str, kind: str = "<i4"):
        return np.frombuffer(entries[name], kind)[0].item()

    layers: list[nn.Module] = []
    try:
        for k in range(number("layerCount")):
            if (kind := number(f"{k}Type")) == CONVOLUTION:
                shape = np.frombuffer(entries[f"{k}w.shape"], "<i4").tolist()
                weight = np.frombuffer(entries[f"{k}w"], "<f4").reshape(shape)
                conv = nn.Conv2d(shape[1], shape[0], shape[2:], padding=shape[-1] // 2)
                conv.weight.data = torch.from_numpy(weight.copy())
                conv.bias.data = torch.from_numpy(np.frombuffer(entries[f"{k}b"], "<f4").copy())
                layers.append(conv)
                if (activation := number(f"{k}Act")) == LEAKY:
                    layers.append(nn.LeakyReLU(number(f"{k}alpha", "<f4")))
                elif activation == RELU:
                    layers.append(nn.ReLU())
            elif kind == POOLING:
                layers.append(nn.MaxPool2d(number(f"{k}Pool")))
            elif kind == GAUSSIAN:
                layers.append(Gaussian(number(f"{k}KernelSize"), number(f"{k}Std")))
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{path}: not FastGaze ({error}); download it again") from error
    return nn.Sequential(*layers).eval().requires_grad_(False)


@torch.inference_mode()
def panorama_density(network: nn.Module, image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return what FastGaze says of a panorama: float32 (height, width) with mean 1.

    image: RGB uint8 (H, W, 3). It is taken as a flat picture that goes on beyond its seam.
    """
    total = np.zeros((height, width), np.float32)
    for wide in WIDTHS:
        size = wide, wide // 2
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1] - MEAN_BGR
        margin = round(MARGIN * wide)
        around = np.pad(small, ((0, 0), (margin, margin), (0, 0)), mode="wrap")
        logs = network(torch.from_numpy(around).permute(2, 0, 1)[None])[0, 0].float().numpy()
        cut = round(logs.shape[1] * margin / around.shape[1])
        density = np.exp(logs[:, cut : logs.shape[1] - cut] - logs.max())
        total += cv2.resize(density / density.mean(), (width, height))
    return total / len(WIDTHS)
