"""What a script sets before its slow imports. Each script imports it first."""

import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# Ctrl-C ends a script without a traceback from inside an import; cli.run_script takes over.
if Path(sys.argv[0]).resolve().parent in (ROOT, ROOT / "prepare", ROOT / "recipes"):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
