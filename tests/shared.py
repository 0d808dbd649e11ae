"""Reference data: a small part in this repository, and more beside it on some machines."""

import json
from pathlib import Path

import numpy as np
import pytest

REFERENCE = Path(__file__).parent / "reference"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def reference(name: str) -> dict:
    """Return the content of an .npz or .json file in tests/reference, by key."""
    path = REFERENCE / name
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with np.load(path) as arrays:
        return dict(arrays)


def shared(name: str) -> Path:
    """Return the path of a file in ../shared. Skips the test where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no reference data at ../shared/{name}")
    return path
