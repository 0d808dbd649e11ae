"""What recipes share: checks before the work begins, and the history of weights."""

import os
from pathlib import Path

import torch

from common.errors import InputError
from models import CubeUNet, load
from models.checkpoint import read, sha256


def writable(path: Path) -> Path:
    """Return the path of a writable file, after creating its folder.

    Raises InputError for any other path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: no file can be written there; choose another place")
    return path


def load_cube_unet(path: Path, device: str | torch.device = "cpu") -> CubeUNet:
    """Return the CubeUNet in a checkpoint. Raises InputError for another model."""
    if not isinstance(model := load(path, device), CubeUNet):
        raise InputError(f"{path}: holds the model '{model.name}'; give one of a CubeUNet")
    return model


def history(checkpoint: Path, recipe: str, **options) -> dict:
    """Return what the next checkpoint states about how it was made.

    history: what was done to the weights, first to last, each with the digest of its input.
    """
    content = read(checkpoint)
    step = {"recipe": recipe, **options, "sha256": sha256(checkpoint)}
    return {"run": content["run"], "history": [*content.get("history", []), step]}
