"""Checks of files before they are read, and atomic writes."""

import io
import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DISK_FULL, InputError, printable

MAX_JSON_BYTES = 128 << 20  # the largest JSON file that is read
MAX_ARRAY_BYTES = 4 << 30  # the largest file of arrays that is read
OUTPUT_RECORD = ".saliency360.json"  # fingerprint of the clip of each output beside it
_inputs: set[tuple[int, int]] = set()  # device and inode of files that must not be replaced


def check_file(path: str | Path, largest: float = math.inf) -> Path:
    """Return the path of an existing regular file, not empty and of at most `largest` bytes.

    Raises InputError otherwise, and OSError for a path without access.
    """
    path = Path(path)
    if re.match(r"\w\w+:/", str(path)) and not path.exists():
        address = str(path).replace(":/", "://", 1)  # Path removes one of the slashes
        raise InputError(f"{address}: an address, not a file; download it first and give the file")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the path")
    if printable(path.name) != path.name:
        raise InputError(f"{path}: the name contains control characters; rename it")
    if not path.is_file():
        raise InputError(f"{path}: a folder, a pipe or a device, not a file; check the path")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: permission denied; change its permissions")
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty; copy or download it again")
    if path.stat().st_size > largest:
        raise InputError(f"{path}: too large for its kind; check the path")
    return path


@contextmanager
def reading(path: str | Path, otherwise: str, largest: float = math.inf) -> Iterator[Path]:
    """Check a file, and turn any error in the block into `otherwise`, with {} for its cause."""
    path = check_file(path, largest)
    try:
        yield path
    except InputError:
        raise
    except Exception as error:  # a damaged or hostile file can fail in any way
        text = str(getattr(error, "strerror", None) or error)  # without number and path
        cause = " ".join(text.split())[:200] or type(error).__name__
        raise InputError(f"{path}: {otherwise.replace('{}', cause)}") from error


def read_json(path: str | Path, **kinds: Any) -> dict:
    """Return the object in a JSON file. kinds: types of its possible entries.

    Raises InputError for any other file, and for an entry of another type.
    """
    with reading(path, "not valid JSON ({}); correct or delete it", MAX_JSON_BYTES) as path:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
        if not isinstance(content, dict):
            raise TypeError("expected {…}")
        for name in kinds.keys() & content.keys():
            if not isinstance(content[name], kinds[name]):
                raise TypeError(f"'{name}' is of {type(content[name])}")
        return content


def write_json(path: str | Path, content: dict) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(json_bytes(content))


def json_bytes(content: dict) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8 atomically, with ? for invalid characters."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="")


def read_array(path: str | Path) -> np.ndarray:
    """Return the array of real numbers in a .npy file. Raises InputError for any other file."""
    otherwise = "not an array of numbers ({}); delete it or make it again"
    with reading(path, otherwise, MAX_ARRAY_BYTES) as path:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype.kind not in "biuf" or not array.size:
            raise ValueError(f"{array.dtype} of shape {array.shape}")
        if array.offset + array.nbytes != path.stat().st_size:
            raise ValueError("fewer numbers than in the header")
        return np.array(array)


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write a .npy file atomically."""
    content = io.BytesIO()  # numpy.save to a file hides the reason of a failure
    np.save(content, array)
    with atomic(path, durable=False) as temporary:
        temporary.write_bytes(content.getvalue())  # getbuffer() can crash Python 3.12.1


@contextmanager
def protected(*paths: Path) -> Iterator[None]:
    """Let `atomic` refuse to replace these files, which the block reads."""
    files = [path.stat() for path in paths if path.is_file()]
    inputs = {(facts.st_dev, facts.st_ino) for facts in files} - _inputs
    _inputs.update(inputs)
    try:
        yield
    finally:
        _inputs.difference_update(inputs)


def refuse_input(path: Path) -> None:
    """Raise InputError for a file that `protected` protects."""
    if path.exists() and (path.stat().st_dev, path.stat().st_ino) in _inputs:
        raise InputError(f"{path}: is an input and would be replaced; choose another name")


@contextmanager
def output_of(clip: str, path: Path, overwrite: bool = False) -> Iterator[None]:
    """Check that an output may be written, and record its clip in OUTPUT_RECORD after the block.

    clip: its fingerprint. Raises InputError if the output exists and was not made from this clip,
    unless `overwrite`.
    """
    refuse_input(path)
    record = path.parent / OUTPUT_RECORD
    noted = read_json(record) if record.exists() else {}
    if path.exists() and not overwrite and noted.get(path.name) != clip:
        cure = "choose another name, or replace it with --overwrite"
        raise InputError(f"{path}: was not made from this clip; {cure}")
    yield
    noted = read_json(record) if record.exists() else {}
    write_json(record, noted | {path.name: clip})


def output_name(path: Path) -> str:
    """Return the name of a clip's outputs, without a suffix.

    Raises InputError for a clip whose name would lead out of the output folder.
    """
    name = path.stem if path.is_file() else path.resolve().name
    if name in ("", ".", "..") or printable(name) != name:
        raise InputError(f"{path}: no output can be named after it; rename it")
    return name


def maps_folder(clip: Path, parent: Path | None = None) -> Path:
    """Return the folder for a clip's maps: parent/<name>, by default outputs/<name>_saliency."""
    name = output_name(clip)
    if not parent and Path("outputs").is_file():
        raise InputError("outputs: a file, but results go into a folder of this name; rename it")
    return parent / name if parent else Path("outputs", f"{name}_saliency")


@contextmanager
def atomic(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder, which becomes `path` if the block succeeds.

    Its name depends on that of `path` alone: the next write replaces what a killed process left.
    durable: wait until the file is on the disk; not worth it for one of thousands of maps.
    """
    path = Path(path)
    refuse_input(path)
    unique = f"{zlib.crc32(os.fsencode(path.name)):08x}"  # of names that begin alike
    temporary = path.with_name(f".{path.stem[:40]}.{unique}.partial{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        file = error.filename  # of an input that can't be read in the block, or of the target
        if file and temporary.name not in os.fsdecode(file) and error.errno not in DISK_FULL:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
