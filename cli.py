"""Errors that users can mend, atomic writes, options and devices, shared by the scripts."""

import argparse
import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch


class InputError(Exception):
    """An error that the user can mend: one line with the file, what is wrong and what to do."""


NEXT_STEP = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission denied; choose another place or change its permissions",
    errno.ENOENT: "no such file or folder; check the path",
    errno.EISDIR: "this is a folder where a file is needed; check the path",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another path",
    errno.EEXIST: "a file stands where a folder is needed; choose another path",
}


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main. Errors that the user can mend become one line and exit code 2."""
    try:
        main()
    except InputError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in NEXT_STEP:
            raise
        message = f"{error.filename or 'output'}: {NEXT_STEP[error.errno]}"
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished before is kept", file=sys.stderr)
        sys.exit(130)
    else:
        return
    print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


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
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(AttributeError):  # PyAV's errors do not take it
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


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
            above = f" and below {below:g}" if below < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text}: give {low} or more{above}")
        return value

    number.__name__ = kind.__name__  # argparse names it for a text that is no number
    return number


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def add_machine_options(add: Callable) -> None:
    """Add --device and --precision. add: the add_argument of a parser or group."""
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, …")
    add("--precision", default="auto", choices=["auto", *PRECISIONS],
        help="number format of the network's computations; auto: bf16 where the hardware "
        "computes in it, else fp32")  # fmt: skip


def choose_device(name: str) -> torch.device:
    """Return the device that --device names. Raises InputError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: not available here; use --device cpu") from error
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the number format that --precision names on a device."""
    if name != "auto":
        return PRECISIONS[name]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and _cpu_has_bf16()
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context of mixed precision in `dtype`; float32 needs none."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def _cpu_has_bf16() -> bool:
    """Return whether the kernel reports AVX512-BF16, which every CPU with AMX has too."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            return any("avx512_bf16" in line for line in file)
    except OSError:
        return False
