"""Reference data that lies beside the repository on some machines; tests skip without it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(name: str) -> Path:
    """Path of a reference file. Skips the test where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no reference data at ../shared/{name}")
    return path
