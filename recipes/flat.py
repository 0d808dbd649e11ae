"""Flat photographs for a CubeUNet: the network, its loss, and pictures with their ground truth."""

import math

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from losses import DensityLoss
from models import CubeUNet
from recipes.gaze_sources import Picture
from video.pictures import read_picture, unit

BLUR = 0.03  # standard deviation over the width: 3.34° where a photograph is 111° wide
MAP_WIDTH = 160  # pixels of a ground-truth map


class FlatUNet(nn.Module):
    """A CubeUNet that takes flat pictures, with the same weights and without a latitude bias.

    cube: shares its weights with the attribute `cube`, whose faces are padded by themselves; of
        that, a checkpoint loads as an ordinary CubeUNet.

    forward: RGB (N, 3, H, W) in [0, 1] → saliency (N, 1, H, W) in [0, 1]. The motion channels are
    zero. H and W are multiples of the step in the backbone's `faces`.
    """

    def __init__(self, cube: CubeUNet):
        super().__init__()
        self.cube = CubeUNet(**cube.arguments | {"padding": "replicate"})
        self.cube.load_state_dict(cube.state_dict(keep_vars=True), assign=True)
        self.cube.arguments = cube.arguments
        self.train(cube.training)

    def forward(self, rgb: Tensor) -> Tensor:
        count, channels, height, width = rgb.shape
        motion = rgb.new_zeros(count, self.cube.arguments["in_channels"] - channels, height, width)
        images = torch.cat([rgb, motion], dim=1).contiguous(memory_format=torch.channels_last)
        logits = self.cube.read(images)[:, :1]
        return nn.functional.interpolate(logits, (height, width), mode="bilinear").sigmoid()


def motion_levels(model: CubeUNet) -> list[tuple[nn.BatchNorm2d, nn.Conv2d]]:
    """Return the normalisations of the motion and the convolutions that read it."""
    channels = model.arguments["in_channels"] - 3
    levels = ((norm, conv) for norm, conv, _ in getattr(model.backbone, "levels", ()))
    return [(norm, conv) for norm, conv in levels if norm.num_features == channels]


class FlatDensityLoss(DensityLoss):
    """DensityLoss on a flat picture, in which every pixel counts the same."""

    @staticmethod
    def areas_of(height: int, width: int) -> Tensor:
        """Return the area of a pixel of each row, (H, 1) float64. All pixels sum to 4π."""
        return torch.full((height, 1), 4 * math.pi / (height * width), dtype=torch.float64)


def gaze_map(picture: Picture, height: int, width: int, blur: float = BLUR) -> np.ndarray:
    """Return the weighted fixations of a picture blurred by a Gaussian: float32 (H, W), maximum 1.

    blur: standard deviation as a share of the width. What is blurred beyond the edges is lost.
    """
    counts = np.zeros((height, width), np.float32)
    row = (picture.y * height).astype(int).clip(0, height - 1)
    column = (picture.x * width).astype(int).clip(0, width - 1)
    np.add.at(counts, (row, column), picture.weights.astype(np.float32))
    blurred = cv2.GaussianBlur(counts, (0, 0), blur * width, borderType=cv2.BORDER_CONSTANT)
    return blurred / blurred.max()


def to_tensor(rgb: np.ndarray) -> Tensor:
    """Return an (H, W, 3) uint8 picture as (3, H, W) float32 in [0, 1]."""
    return unit(torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1))


def resized(image: np.ndarray, height: int, width: int) -> Tensor:
    """Return a picture, uint8 (h, w, 3), at another size: RGB (3, H, W) in [0, 1]."""
    return to_tensor(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def read_item(picture: Picture, height: int, width: int) -> dict[str, Tensor]:
    """Return a photograph as a clip of one frame, in the format of datasets.SaliencyVideos.

    The ground-truth map is made in the photograph's own aspect ratio and then resized with it.

    Returns: frames (1, 3, H, W), motion (1, 0, H, W) and target (1, 1, H, W), all in [0, 1].
    Raises InputError where the file can't be read.
    """
    image = read_picture(picture.path)
    rows = round(MAP_WIDTH * image.shape[0] / image.shape[1])
    target = cv2.resize(gaze_map(picture, rows, MAP_WIDTH), (width, height))
    return {
        "frames": resized(image, height, width)[None],
        "motion": torch.zeros(1, 0, height, width),
        "target": torch.from_numpy(target / target.max())[None, None],
    }
