"""Changes of training clips at random that are right on the sphere, chosen by name.

Each is called with an item of SaliencyVideos and a random generator and returns the changed
item; a clip is changed as a whole. What it does to the frames it does to their motion and
their truth:

    yaw     any rotation about the vertical axis: frames, motion and truth roll
    mirror  left and right change places, every other time
    tilt    a rotation of up to 10° about a horizontal axis
    light   contrast, brightness, saturation and hue; the difference of grey values follows
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cli import InputError
from projection.sphere import Resampling, directions, equirectangular_taps
from video.motion import GREY, MOTIONS

IMAGES = ("frames", "motion", "target")
MAX_TILT = math.radians(10)


def possible(names: Sequence[str], motion: str, flat: bool = False) -> list[str]:
    """Those of some changes that motion images of this kind can follow.

    flat: the frames are flat pictures, which have no axis to turn about.
    """
    wrong = {"mirror", "tilt"} if MOTIONS[motion].channels == 3 else set()
    wrong |= {"yaw", "tilt"} if flat else set()
    return [name for name in names if name not in wrong]


class Augmented(Dataset):
    """The items of a data set for training, each changed at random.

    Asked for as (epoch, index); what happens to an item depends on these and the seed alone,
    not on the worker that reads it or on what was read before.

    Raises InputError for changes that pictures of flow can't follow, whose colours stand for
    directions in the image, and for those that flat pictures can't.
    """

    def __init__(self, data, names: Sequence[str], seed: int, flat: bool = False):
        self.data, self.names, self.seed = data, names, seed % 2**32
        motion = data.spec.motion
        if impossible := set(names) - set(possible(names, motion, flat)):
            what = "flat pictures" if flat else f"the colours of flow (--motion {motion})"
            given = " ".join(sorted(impossible))
            raise InputError(f"--augment {given}: {what} can't follow; leave it out")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        item = self.data[index]
        random = np.random.default_rng([self.seed, epoch, index])
        for name, change in AUGMENTATIONS.items():
            if name in self.names:
                item = change(item, random)
        return item


def yaw(item: dict, random: np.random.Generator) -> dict:
    shift = int(random.integers(item["frames"].shape[-1]))
    return item | {name: item[name].roll(shift, -1) for name in (*IMAGES, *_fixations(item))}


def mirror(item: dict, random: np.random.Generator) -> dict:
    if random.random() < 0.5:
        return item
    return item | {name: item[name].flip(-1) for name in (*IMAGES, *_fixations(item))}


def tilt(item: dict, random: np.random.Generator) -> dict:
    angle, azimuth = random.uniform(0, MAX_TILT), random.uniform(0, 2 * math.pi)
    height, width = item["frames"].shape[-2:]
    points = directions(height, width, torch.float64).view(-1, 3) @ rotation(angle, azimuth)
    turn = Resampling(*equirectangular_taps(points, height, width))
    item = {name: value for name, value in item.items() if name != "fixations"}  # are counts
    item |= {name: turn(item[name].flatten(-2)).unflatten(-1, (height, width)) for name in IMAGES}
    peak = item["target"].amax((-2, -1), keepdim=True)
    item["target"] /= peak.clamp(min=torch.finfo(peak.dtype).tiny)  # a target's maximum is 1
    return item


def light(item: dict, random: np.random.Generator) -> dict:
    """Colour is what differs from grey, so turning and scaling it leaves the grey value alone;
    contrast scales the grey values' difference by its own factor, brightness not at all.
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
    motion = item["motion"]
    if motion.shape[-3] == 1:
        motion = (contrast * motion).clamp(max=1)
    return item | {"frames": frames, "motion": motion}


def rotation(angle: float, azimuth: float) -> Tensor:
    """Turns directions by an angle about the horizontal axis at a longitude: (3, 3) float64."""
    x, z = math.sin(azimuth), math.cos(azimuth)
    cross = torch.tensor([[0, -z, 0], [z, 0, -x], [0, x, 0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(angle * cross)


def _fixations(item: dict) -> tuple[str, ...]:
    return ("fixations",) if "fixations" in item else ()


AUGMENTATIONS = {"yaw": yaw, "mirror": mirror, "tilt": tilt, "light": light}
