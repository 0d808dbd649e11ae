"""A bounded sample of `make fuzz`, in a process of its own, since it forks."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_damaged_files_are_read_or_refused_and_memory_does_not_grow():
    command = [sys.executable, "-m", "tests.fuzz", "--count", "150", "--hours", "0.1"]
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(".")]
    for kind in ("read", "refused"):
        assert sum(int(number) for _, found, number in rows if found == kind) > 25
