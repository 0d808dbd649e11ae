"""User-fixable errors, and how a script ends with one line."""

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class InputError(Exception):
    """A user-fixable error: one line with the file, what is wrong and what to do."""

    exit_code = 2  # something was given wrong


class RunError(InputError):
    """Something that went wrong on the way, although what was given is right."""

    exit_code = 1


INPUT_ERRNOS = {  # errors of the system that a better path or place mends
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENOTDIR),
    *(errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
}
DISK_FULL = errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)
TERMINATION_NAMES = "SIGTERM", "SIGHUP"  # which Windows has not all
TERMINATION_SIGNALS = [getattr(signal, n) for n in TERMINATION_NAMES if hasattr(signal, n)]
TRACEBACK = "SALIENCY_TRACEBACK"  # environment variable; 1: show the traceback of every error
_own_code = False


def show_tracebacks() -> None:
    """Show the traceback of every unexpected error from now on, since code of the user runs."""
    global _own_code
    _own_code = True


def run_script(main: Callable[[], T]) -> T:
    """Run a script's main and return its result. An error becomes one line and an exit code.

    2: something was given wrong. 1: something went wrong on the way, or a bug. 130: Ctrl-C. 129 and
    143: SIGHUP and SIGTERM, at which files that are not complete are removed.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    if "RANK" not in os.environ:  # torchrun's processes may wait for each other: end at once
        for number in TERMINATION_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
                signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
            signal.signal(signal.SIGINT, before)
    except (Exception, KeyboardInterrupt) as error:
        if wants_traceback(error):
            raise
        message, code = explain(error) or (unexpected(error), 1)
    if "tqdm" in sys.modules:  # progress bars, which would share their line with the message
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", ())):
            bar.close()
    try:
        print(f"{Path(sys.argv[0]).name}: {printable(' '.join(message.split()))}", file=sys.stderr)
        sys.stdout.flush()
    except OSError:  # nobody reads it: what is left to be written goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def wants_traceback(error: BaseException) -> bool:
    """Return whether an error is to be raised, so that Python prints its traceback."""
    return os.environ.get(TRACEBACK) == "1" or (_own_code and not explain(error))


def explain(error: BaseException) -> tuple[str, int] | None:
    """Return the message about an error and the exit code; None for an unexpected one."""
    if isinstance(error, InputError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was finished before is kept", 130
    if isinstance(error, OSError) and error.errno:
        where = f"{error.filename or 'output'}: {error.strerror or error}"
        if error.errno in INPUT_ERRNOS:
            return f"{where}; check the path", 2
        cure = "make room there" if error.errno in DISK_FULL else "check its disk or connection"
        return f"{where}; {cure}, and run the same command again", 1
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # pathlib's words
        return f"{error}; check the path", 2
    out_of_memory = isinstance(error, RuntimeError) and "allocate" in str(error)  # torch's words
    if isinstance(error, MemoryError) or out_of_memory:
        less = "smaller sizes; train_video.py also takes --accumulate 2 or --precision bf16"
        return f"not enough memory; give {less}", 1
    return None


def unexpected(error: BaseException) -> str:
    """Return one line about an error that no code foresaw: what failed, where, and how to see more.

    An error of a data worker contains that process' traceback, of which this is the last line.
    """
    text = str(error).strip()
    text = text.splitlines()[-1] if "Traceback (most recent" in text else " ".join(text.split())
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    see = f"set {TRACEBACK}=1 to see the traceback"
    return f"{type(error).__name__} in {where}: {text[:300]}; {see}"


class Failures(list):
    """Errors of single files, which are raised when the others are done."""

    @contextmanager
    def collected(self, path: Path) -> Iterator[None]:
        """Keep an error of the block, which works on the file `path`, for the end."""
        try:
            yield
        except InputError as error:
            self.append(error.with_traceback(None))  # which would keep decoders and threads
        except Exception as error:
            if wants_traceback(error) or explain(error):
                raise
            self.append(RunError(f"{path}: {unexpected(error)}"))

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


def printable(text: str) -> str:
    """Return a text without the control characters by which it would steer a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)


def counted(number: int, noun: str) -> str:
    """Return "1 map", "2 maps", "1,000 maps"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
