"""Readers for the weight files of the two systems' authors that run no code from them.

SST-Sal's files are pickles of whole modules. Here, an empty stand-in replaces each class in them,
and torch refuses any other name. The published cube U-Net's files are state_dicts.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.restricted_pickle import read_torch
from models.sst_sal import SSTSal
from video.spec import HIGHEST_FPS

FIRST_WEIGHT = "enc1.c1.conv.weight"  # in a state_dict saved by the published cube U-Net's code
ENCODER = {"enc1": "stem", "enc2": "down.0", "enc3": "down.1", "enc4": "down.2"}
DECODER = {"dec1": "up.2", "dec2": "up.1", "dec3": "up.0"}
LAYER_NAMES = {  # names of layers in CubeUNet by their names in that code
    f"{theirs}.{layer}": f"backbone.{ours}.{place}"
    for theirs, ours in (ENCODER | DECODER).items()
    for layer, place in (("c1.conv", 1), ("c1.bn", 2), ("c2.conv", 5), ("c2.bn", 6))
}
AUTHORS_CLASSES = (
    "models.SST_Sal",
    "Modules.SpherConvLSTM_EncoderCell",
    "Modules.SpherConvLSTM_DecoderCell",
    "Modules.SpherConvLSTMCell",
    "spherenet.sphere_cnn.SphereConv2D",
    "spherenet.sphere_cnn.SphereMaxPool2D",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.upsampling.Upsample",
)


def read_authors_file(path: Path) -> dict:
    """Return the model's name, arguments and weights, as in a checkpoint of SSTSal.

    Raises InputError for a file that contains another class or function, and an error of any kind
    for a file that is damaged or contains something else.
    """
    stand_ins: list = [(type(name, (nn.Module,), {}), name) for name in AUTHORS_CLASSES]
    with torch.serialization.safe_globals(stand_ins):
        if unsafe := torch.serialization.get_unsafe_globals_in_checkpoint(path):
            problem = f"contains {min(unsafe)[:100]}, and no code in it was executed"
            raise InputError(f"{path}: {problem}; use a file of SST-Sal's authors, or ours")
        weights = dict(nn.Module.named_parameters(read_torch(path)))
    gates, channels = weights["encoder.lstm.conv.weight"].shape[:2]
    hidden = gates // 4
    arguments = {"in_channels": channels - hidden, "hidden_channels": hidden, "half_pixel": True}
    return {"model": SSTSal.name, "arguments": arguments, "weights": weights}


def from_state_dict(weights: dict[str, Tensor]) -> dict:
    """Return a state_dict of the published cube U-Net as the content of a checkpoint.

    Its authors use the motion between consecutive frames, so the spec has the highest rate. Their
    weights need their own padding. Raises an error of any kind for other weights.
    """
    base, channels = weights[FIRST_WEIGHT].shape[:2]
    theirs = {"backbone": "published", "padding": "published"}
    arguments = {"in_channels": channels, "base_channels": base, **theirs}
    named = {}
    for name, tensor in weights.items():
        layer, _, kind = name.rpartition(".")
        named[f"{LAYER_NAMES.get(layer, layer)}.{kind}"] = tensor
    spec = {"fps": HIGHEST_FPS}
    return {"model": "cube_unet", "arguments": arguments, "spec": spec, "weights": named}
