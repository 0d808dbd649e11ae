"""Commands in this process, which has imported torch already."""

import contextlib
import io
import sys
from unittest import mock

from common.errors import run_script


def run(main, *words) -> None:
    """Call a command's main with these words as its command line."""
    with mock.patch.object(sys, "argv", ["command", *map(str, words)]):
        main()


def ended(main, *words) -> tuple[int, str, str]:
    """Run a command as a user does: exit code, standard output and the line with the error.

    Whatever went wrong must be a single line without a traceback that names the next step.
    """
    printed, errors, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["command", *map(str, words)]),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
    ):
        try:
            run_script(main)
        except SystemExit as stop:
            code = stop.code
    text = errors.getvalue()
    assert "Traceback" not in text
    if code in (1, 2):
        last = text.strip().splitlines()[-1].split("\r")[-1]
        assert last.startswith("command: ") or "error: argument" in last, last
        assert any(mark in last for mark in (";", ": give ", "error: argument")), last
        return code, printed.getvalue(), last
    return code, printed.getvalue(), text
