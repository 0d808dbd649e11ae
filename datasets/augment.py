"""Augmentations of training clips that are valid on the sphere, chosen by name.

Each takes an item of SaliencyVideos, a random generator and the class of the item's motion, which
lists the valid ones. It returns a new item, all of whose images and fixations are changed alike.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.components import AUGMENTATIONS, MOTIONS
from projection.resampling import Resampling
from projection.sphere import directions, equirectangular_taps
from video.motion import GREY, Motion
from video.pictures import unit

Augmentation = Callable[[dict, np.random.Generator, type[Motion]], dict]
IMAGES = ("frames", "motion", "target", "fixations")
MAX_TILT = math.radians(10)


def possible(names: Sequence[str], motion: str) -> list[str]:
    """Return the augmentations that are valid for a motion."""
    return [name for name in names if name in MOTIONS[motion].augmentations]


class Augmented(Dataset):
    """A training data set with random augmentation.

    data: SaliencyVideos, or another data set of such items with a `spec`.
    names: keys of AUGMENTATIONS. seed: any integer.

    An item's key is (epoch, index). Its augmentation depends only on the key and the seed.
    Raises ValueError for augmentations that are not valid for the motion of `data.spec`.
    """

    def __init__(self, data: Any, names: Sequence[str], seed: int):
        self.data, self.names, self.seed = data, names, seed % 2**32
        motion = data.spec.motion
        if impossible := " ".join(sorted(set(names) - set(possible(names, motion)))):
            raise ValueError(f"{impossible}: not valid with motion {motion}; leave it out")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        item = self.data[index]
        if {"tilt", "light"} & {*self.names}:  # their values no longer fit 8 bits
            item |= {name: unit(item[name]) for name in ("frames", "motion")}
        random = np.random.default_rng([self.seed, epoch, index])
        for name, change in AUGMENTATIONS.items():
            if name in self.names:
                item = change(item, random, MOTIONS[self.data.spec.motion])
        return item


def _change_images(item: dict, change: Callable[[Tensor], Tensor]) -> dict:
    return item | {name: change(item[name]) for name in IMAGES if name in item}


def yaw(item: dict, random: np.random.Generator, motion: type[Motion]) -> dict:
    """Rotate the clip about the vertical axis by a whole number of columns."""
    shift = int(random.integers(item["frames"].shape[-1]))
    return _change_images(item, lambda image: image.roll(shift, -1))


def mirror(item: dict, random: np.random.Generator, motion: type[Motion]) -> dict:
    """Mirror the clip horizontally with probability 1/2."""
    return item if random.random() < 0.5 else _change_images(item, lambda image: image.flip(-1))


def tilt(item: dict, random: np.random.Generator, motion: type[Motion]) -> dict:
    """Rotate the clip by up to MAX_TILT about a random horizontal axis, with bilinear sampling.

    Fixations are dropped, because counts can't be interpolated. Targets keep a maximum of 1.
    """
    angle, azimuth = random.uniform(0, MAX_TILT), random.uniform(0, 2 * math.pi)
    height, width = item["frames"].shape[-2:]
    axis = np.array([math.sin(azimuth), 0, math.cos(azimuth)])
    rotation = torch.from_numpy(cv2.Rodrigues(angle * axis)[0])
    points = directions(height, width, torch.float64) @ rotation
    turn = Resampling(*equirectangular_taps(points, height, width), (height, width))
    item = {name: value for name, value in item.items() if name != "fixations"}
    item = _change_images(item, turn)
    peak = item["target"].amax((-2, -1), keepdim=True)
    item["target"] /= peak.clamp(min=torch.finfo(peak.dtype).tiny)
    return item


def light(item: dict, random: np.random.Generator, motion: type[Motion]) -> dict:
    """Change contrast, brightness, saturation and hue.

    Saturation and hue scale and rotate the colour's difference from grey, so the grey value stays.
    A motion that is proportional to the contrast is scaled with it.
    """
    contrast, saturation = random.uniform(0.75, 1.33), random.uniform(0.6, 1.4)
    brightness, hue = random.uniform(-0.1, 0.1), random.uniform(-0.3, 0.3)
    frames = item["frames"]
    grey = torch.tensordot(frames, GREY, dims=([-3], [0])).unsqueeze(-3)
    red, _, blue = (frames - grey).unbind(-3)
    cos, sin = saturation * math.cos(hue), saturation * math.sin(hue)
    red, blue = cos * red - sin * blue, sin * red + cos * blue
    green = -(GREY[0] * red + GREY[2] * blue) / GREY[1]
    middle = grey.mean()
    grey = middle + contrast * (grey - middle) + brightness
    frames = (grey + contrast * torch.stack([red, green, blue], -3)).clamp(0, 1)
    if motion.scales_with_contrast:
        item = item | {"motion": (contrast * item["motion"]).clamp(max=1)}
    return item | {"frames": frames}
