"""Locks that prevent two runs from writing to the same folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import InputError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Create a folder and lock it for this process until the block ends.

    The lock is released when the process ends in any way; forked processes share it. Raises
    InputError if another process holds the lock. Where locks are not supported (on Windows and
    some network drives), a note is printed instead.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder if fcntl else os.devnull, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        wait = "wait until it ends, or choose another folder"
        raise InputError(f"{folder}: another run is writing to this folder; {wait}") from None
    except (OSError, AttributeError):
        print(f"note: {folder} can't be locked; start one run at a time", file=sys.stderr)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # the folder is not empty
                folder.rmdir()
        os.close(descriptor)
