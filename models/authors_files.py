"""The weight files that SST-Sal's authors released, read without running code from them.

They are pickles of the authors' whole module, two classes deep. Here every class in them is an
empty stand-in, and any other name that a file asks for is refused; see common/restricted_pickle.py.
"""

import math
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from common.restricted_pickle import check_archive, containers, read_pickle
from models.sst_sal import SSTSal

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
