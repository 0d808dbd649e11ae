"""A check of a recipe's output before its work begins."""

import os
from pathlib import Path

from common.errors import InputError


def writable(path: Path) -> Path:
    """Return the path of a writable file, after creating its folder.

    Raises InputError for any other path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: no file can be written there; choose another place")
    return path
