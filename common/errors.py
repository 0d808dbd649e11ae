"""User-fixable errors, and the one-line messages with which scripts end."""

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

    exit_code = 2  # wrong input


class RunError(InputError):
    """An error during the run, although the input is valid."""

    exit_code = 1


INPUT_ERRNOS = {  # system errors that another path fixes
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENOTDIR),
    *(errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
}
DISK_FULL = errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)
TERMINATION_SIGNALS = [getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n)]
TRACEBACK = "SALIENCY_TRACEBACK"  # environment variable; 1: show the traceback of every error
_own_code = False


def show_tracebacks() -> None:
    """Show tracebacks of unexpected errors from now on, because user-defined code runs."""
    global _own_code
    _own_code = True


def run_script(main: Callable[[], T]) -> T:
    """Run a script's main and return its result. An error becomes one line and an exit code.

    2: wrong input. 1: an error during the run, or a bug. 130: Ctrl-C. 129 and 143: SIGHUP and
    SIGTERM, after which incomplete files are removed.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    if "RANK" not in os.environ:  # processes of torchrun may wait for each other: end at once
        for number in TERMINATION_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # set by nohup
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
    if "tqdm" in sys.modules:  # a progress bar would share its line with the message
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", ())):
            bar.close()
    try:
        print(f"{Path(sys.argv[0]).name}: {printable(' '.join(message.split()))}", file=sys.stderr)
        sys.stdout.flush()
    except OSError:  # the reader is gone: discard the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def wants_traceback(error: BaseException) -> bool:
    """Return whether Python shall print the traceback of an error."""
    return os.environ.get(TRACEBACK) == "1" or (_own_code and not explain(error))


def explain(error: BaseException) -> tuple[str, int] | None:
    """Return the message about an error and the exit code; None for an unexpected one."""
    if isinstance(error, InputError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; finished files are kept", 130
    if isinstance(error, OSError) and error.errno:
        where = f"{error.filename or 'output'}: {error.strerror or error}"
        if error.errno in INPUT_ERRNOS:
            return f"{where}; check the path", 2
        cure = "free space there" if error.errno in DISK_FULL else "check its disk or connection"
        return f"{where}; {cure}, and run the same command again", 1
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # pathlib's words
        return f"{error}; check the path", 2
    out_of_memory = isinstance(error, RuntimeError) and "allocate" in str(error)  # torch's words
    if isinstance(error, MemoryError) or out_of_memory:
        less = "smaller sizes; train_video.py also takes --accumulate 2 or --precision bf16"
        return f"not enough memory; use {less}", 1
    return None


def unexpected(error: BaseException) -> str:
    """Return one line about an unexpected error: what failed, where, and how to see more."""
    text = str(error).strip()
    text = text.splitlines()[-1] if "Traceback (most recent" in text else " ".join(text.split())
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return f"{type(error).__name__} in {where}: {text[:300]}; set {TRACEBACK}=1 for the traceback"


class Failures(list):
    """Errors of single files, raised after the other files are done."""

    @contextmanager
    def collected(self, path: Path) -> Iterator[None]:
        """Collect an error of the block, which processes the file `path`."""
        try:
            yield
        except InputError as error:
            self.append(error.with_traceback(None))  # a traceback keeps decoders and threads alive
        except Exception as error:
            if wants_traceback(error) or explain(error):
                raise
            self.append(RunError(f"{path}: {unexpected(error)}"))

    def report(self, total: int) -> None:
        """Raise the collected errors in one line; that of an only file is raised unchanged."""
        if self and total == 1:
            raise self[0]
        if self:
            texts = " | ".join(map(str, self))
            raise RunError(f"{len(self)} of {total} failed, the others are done: {texts}")


@contextmanager
def advice(option: str) -> Iterator[None]:
    """Turn a ValueError about an argument into an InputError about its option."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error


def printable(text: str) -> str:
    """Return a text with its control characters escaped, which could manipulate a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)


def counted(number: int, noun: str) -> str:
    """Return "1 map", "2 maps", "1,000 maps"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
