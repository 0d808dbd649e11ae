"""Settings of a script before its slow imports. Each script imports this first."""

import ctypes
import io
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Options of malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX.
MALLOC_OPTIONS = {-1: 1 << 30, -3: 1 << 30, -8: 1}

# Threads of torch that wait for each other soon sleep: beside another busy program, on two cores,
# a frame takes 0.13 s instead of 0.55 s. With GCC's OpenMP they stay awake for some microseconds,
# since waking takes longer than small layers: 58 ms instead of 66. torch reads this when loaded.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}

# glibc keeps freed memory for the next frame, in one arena for all threads. Otherwise the pages of
# large blocks are cleared at every frame: evaluation then takes a sixth more time, and inference
# 6 to 9 % more memory.
if sys.platform == "linux":
    for option, value in MALLOC_OPTIONS.items():
        ctypes.CDLL(None).mallopt(option, value)

# A closed stream is like /dev/null: else the next file that is opened takes its place. A character
# that a terminal can't show is written as its number.
for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:
        setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")


def explain_missing(kind, error, trace) -> None:
    """Say in one line which package an import at the beginning of a script has not found."""
    if not issubclass(kind, ModuleNotFoundError):
        return sys.__excepthook__(kind, error, trace)
    script, needed = Path(sys.argv[0]).name, ROOT / "requirements.txt"
    how = f"pip install -r {needed}" if needed.exists() else "the installation of saliency360 again"
    print(f"{script}: the package '{error.name}' is missing; run {how}", file=sys.stderr)


# In a script of ours, not where another program imports it: Ctrl-C ends it without a traceback from
# inside an import, and a missing package is one line. run_script takes over.
if Path(sys.argv[0]).resolve().parent in (ROOT, ROOT / "prepare", ROOT / "recipes"):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.excepthook = explain_missing
