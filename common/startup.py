"""What a script sets before its slow imports. Each script imports it first."""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Threads of torch that wait for each other soon sleep: beside another busy program, on two cores,
# a frame took 0.13 s instead of 0.55 s. With GCC's OpenMP they stay awake for some microseconds,
# since waking takes longer than small layers: a frame then takes 58 ms instead of 66, beside a
# busy program 120 instead of 101. torch reads this when it is loaded.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}

# Ctrl-C ends a script without a traceback from inside an import; run_script takes over.
if Path(sys.argv[0]).resolve().parent in (ROOT, ROOT / "prepare", ROOT / "recipes"):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
