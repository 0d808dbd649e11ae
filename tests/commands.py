"""Commands in this process, which has imported torch already."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import evaluate_video
import infer_video
import make_video
import train_video
from common.errors import run_script
from tests.trainings import ROOT, TINY

TINY_MODEL = {"height": 40, "width": 80, "base_channels": 4}


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


def refusal(found: tuple[int, str, str], *says: str) -> str:
    """Return the line of a run that refused its input; it must contain these texts."""
    code, _, line = found
    assert code == 2 and all(text in line for text in says), line
    return line


def success(found: tuple[int, str, str]) -> str:
    """Return what a run printed that ended well."""
    assert found[0] == 0, found[2]
    return found[1]


def start(*words):
    """A script or module in a process of its own."""
    where = {"cwd": ROOT, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *map(str, words)], **where, text=True)


def train_one_epoch(data, output, *more):
    words = ("--data_root", data, "--output_dir", output, "--workers", 0, *TINY)
    return ended(train_video.main, *words, "--epochs", 1, *more)


def evaluate(data, output, *more):
    words = ("--data_root", data, "--output_dir", output, "--height", 24, *more)
    return ended(evaluate_video.main, *words)


def read_record(folder):
    return json.loads((folder / "saliency.json").read_text())


def run_as_user(script, *arguments, code=0, cwd=ROOT):
    """Runs a script and checks its exit code, and that failures are one line."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert result.returncode == code, result.stderr
    if code in (1, 2):
        assert "Traceback" not in result.stderr
        last = result.stderr.strip().splitlines()[-1].split("\r")[-1]
        assert last.startswith(f"{script}: "), result.stderr
        return last
    return result


def infer_as_user(clip, checkpoint, output, *more, code=0):
    return run_as_user(
        "infer_video.py", "--video_path", clip, "--ckpt_path", checkpoint,
        "--output_dir", output, *more, code=code,
    )  # fmt: skip


def map_files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("sal_*"))}


def written(folder: Path) -> dict[str, bytes]:
    """Return all files in a folder and its folders."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def infer(clips, checkpoint, output, *more):
    clips = clips if isinstance(clips, list) else [clips]
    words = ("--video_path", *clips, "--ckpt_path", checkpoint, "--output_dir", output, *more)
    return ended(infer_video.main, *words)


def paint(clip, maps, output, *more):
    words = ("--original_video", clip, "--saliency_dir", maps, "--output_path", output)
    return ended(make_video.main, *words, "--preset", "ultrafast", *more)
