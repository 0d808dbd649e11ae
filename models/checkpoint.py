"""Checkpoints, both this project's and the weight files that SST-Sal's authors released.

A checkpoint names its model and holds the arguments that build it again, so that loading needs no
option. The authors' files are pickles of their whole module; `restricted_pickle` reads them.
Nothing in a file of either kind is imported or executed: a model of one's own is imported where its
name is given to `find_model`, never where a checkpoint names it.
"""

import hashlib
import importlib
import inspect
import io
import math
import os
import pickle
import re
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import InputError, show_tracebacks
from common.files import atomic, reading
from common.restricted_pickle import containers, read_pickle, read_torch
from models.base import SaliencyModel
from models.cube_unet import CubeUNet
from models.equator_prior import EquatorPrior
from models.sst_sal import SSTSal

MODELS: dict[str, type[SaliencyModel]] = {m.name: m for m in (CubeUNet, SSTSal, EquatorPrior)}

AUTHORS_CLASSES = (
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
LARGEST = 64 << 20  # bytes of an authors' file; theirs have 0.2 MiB
PLAIN = (bool, int, float, str, type(None))  # types of a model's arguments
QUARTERS = {"fast": 3, "best": 5}  # of a frame's sides that a CubeUNet looks at, by quality
LARGEST_WEIGHT = 1e10  # no training leads to such a number, and half of float32's range is left


def save(path: str | Path, model: SaliencyModel, **facts) -> None:
    """Write a model's weights, with all that is needed to build it again, atomically.

    facts: whatever else is worth knowing (epoch, metrics, data, …), plain Python or tensors.
    Raises OSError where the file can't be written; a previous file of that name stays.
    """
    content = {
        "model": model.name,
        "arguments": model.arguments,
        "spec": asdict(model.spec),
        "weights": model.state_dict(),
        **facts,
    }
    file = io.BytesIO()  # torch's own writing to a file hides why it failed
    torch.save(content, file)
    with atomic(path) as temporary:
        temporary.write_bytes(file.getvalue())  # getbuffer() can crash Python 3.12.1


def find_model(name: str) -> type[SaliencyModel]:
    """Return the model in MODELS of a name, or import "package.module:Class" and add it there.

    The current folder is searched last. A class without a name of its own is called after its
    module. Errors of the module's own code are not caught.
    Raises InputError for what is no model, or one that a checkpoint can't build again.
    """
    if name in MODELS:
        return MODELS[name]
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        known = ", ".join(MODELS)
        raise InputError(f"no model '{name}'; give {known} or your own as package.module:Class")
    home, _, class_name = name.partition(":")
    show_tracebacks()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        kind = getattr(importlib.import_module(home), class_name, None)
    except ModuleNotFoundError as error:
        if not f"{home}.".startswith(f"{error.name}."):
            raise  # the module is there, but not one that it imports
        raise InputError(f"{name}: there is no module '{error.name}'; check the name") from error
    if not isinstance(kind, type) or not issubclass(kind, SaliencyModel):
        raise InputError(f"{name}: not a subclass of models.SaliencyModel; check the name")
    for argument in inspect.signature(kind).parameters.values():
        if not isinstance(argument.default, PLAIN):
            kinds = "a number, a text, True, False or None"
            raise InputError(
                f"{name}: its constructor takes '{argument}'; give that a default, {kinds}"
            )
    if "name" not in vars(kind):
        kind.name = f"{kind.__module__}:{kind.__qualname__}"
    if not re.fullmatch(r"[\w.:-]+", str(kind.name)):
        raise InputError(f"{name}: its name is {kind.name!r}; give it one of letters and digits")
    if MODELS.setdefault(kind.name, kind) is not kind:
        raise InputError(f"{name}: another model has the name '{kind.name}'; give it another one")
    return kind


def load(
    path: str | Path, device: str | torch.device = "cpu", quality: str | None = None, **overrides
) -> SaliencyModel:
    """Return the model in a checkpoint or in a file of SST-Sal's authors, in eval mode.

    quality: of a CubeUNet; "fast": it looks at frames of three quarters of the height and width;
        "best": at frames of five quarters, twice, the second time at three fifths of these.
    overrides: arguments of the model that replace the stored ones. The stored Spec is kept in all
        that they do not determine.
    Raises InputError for a file that holds no model known here, or other weights or another Spec
    than the arguments ask for, and ValueError for another quality.

    >>> model = load("checkpoints/cube_unet_best.pth")
    >>> model.name, model.spec.motion, model.training
    ('cube_unet', 'difference', False)
    """
    if quality not in (None, *QUARTERS):
        raise ValueError(f"quality is one of {', '.join(QUARTERS)}, got {quality!r}")
    content = read(path)
    kind, arguments = MODELS[content["model"]], content["arguments"] | overrides
    if quality and not issubclass(kind, CubeUNet):
        raise InputError(f"{path}: holds the model '{kind.name}', of one quality; leave it out")
    try:
        before = kind(**content["arguments"]).spec if overrides or quality else None
        if quality:
            sizes = {n: overrides.get(n, getattr(before, n)) for n in ("height", "width")}
            overrides |= {n: size * QUARTERS[quality] // 4 for n, size in sizes.items()}
            arguments |= overrides
        model = kind(**arguments)
        put_weights(model, content["weights"])
        if "spec" in content:
            before = before or model.spec
            determined = {n for n in asdict(before) if getattr(before, n) != getattr(model.spec, n)}
            determined |= overrides.keys()
            kept = {n: value for n, value in content["spec"].items() if n not in determined}
            model.spec = replace(model.spec, **kept)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: as {content['model']}({arguments}): {error}; leave out arguments that change "
            "it, or use another checkpoint"
        ) from error
    if quality == "best":
        model.scales = (1, 0.6)
    return model.to(device).eval()


def put_weights(model: SaliencyModel, weights: dict[str, Tensor]) -> None:
    """Replace all weights of a model.

    Raises ValueError where names, shapes or kinds of numbers differ, or a number is no weight.
    """
    own, misfit = model.state_dict(), "its weights do not fit"
    if differing := sorted(own.keys() ^ weights.keys()):
        raise ValueError(f"{misfit}, '{differing[0]}' is not in both")
    for name, tensor in weights.items():
        there = own[name]
        if tensor.shape != there.shape or tensor.is_floating_point() != there.is_floating_point():
            found = f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise ValueError(f"{misfit}, '{name}' is {found}, not {tuple(there.shape)}")
        if not (tensor.double().abs() <= LARGEST_WEIGHT).all():
            raise ValueError(f"weight '{name}' is not finite or too large")
    model.load_state_dict(weights)


def read(path: str | Path) -> dict:
    """Return everything that a checkpoint holds, tensors on the CPU.

    A file of SST-Sal's authors holds "model", "arguments" and "weights" alone.
    Raises InputError for a file that holds no model known here.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint; train one with train_video.py")
    otherwise = "damaged, or not a checkpoint of this project or of SST-Sal's authors"
    with reading(path, f"{otherwise}; copy it again or train one with train_video.py"):
        content = _content(path)
    name = content.get("model") if isinstance(content, dict) else None
    if isinstance(name, str) and name not in MODELS:
        raise InputError(
            f"{path}: its model is {name[:100]!r}, not one of {', '.join(MODELS)}; if you trust "
            "the code of that model, say where it is with the option '--model package.module:Class'"
        )
    if not isinstance(name, str):
        raise InputError(
            f"{path}: not a checkpoint of one of {', '.join(MODELS)}; use one that "
            "train_video.py wrote"
        )
    with reading(path, "an entry is missing or damaged ({}); copy the file again"):
        for name, kind in (("arguments", PLAIN), ("weights", Tensor), ("spec", PLAIN)):
            for key, value in content.get(name, {} if name == "spec" else None).items():
                if not isinstance(key, str) or not isinstance(value, kind):
                    raise TypeError(f"'{key}' in '{name}'")
        if any(t.layout != torch.strided or t.is_quantized for t in content["weights"].values()):
            raise TypeError("its weights are not plain numbers")
        content["run"] = dict(content.get("run", {}))
    return content


def sha256(path: str | Path) -> str:
    """Return a file's SHA-256 digest as a hexadecimal string."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _content(path: Path):
    try:
        return read_torch(path) if zipfile.is_zipfile(path) else _authors_content(path)
    except pickle.UnpicklingError:  # the file holds more than tensors in plain containers
        return _authors_content(path)


def _authors_content(path: Path) -> dict:
    """Return what a checkpoint of SSTSal would hold, from one of its authors' files.

    The model keeps the half-pixel shift that the weights are trained for; see models/sst_sal.py.
    """
    if path.stat().st_size > LARGEST:
        raise ValueError("larger than a file of SST-Sal's authors")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # not compressed, as read_torch has seen
            entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    else:
        entries = {"data.pkl": path.read_bytes()}

    def read_storage(key: tuple) -> Tensor:
        """Return the numbers of ("storage", type, name, device, size) as a flat tensor."""
        _, _, name, _, size = key
        content = bytearray(entries[f"data/{name}"])
        if len(content) != 4 * size:
            raise ValueError(f"storage {name} has {len(content)} bytes for {size} numbers")
        return torch.frombuffer(content, dtype=torch.float32)

    def rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_) -> Tensor:
        if math.prod(size) > storage.numel():
            raise ValueError(f"a tensor of {size} in a storage of {storage.numel()} numbers")
        return storage.as_strided(size, stride, offset).clone()  # refuses to leave the storage

    constructors = containers() | {
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
        **{name: type(name, (nn.Module,), {}) for name in AUTHORS_CLASSES},  # no code of theirs
    }
    root = read_pickle(entries["data.pkl"], path, constructors, read_storage)
    weights = dict(nn.Module.named_parameters(root))
    gates, channels = weights["encoder.lstm.conv.weight"].shape[:2]
    hidden = gates // 4
    arguments = {"in_channels": channels - hidden, "hidden_channels": hidden, "half_pixel": True}
    return {"model": SSTSal.name, "arguments": arguments, "weights": weights}
