"""Small networks, and checkpoints with something changed in them."""

import torch

from models import CubeUNet


def small_unet(**arguments):
    torch.manual_seed(0)
    return CubeUNet(**{"base_channels": 4, "height": 40, "width": 80, **arguments})


def changed(checkpoint, path, change):
    stored = torch.load(checkpoint, weights_only=True)
    change(stored)
    torch.save(stored, path)
    return path
