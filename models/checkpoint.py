"""Checkpoints: a model's weights with everything that is needed to restore it.

No code is imported or executed because of a file: a user-defined model, backbone or motion must be
imported with `Components.find` before.
"""

import hashlib
import io
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.components import BACKBONES, MODELS, MOTIONS, Components
from common.devices import choose_device
from common.errors import InputError
from common.files import atomic, reading
from common.restricted_pickle import read_torch
from models.authors_files import FIRST_WEIGHT, from_state_dict, read_authors_file
from models.base import PLAIN, SaliencyModel

MAX_WEIGHT = 1e10  # far beyond trained weights, with half of float32's range to spare
ENTRY_TYPES: dict[str, Any] = dict(arguments=PLAIN, weights=Tensor, spec=PLAIN, run=(*PLAIN, list))
OTHERWISE = (
    "damaged ({}), or not a checkpoint of this project, of SST-Sal's authors or of the published "
    "cube U-Net; copy it again or train one with train_video.py"
)


def save(path: str | Path, model: SaliencyModel, **facts) -> None:
    """Write a model's weights, with everything that is needed to restore it, atomically.

    facts: further entries (epoch, metrics, data, …), plain Python or tensors. Raises OSError if the
    file can't be written.
    """
    content = {
        "model": model.name,
        "arguments": model.arguments,
        "spec": asdict(model.spec),
        "weights": model.state_dict(),
        **facts,
    }
    file = io.BytesIO()  # torch.save to a file hides the reason of a failure
    torch.save(content, file)
    with atomic(path) as temporary:
        temporary.write_bytes(file.getvalue())  # getbuffer() can crash Python 3.12.1


def load(
    path: str | Path, device: str | torch.device = "cpu", quality: str | None = None, **overrides
) -> SaliencyModel:
    """Return the model of a checkpoint, or of any other file that `read` accepts, in eval mode.

    quality: "fast": use frames of three quarters of the height and width (CubeUNet only).
    overrides: arguments of the model that replace the stored ones. All fields of the stored Spec
        that do not depend on them are kept.
    Raises InputError for a file without a known model, for arguments and weights that do not
    match, and for an unavailable device.

    >>> model = load("checkpoints/cube_unet_best.pth")
    >>> model.name, model.spec.motion, model.training
    ('cube_unet', 'steady_difference', False)
    """
    device = choose_device(str(device), "device ")
    content = read(path)
    kind, arguments, spec = MODELS[content["model"]], content["arguments"], content["spec"]
    if quality and quality not in kind.qualities:
        raise InputError(f"{path}: {kind.name} has no quality '{quality}'; leave it out")
    try:
        model = kind(**arguments)
        own = asdict(model.spec)
        if quality:
            sides = {side: int(kind.qualities[quality] * own[side]) for side in ("height", "width")}
            overrides = sides | overrides
        if overrides:
            arguments = arguments | overrides
            model = kind(**arguments)
            new = asdict(model.spec)
            spec = {
                n: v for n, v in spec.items() if own.get(n) == new.get(n) and n not in overrides
            }
        put_weights(model, content["weights"])
        stored = replace(model.spec, **spec)
        if (stored.height, stored.width) != (model.spec.height, model.spec.width):
            raise ValueError("its spec has another frame size")
        model.use_motion(stored.motion)
        model.spec = stored
    except (ValueError, TypeError) as error:
        what = f"{path}: as {content['model']}({arguments})"
        raise InputError(f"{what}: {error}; leave out arguments, or use another file") from error
    return model.to(device).eval()


def put_weights(model: SaliencyModel, weights: dict[str, Tensor]) -> None:
    """Replace all weights. Raises ValueError for weights that do not match or are not finite."""
    own = model.state_dict()
    try:
        for name, tensor in weights.items():
            if name not in own or tensor.shape != own[name].shape:
                continue  # load_state_dict refuses it; with a stride of 0 it could be endless
            if tensor.is_floating_point() != own[name].is_floating_point():
                raise ValueError(f"weight '{name}' is {tensor.dtype}, not {own[name].dtype}")
            if not (tensor.double().abs() <= MAX_WEIGHT).all():
                raise ValueError(f"weight '{name}' is not finite or too large")
        model.load_state_dict(weights)
    except RuntimeError as error:  # also NotImplementedError, for weights without numbers
        raise ValueError(f"its weights do not fit: {str(error)[:300]}") from error


def read(path: str | Path) -> dict:
    """Return all entries of a checkpoint or of the authors' files, on the CPU.

    The authors' files are those of SST-Sal and state_dicts of the published cube U-Net. The entries
    include "model", "arguments", "weights", "spec" and "run"; the last two may be empty. Raises
    InputError for a file without a model in MODELS.
    """
    with reading(path, OTHERWISE) as path:
        try:
            content = read_torch(path)
            if FIRST_WEIGHT in content:
                content = from_state_dict(content)
        except pickle.UnpicklingError:  # the file has not only tensors in plain containers
            content = read_authors_file(path)
        content = {"spec": {}, "run": {}} | content
        for entry, kind in ENTRY_TYPES.items():
            for name, value in content[entry].items():
                if not isinstance(name, str) or not isinstance(value, kind):
                    raise TypeError(f"'{name}' in '{entry}'")
        check_known(path, MODELS, content["model"])
        check_known(path, MOTIONS, content["spec"].get("motion", "none"))
        for argument, known in MODELS[content["model"]].components.items():
            if argument in content["arguments"]:
                check_known(path, known, content["arguments"][argument])
    return content


def check_known(path: Path, known: Components, name: Any) -> None:
    """Raise InputError for a checkpoint with an unknown component."""
    if name not in known:
        what = f"its {known.noun} is {str(name)[:100]!r}, not one of {', '.join(known)}"
        cure = f"if you trust its code, add --{known.noun} package.module:NAME"
        more = " (to train, --model_args backbone=…)" * (known is BACKBONES)
        raise InputError(f"{path}: {what}; {cure}{more}")


def sha256(path: str | Path) -> str:
    """Return a file's SHA-256 digest as a hexadecimal string."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
