"""Settings that a script needs before its slow imports. Each script imports this first."""

import ctypes
import io
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Options of malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX.
MALLOC_OPTIONS = {-1: 1 << 30, -3: 1 << 30, -8: 1}

# Waiting threads of torch sleep: beside another busy program, on two cores, a frame takes 0.13 s
# instead of 0.55 s. GCC's OpenMP lets them spin for some microseconds first, since waking takes
# longer than small layers: 58 ms instead of 66. torch reads these variables when it is loaded.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}

# Let glibc keep freed memory for the next frame, in one arena for all threads. Otherwise the pages
# of large blocks are cleared for every frame: evaluation takes a sixth more time, and inference
# 6 to 9 % more memory.
if sys.platform == "linux":
    for option, value in MALLOC_OPTIONS.items():
        ctypes.CDLL(None).mallopt(option, value)

# Replace closed streams by /dev/null, since the next opened file would take their place. Escape
# characters that the terminal can't show.
for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:
        setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")


def explain_missing(kind, error, trace) -> None:
    """Print one line about a package that a script's imports did not find."""
    if not issubclass(kind, ModuleNotFoundError):
        return sys.__excepthook__(kind, error, trace)
    script, needed = Path(sys.argv[0]).name, ROOT / "requirements.txt"
    cure = f"run pip install -r {needed}" if needed.exists() else "install saliency360 again"
    print(f"{script}: the package '{error.name}' is missing; {cure}", file=sys.stderr)


# In our own scripts only: during imports, Ctrl-C prints no traceback, and a missing package is
# reported in one line. run_script replaces both later.
if Path(sys.argv[0]).resolve().parent in (ROOT, ROOT / "prepare", ROOT / "recipes"):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.excepthook = explain_missing
