"""Errors that users can mend, and how a script ends with one line."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(Exception):
    """An error that the user can mend: one line with the file, what is wrong and what to do."""

    exit_code = 2  # something was given wrong


class RunError(InputError):
    """Something that went wrong on the way, although what was given is right."""

    exit_code = 1


GIVEN_WRONG = {  # errors of the system that a better path or place mends
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENOTDIR),
    *(errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
}


_own_code = False


def show_tracebacks() -> None:
    """Show the traceback of every unexpected error from now on, since code of the user runs."""
    global _own_code
    _own_code = True


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main. An error becomes one line and an exit code.

    2: something was given wrong. 1: something went wrong on the way. 130: Ctrl-C. 143: SIGTERM,
    at which files that are not complete are removed.
    """
    before = signal.getsignal(signal.SIGINT)
    if main_thread := threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if "RANK" not in os.environ:  # torchrun's processes may wait for each other: end at once
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
            if main_thread:
                signal.signal(signal.SIGINT, before)
    except InputError as error:
        message, code = str(error), error.exit_code
    except OSError as error:
        code = 2 if error.errno in GIVEN_WRONG else 1
        step = "check the path" if code == 2 else "make room there, and run the same command again"
        message = f"{error.filename or 'output'}: {error.strerror or error}; {step}"
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):  # torch's words
            raise
        less = "smaller sizes; train_video.py also takes --accumulate 2 or --precision bf16"
        message, code = f"not enough memory; give {less}", 1
    except KeyboardInterrupt:
        message, code = "interrupted; what was finished before is kept", 130
    try:
        print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
        sys.stdout.flush()
    except OSError:  # nobody reads it: what is left to be written goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


class Failures(list):
    """Errors of single files, which are raised when the others are done."""

    @contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            self.append(error.with_traceback(None))  # which would keep decoders and threads

    def report(self, total: int) -> None:
        """Raise the error of an only file as it is, and those of some of several in one line."""
        if self and total == 1:
            raise self[0]
        if self:
            texts = " | ".join(map(str, self))
            raise RunError(f"{len(self)} of {total} have problems, the others are done: {texts}")


@contextmanager
def advice(option: str) -> Iterator[None]:
    """Turn a ValueError about an argument into an InputError about the option it came from."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error


def counted(number: int, noun: str) -> str:
    """Return "1 map", "2 maps", "1,000 maps"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
