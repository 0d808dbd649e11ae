"""Checkpoints that explain themselves: any of them is loaded without a flag."""

import hashlib
import pickle
from dataclasses import asdict
from pathlib import Path

import torch

from cli import InputError, atomic
from models.base import SaliencyModel, Spec
from models.cube_unet import CubeUNet
from models.equator_prior import EquatorPrior
from models.official import is_official, load_official
from models.sst_sal import SSTSal

MODELS: dict[str, type[SaliencyModel]] = {m.name: m for m in (CubeUNet, SSTSal, EquatorPrior)}


def save(path: str | Path, model: SaliencyModel, **facts) -> None:
    """Write the weights with all that is needed to build the model again, atomically.

    facts: whatever else is worth knowing (epoch, metrics, data, …): plain Python or tensors.
    Raises InputError where torch can't write; the file that was there before stays.
    """
    content = {
        "model": model.name,
        "arguments": model.arguments,
        "spec": asdict(model.spec),
        "weights": model.state_dict(),
        **facts,
    }
    try:
        with atomic(path) as temporary:
            torch.save(content, temporary)
    except RuntimeError as error:  # what torch makes of a write that fails
        raise InputError(
            f"{path}: can't be written, the disk may be full; free some space and run the same "
            "command again, the checkpoint before is still there"
        ) from error


def load(path: str | Path, device: str | torch.device = "cpu", **overrides) -> SaliencyModel:
    """The model in a checkpoint or in a file of SST-Sal's authors, in eval mode, with its spec.

    overrides: arguments of the model that replace the stored ones.
    Raises InputError for a file that is no checkpoint of a model known here.
    """
    if Path(path).is_file() and is_official(path):
        return load_official(path, device, **overrides)
    content = read(path)
    arguments = content["arguments"] | overrides
    try:
        model = MODELS[content["model"]](**arguments)
        model.load_state_dict(content["weights"])
        model.spec = model.spec if overrides else Spec(**content["spec"])
    except ValueError as error:
        raise InputError(f"{path}: as {content['model']}({arguments}): {error}") from error
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{path}: its weights do not fit {content['model']}({arguments}); "
            "train again or use a checkpoint of this version"
        ) from error
    return model.to(device).eval()


def read(path: str | Path) -> dict:
    """All that a checkpoint holds. Nothing in the file is ever executed.

    Raises InputError for a file that is no checkpoint of a model known here.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; train one with train_video.py")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: not a checkpoint of this project, or damaged; "
            "train one with train_video.py or copy it again"
        ) from error
    if not isinstance(content, dict) or content.get("model") not in MODELS:
        raise InputError(
            f"{path}: not a checkpoint of one of {', '.join(MODELS)}; use one that "
            "train_video.py wrote"
        )
    return content


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
