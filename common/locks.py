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
    fcntl = None


_held: set[int] = set()  # locked folders


if hasattr(os, "register_at_fork"):  # a child that outlives this process does not keep its locks
    os.register_at_fork(after_in_child=lambda: [os.close(_held.pop()) for _ in range(len(_held))])


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes from writing into it until the block ends.

    The lock is released with the process, however it ends. Raises InputError where another process
    has it. Without locks (on Windows and on some network drives) there is a note instead.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder if fcntl else os.devnull, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        wait = "wait until it has ended, or choose another folder"
        raise InputError(f"{folder}: another run writes into this folder; {wait}") from None
    except (OSError, AttributeError):
        print(f"note: {folder} can't be locked; let one run at a time use it", file=sys.stderr)
    _held.add(handle)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # there is something in it
                folder.rmdir()
        _held.discard(handle)
        os.close(handle)
