"""What a recipe writes is checked before its work begins."""

import os
from pathlib import Path

from common.errors import InputError


def writable(path: Path) -> Path:
    """Return the path of a file that can be written, with its folder made.

    Raises InputError for any other path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: no file can be written there; choose another place")
    return path
