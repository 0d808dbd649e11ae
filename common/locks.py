"""Locks that keep two runs from writing into one folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes from writing into it until the block ends.

    The lock is released with the process, however it ends; processes forked from it share it.
    Raises InputError where another process has it. Without locks (on Windows and on some network
    drives) there is a note instead.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder if fcntl else os.devnull, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        wait = "wait until it has ended, or choose another folder"
        raise InputError(f"{folder}: another run writes into this folder; {wait}") from None
    except (OSError, AttributeError):
        print(f"note: {folder} can't be locked; let one run at a time use it", file=sys.stderr)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # there is something in it
                folder.rmdir()
        os.close(descriptor)
