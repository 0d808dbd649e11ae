"""Errors that users can mend, atomic writes, options and devices, shared by the scripts."""

import argparse
import errno
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # scripts show their help without it
    import torch

CHECKPOINT = Path(__file__).resolve().parent / "checkpoints/cube_unet_best.pth"  # the shipped one


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


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main. An error becomes one line and an exit code.

    2: something was given wrong. 1: something went wrong on the way. 130: Ctrl-C. 143: SIGTERM,
    at which files that are not complete are removed.
    """
    interrupted = None
    if threading.current_thread() is threading.main_thread():
        interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)
        if "RANK" not in os.environ:  # torchrun's processes may wait for each other: end at once
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
            if interrupted is not None:
                signal.signal(signal.SIGINT, interrupted)
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


@contextmanager
def atomic(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder, which becomes `path` if the block succeeds.

    durable: wait until the file is on the disk; not worth it for one of thousands of maps.
    """
    path = Path(path)
    start, end = f".{path.stem[:40]}.", f".partial{path.suffix}"
    temporary = path.with_name(f"{start}{os.getpid()}{end}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if durable:
        for left in path.parent.iterdir():  # of a process that was killed while it wrote
            number = left.name.removeprefix(start).removesuffix(end)
            whole = left.name == start + number + end and number.isdecimal()
            if whole and not _lives(int(number)):
                left.unlink(missing_ok=True)
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _lives(number: int) -> bool:
    """Return whether there is a process of this number."""
    try:
        os.kill(number, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, PermissionError)
    return True


def counted(number: int, noun: str) -> str:
    """Return "1 map", "2 maps", "1,000 maps"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def write_json(path: str | Path, content: dict) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        default = action.default  # 0 is one; a flag, no list and no value are not
        if default is None or default is False or default == [] or action.required:
            return action.help
        return super()._get_help_string(action)


def at_least(low: float, below: float = math.inf, kind: type = float) -> Callable[[str], float]:
    """Return the argparse type of an option that is a number in [low, below)."""

    def number(text: str) -> float:
        if not low <= (value := kind(text)) < below:
            above = f" and less than {below}" if below < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text}: give {low} or more{above}")
        return value

    number.__name__ = kind.__name__  # argparse names it for a text that is no number
    return number


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text).limit_denominator(1001)
    except ZeroDivisionError as error:
        raise ValueError from error


worker_count = at_least(1, 1025, int)
frame_rate = at_least(Fraction(1, 1000), 1001, _fraction)  # 25, 29.97 or 30000/1001
frame_rate.__name__ = "rate"
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # torch's names


def add_machine_options(add: Callable) -> None:
    """Add --device and --precision. add: the add_argument of a parser or group."""
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, …")
    add("--precision", default="auto", choices=["auto", *PRECISIONS],
        help="number format of the network's computations; auto: bf16 where the hardware "
        "computes in it, else fp32")  # fmt: skip


def add_sampling_option(add: Callable) -> None:
    """Add --sampling. add: the add_argument of a parser."""
    add("--sampling", choices=["seamless", "reference"], help="how SST-Sal reads the sphere; "
        "reference: exactly as its authors do (default: the checkpoint's)")  # fmt: skip


def add_motion_option(add: Callable) -> None:
    """Add --motion. add: the add_argument of a parser."""
    add("--motion", choices=["none", "difference", "dis", "raft"], help="how motion between frames "
        "is estimated (default: as the model was trained)")  # fmt: skip


def add_layout_options(add: Callable, known: str = "as the file declares") -> None:
    """Add --stereo and --coverage. add: the add_argument of a parser; known: their default."""
    add("--stereo", choices=["none", "top-bottom", "left-right"], help="where the pictures of the "
        f"left and the right eye are in a frame (default: {known})")  # fmt: skip
    add("--coverage", type=float, nargs=4, metavar=("WEST", "EAST", "SOUTH", "NORTH"),
        help="part of the sphere that each eye covers, in degrees of longitude and latitude; of "
        f"VR180 -90 90 -90 90 (default: {known}, else -180 180 -90 90)")  # fmt: skip


def choose_device(name: str) -> "torch.device":
    """Return the device that --device names. Raises InputError where it is not there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name}: not available here; use --device cpu") from error
    return device


def choose_precision(name: str, device: "torch.device") -> "torch.dtype":
    """Return the number format that --precision names on a device."""
    import torch

    if name != "auto":
        return getattr(torch, PRECISIONS[name])
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and _cpu_has_bf16()
    return torch.bfloat16 if fast else torch.float32


def autocast(device: "torch.device", dtype: "torch.dtype") -> "torch.autocast":
    """Return the context of mixed precision in `dtype`; float32 needs none."""
    import torch

    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def _cpu_has_bf16() -> bool:
    """Return whether the kernel reports AVX512-BF16, which every CPU with AMX has too."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            return any("avx512_bf16" in line for line in file)
    except OSError:
        return False
