"""The weight files of the two systems' authors, read without running code from them.

Those that SST-Sal's released are pickles of their whole module, two classes deep. Here every class
in them is an empty stand-in, and any other name that a file asks for is refused; see
common/restricted_pickle.py. The published cube U-Net's are a state_dict.
"""

import math
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from common.restricted_pickle import check_archive, containers, read_pickle
from models.sst_sal import SSTSal
from video.spec import HIGHEST_FPS

FIRST_WEIGHT = "enc1.c1.conv.weight"  # of a state_dict that the published cube U-Net's code saves
ENCODER = {"enc1": "stem", "enc2": "down.0", "enc3": "down.1", "enc4": "down.2"}
DECODER = {"dec1": "up.2", "dec2": "up.1", "dec3": "up.0"}
OURS = {  # names of layers in CubeUNet by those in that code
    f"{theirs}.{layer}": f"backbone.{ours}.{place}"
    for theirs, ours in (ENCODER | DECODER).items()
    for layer, place in (("c1.conv", 1), ("c1.bn", 2), ("c2.conv", 5), ("c2.bn", 6))
}
CLASSES = (
    "models.SST_Sal",
    "Modules.SpherConvLSTM_EncoderCell",
    "Modules.SpherConvLSTM_DecoderCell",
    "Modules.SpherConvLSTMCell",
    "spherenet.sphere_cnn.SphereConv2D",
    "spherenet.sphere_cnn.SphereMaxPool2D",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.upsampling.Upsample",
    "torch.FloatStorage",
)


def read_authors_file(path: Path) -> dict:
    """Return the model's name, arguments and weights, as a checkpoint of SSTSal has them.

    Raises InputError for a file that asks for another class or function, and an error of any kind
    for a file that is damaged or holds something else.
    """
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}

    def read_storage(key: tuple) -> Tensor:
        """Return the numbers of ("storage", type, name, device, size) as a flat tensor."""
        return torch.frombuffer(bytearray(entries[f"data/{key[2]}"]), dtype=torch.float32)

    def rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_) -> Tensor:
        if math.prod(size) > storage.numel():  # a stride of 0 could repeat numbers without end
            raise ValueError(f"a tensor of {size} in a storage of {storage.numel()} numbers")
        return storage.as_strided(size, stride, offset).clone()  # refuses to leave the storage

    constructors = containers() | {
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
        **{name: type(name, (nn.Module,), {}) for name in CLASSES},
    }
    root = read_pickle(entries["data.pkl"], path, constructors, read_storage)
    weights = dict(nn.Module.named_parameters(root))
    gates, channels = weights["encoder.lstm.conv.weight"].shape[:2]
    hidden = gates // 4
    arguments = {"in_channels": channels - hidden, "hidden_channels": hidden, "half_pixel": True}
    return {"model": SSTSal.name, "arguments": arguments, "weights": weights}


def from_state_dict(weights: dict[str, Tensor]) -> dict:
    """Return what a checkpoint would hold of a state_dict of the published cube U-Net.

    Its authors take the motion between consecutive frames, so the spec states the highest rate.
    Raises an error of any kind for other weights.
    """
    base, channels = weights[FIRST_WEIGHT].shape[:2]
    arguments = {"in_channels": channels, "base_channels": base, "backbone": "published"}
    named = {}
    for name, tensor in weights.items():
        layer, _, kind = name.rpartition(".")
        named[f"{OURS.get(layer, layer)}.{kind}"] = tensor
    spec = {"fps": HIGHEST_FPS}
    return {"model": "cube_unet", "arguments": arguments, "spec": spec, "weights": named}
