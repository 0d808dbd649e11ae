"""What a script sets before its slow imports. Each script imports it first."""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# Threads of torch that wait for each other sleep: beside another busy program, on two cores, a
# frame takes 0.13 s instead of 0.55 s. torch reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Ctrl-C ends a script without a traceback from inside an import; cli.run_script takes over.
if Path(sys.argv[0]).resolve().parent in (ROOT, ROOT / "prepare", ROOT / "recipes"):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
