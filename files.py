"""Files from anyone: checks before they are read, fingerprints of them, locks on folders.

Every reader of the project begins here, so that a pipe never hangs a run, a damaged file is named
in one line, and what is read has the kind that the code after it expects.
"""

import hashlib
import io
import json
import math
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from cli import InputError, atomic

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

JSON_BYTES = 64 << 20
ARRAY_BYTES = 4 << 30
BLOCK = 1 << 20  # bytes of each part of a file that a fingerprint reads


def check_file(path: str | Path, largest: float = math.inf) -> Path:
    """Return the path of a regular file that is there, not empty and at most `largest` bytes.

    Raises InputError otherwise, and OSError for a path that may not be looked at.
    """
    path = Path(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder; check the path") from None
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path}: this is a folder where a file is needed; check the path")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: a pipe or a device, not a file; copy what it gives into a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: permission denied; change its permissions")
    if not found.st_size:
        raise InputError(f"{path}: the file is empty; copy or download it again")
    if found.st_size > largest:
        raise InputError(f"{path}: {found.st_size} bytes are too many for a file of this kind")
    return path


def read_json(path: str | Path, **kinds: type | tuple[type, ...]) -> dict:
    """Return the object in a JSON file. kinds: types of the entries that may be in it.

    Raises InputError for any other file, and for an entry of another type.
    """
    path = check_file(path, JSON_BYTES)
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); correct or delete it") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise InputError(f"{path}: expected {{…}}, found a {kind}; correct or delete it")
    for name, kind in kinds.items():
        if name in content and not isinstance(content[name], kind):
            found = type(content[name]).__name__
            raise InputError(f"{path}: '{name}' is of type {found}; correct or delete the file")
    return content


def _no_number(name: str):
    raise ValueError(f"{name} is no number")


def read_array(path: str | Path) -> np.ndarray:
    """Return the array of real numbers in a .npy file, as it is.

    Raises InputError for any other file: an .npz, objects, a header that is not true, no elements.
    """
    path = check_file(path, ARRAY_BYTES)
    try:
        with open(path, "rb") as file:
            major, _ = np.lib.format.read_magic(file)
            read_header = {
                1: np.lib.format.read_array_header_1_0,
                2: np.lib.format.read_array_header_2_0,
            }[major]
            shape, columns_first, kind = read_header(file)
            count = math.prod(shape)
            if kind.kind not in "biuf" or min(shape, default=1) < 1:
                raise ValueError(f"{kind} of shape {shape}")
            if count * kind.itemsize != path.stat().st_size - file.tell():
                raise ValueError(f"not the {count} numbers that it announces")
            return np.fromfile(file, kind, count).reshape(
                shape, order="F" if columns_first else "C"
            )
    except Exception as error:  # a damaged or hostile header can fail in any way
        cause = " ".join(str(error).split())[:100]
        raise InputError(
            f"{path}: not an array of numbers ({cause}); delete it or make it again"
        ) from error


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write a .npy file, whole or not at all."""
    content = io.BytesIO()  # NumPy's own writing to a file hides why it failed
    np.save(content, array)
    with atomic(path, durable=False) as temporary:
        temporary.write_bytes(content.getbuffer())


def fingerprint(files: Sequence[Path]) -> str:
    """Return a SHA-256 digest of a source: a video file, or pictures in their order.

    It depends on how many files there are, and on the size and parts of the content (beginning,
    middle and end) of the first, the middle and the last one.
    """
    digest = hashlib.sha256(str(len(files)).encode())
    for path in (files[0], files[len(files) // 2], files[-1]):
        size = path.stat().st_size
        digest.update(str(size).encode())
        with open(path, "rb") as file:
            for start in (0, size // 2, max(0, size - BLOCK)):
                file.seek(start)
                digest.update(file.read(BLOCK))
    return digest.hexdigest()


_held: set[int] = set()  # locked folders
if hasattr(os, "register_at_fork"):  # a child that outlives this process does not keep its locks
    os.register_at_fork(after_in_child=lambda: [os.close(_held.pop()) for _ in range(len(_held))])


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes from writing into it until the block ends.

    The lock is released with the process, however it ends. Raises InputError where another process
    has it. Without locks (on Windows and on some network drives) there is a note instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _held.add(handle)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"{folder}: another run writes into this folder; wait until it has ended, or choose "
            "another folder"
        ) from None
    except (OSError, AttributeError):
        print(f"note: {folder} can't be locked; let one run at a time use it", file=sys.stderr)
    try:
        yield
    finally:
        with suppress(OSError):  # nothing was written
            folder.rmdir()
        if handle is not None:
            _held.discard(handle)
            os.close(handle)
