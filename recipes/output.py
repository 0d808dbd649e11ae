"""What recipes share: a check of the output before the work begins, and the history of weights."""

import os
from pathlib import Path

from common.errors import InputError
from models.checkpoint import read

HISTORY = "calibrated", "distilled", "mean_of", "motion_learned", "front", "run"


def writable(path: Path) -> Path:
    """Return the path of a writable file, after creating its folder.

    Raises InputError for any other path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: no file can be written there; choose another place")
    return path


def history(checkpoint: Path) -> dict:
    """Return what a checkpoint states about how it was made. A recipe adds its own step."""
    content = read(checkpoint)
    return {name: content[name] for name in HISTORY if content.get(name)}
