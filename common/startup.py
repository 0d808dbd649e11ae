"""What a script sets before its slow imports. Each script imports it first."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # numbers of malloc.h

# Threads of torch that wait for each other soon sleep: beside another busy program, on two cores,
# a frame took 0.13 s instead of 0.55 s. With GCC's OpenMP they stay awake for some microseconds,
# since waking takes longer than small layers: a frame then takes 58 ms instead of 66, beside a
# busy program 120 instead of 101. torch reads this when it is loaded.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}

# glibc keeps freed memory for the next frame. By default it gives blocks of more than 32 MiB back,
# whose pages are then cleared anew at every frame. All threads share one arena: with one each, what
# one allocates and another frees leaves holes. Its own variables, where set, stay in force.
if sys.platform == "linux" and not any("MALLOC_" in v or v == "GLIBC_TUNABLES" for v in os.environ):
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)
        mallopt(M_ARENA_MAX, 1)

# Ctrl-C ends a script without a traceback from inside an import; run_script takes over.
if Path(sys.argv[0]).resolve().parent in (ROOT, ROOT / "prepare", ROOT / "recipes"):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
