"""Reads the weight files that SST-Sal's authors released: pickles of their whole module.

A pickle can run any code when it is loaded. Here nothing is imported or executed for it: the
classes that those files name become inert objects that keep their attributes, tensors are
rebuilt from the file's own numbers, and any other global is refused by name.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from cli import InputError
from models.sst_sal import SSTSal

MODULES = {
    ("models", "SST_Sal"),
    ("Modules", "SpherConvLSTM_EncoderCell"),
    ("Modules", "SpherConvLSTM_DecoderCell"),
    ("Modules", "SpherConvLSTMCell"),
    ("spherenet.sphere_cnn", "SphereConv2D"),
    ("spherenet.sphere_cnn", "SphereMaxPool2D"),
    ("torch.nn.modules.pooling", "MaxPool2d"),
    ("torch.nn.modules.upsampling", "Upsample"),
}
PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
}
WEIGHTS = {f"{p}.lstm.conv.{kind}" for p in ("encoder", "decoder") for kind in ("weight", "bias")}
LARGEST = 64 << 20  # bytes of one entry; theirs have 0.2 MiB


def is_official(path: str | Path) -> bool:
    """Whether a file holds a pickled object where this project's checkpoints hold a dictionary.

    Only looks at the first bytes. Such a file is either one of the authors' or refused by
    `load_official`.
    """
    try:
        head = _pickle(path, 64)
    except (OSError, zipfile.BadZipFile, KeyError):
        return False
    return head[:1] == b"\x80" and head[2:3] != b"}"


def load_official(path: str | Path, device: str | torch.device = "cpu", **overrides) -> SSTSal:
    """The model in one of the authors' files, in eval mode, with its spec.

    Its taps keep the half-pixel rule that the weights are trained for; see models/sst_sal.py.
    overrides: arguments of SSTSal, such as sampling="reference".
    """
    weights = read_official(path)
    gates, channels = weights["encoder.lstm.conv.weight"].shape[:2]
    hidden = gates // 4
    arguments = {"in_channels": channels - hidden, "hidden_channels": hidden, "half_pixel": True}
    try:
        model = SSTSal(**(arguments | overrides))
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: its weights do not fit SSTSal({arguments | overrides}); leave out "
            "arguments that change the weights' shapes"
        ) from error
    return model.to(device).eval()


def read_official(path: str | Path) -> dict[str, Tensor]:
    """The weights in one of the authors' files, by the parameter names of SSTSal."""
    try:
        root = _Reader(path).load()
        weights = dict(_parameters(root, ""))
    except InputError:
        raise
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        raise InputError(
            f"{path}: damaged, or not one of SST-Sal's released weight files ({error}); "
            "download it again"
        ) from error
    if type(root).__name__ != "SST_Sal" or weights.keys() != WEIGHTS:
        raise InputError(
            f"{path}: holds {type(root).__name__} with {', '.join(weights) or 'no weights'} where "
            "SST-Sal's released weight files hold the weights of two cells; use one of those"
        )
    return weights


def _pickle(path: str | Path, size: int = -1) -> bytes:
    """The first bytes of a torch file's pickle, or of a bare pickle file."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            return file.read(size)
    with zipfile.ZipFile(path) as archive, archive.open(_entry(archive, "data.pkl")) as file:
        return file.read(size)


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The entry that torch.save wrote under that name, in whatever folder."""
    for info in archive.infolist():
        if info.filename.partition("/")[2] == name:
            if info.file_size > LARGEST:
                raise ValueError(f"{name} has {info.file_size} bytes")
            return info
    raise KeyError(f"no {name} in the archive")


class _Reader(pickle.Unpickler):
    def __init__(self, path: str | Path):
        super().__init__(io.BytesIO(_pickle(path, LARGEST)))
        self.path = path
        # Made anew for each file, so that nothing a pickle does to them lasts.
        self.known = {(home, name): type(name, (), {}) for home, name in MODULES}
        self.known |= PLAIN
        self.known["torch", "FloatStorage"] = "float32"
        self.known["torch._utils", "_rebuild_tensor_v2"] = lambda *a: _tensor(*a)
        self.known["torch._utils", "_rebuild_parameter"] = lambda data, *_: data

    def find_class(self, module: str, name: str):
        if (module, name) not in self.known:
            raise InputError(
                f"{self.path}: asks for {module}.{name}, which SST-Sal's weights do not need; "
                "nothing of the file was loaded. Use the file that its authors released"
            )
        return self.known[module, name]

    def persistent_load(self, key) -> Tensor:
        """A storage: ("storage", type, number, device, size)."""
        kind, dtype, number, _, size = key
        if kind != "storage" or dtype != "float32":
            raise ValueError(f"storage of kind {kind!r}, type {dtype!r}")
        with zipfile.ZipFile(self.path) as archive:
            content = bytearray(archive.read(_entry(archive, f"data/{number}")))
        if len(content) != 4 * size:
            raise ValueError(f"storage {number} has {len(content)} bytes for {size} numbers")
        return torch.frombuffer(content, dtype=torch.float32)


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_) -> Tensor:
    if math.prod(size) > storage.numel():
        raise ValueError(f"a tensor of {size} in a storage of {storage.numel()} numbers")
    return storage.as_strided(size, stride, offset).clone()  # refuses to leave the storage


def _parameters(module, prefix: str):
    """(name, tensor) of every parameter in a tree of stand-ins."""
    for name, tensor in module.__dict__.get("_parameters", {}).items():
        if isinstance(tensor, Tensor):
            yield prefix + name, tensor
    for name, child in module.__dict__.get("_modules", {}).items():
        yield from _parameters(child, f"{prefix}{name}.")
