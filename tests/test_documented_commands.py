"""Every command in the documents and the Makefile starts, with the options that stand there.

One benchmark once raised TypeError, and `make bench` stopped at it.
"""

import argparse
import contextlib
import io
import re
import runpy
import shlex
import signal
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from unittest import mock

import pytest

import models

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    "README.md",
    *(f"{folder}/*.md" for folder in ("docs", "checkpoints", "recipes", "tests")),
]
TARGETS = re.search(r"\.PHONY:(.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))[1].split()
START = re.compile(
    r"(?:\S*python\S*|torchrun --nproc_per_node \d+) +(?:-m (?P<module>[\w.]+)|(?P<script>\w+)\.py)"
    r"|(?P<bare>\w+_video)\.py(?= +-)"
)
PLACEHOLDERS = {"S": "0", "$S": "0"}  # numbers that stand for themselves in the documents
FOREIGN = ("pip", "venv", "pytest", "ruff")  # modules that are not ours
SMALL = {  # options with which each benchmark of `make bench` takes seconds
    "benchmarks.network": "--repeats 1",
    "benchmarks.projection": "--repeats 1",
    "benchmarks.sst_sal": "--repeats 1 --frames 1",
    "benchmarks.training": "--repeats 1 --steps 2 --batch_sizes 1 --scenes 5 --height 40",
    "benchmarks.loader": "--repeats 1 --frames 4 --clips 1 --workers 1",
    "benchmarks.gaze": "--repeats 1 --fixations 5 --height 40",
    "benchmarks.metrics": "--repeats 1",
    "benchmarks.throughput": "--repeats 1 --frames 1 --profile",
    "benchmarks.video": "--repeats 1 --width 256 --frames 12",
}


@cache
def make(*words: str) -> str:
    """Return the commands that make would run."""
    result = subprocess.run(["make", "-nB", *words], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def shown_in(text: str) -> list[str]:
    """Return the commands in a Markdown text: lines of its code blocks, and code in its lines."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    codes = (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest))
    return [*"\n".join(blocks).replace("\\\n", " ").splitlines(), *codes]


def commands(lines: list[str]) -> list[tuple[str, ...]]:
    """Return our commands among shell lines, each once: a module or script, and its words."""
    found = {}
    for line in lines:
        for part in re.split(r"&&|\|\||;", line):
            if (start := START.search(part)) and start["module"] not in FOREIGN:
                words = shlex.split(part[start.end() :], comments=True)
                module = (start["module"] or "").removeprefix("saliency360.")  # installed
                script = start["script"] or start["bare"] or module
                name = module if "." in module else f"{script}.py"
                found[(name, *(PLACEHOLDERS.get(word, word) for word in words))] = None
    return list(found)


TEXTS = [path.read_text(encoding="utf-8") for glob in DOCUMENTS for path in sorted(ROOT.glob(glob))]
LINES = [line for text in TEXTS for line in shown_in(text)]
MADE = "".join(map(make, TARGETS)).replace("\\\n", " ").splitlines()
COMMANDS = commands(LINES + MADE)


class Parsed(BaseException):
    """Raised where a command has read its options and would begin its work."""


@pytest.fixture
def begin(monkeypatch, tmp_path):
    """Return what runs a command up to its work, beside the file that docs/own_model.md shows."""
    page = (ROOT / "docs/own_model.md").read_text(encoding="utf-8")
    shown = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    (tmp_path / "tiny.py").write_text(shown, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(models.checkpoint, "MODELS", dict(models.MODELS))
    parse = argparse.ArgumentParser.parse_args

    def parse_only(*arguments):
        parse(*arguments)
        raise Parsed

    def run(name: str, *words: str) -> None:
        with mock.patch.object(sys, "argv", [name, *words]), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # another test has imported it, too
            if name.endswith(".py"):
                runpy.run_path(str(ROOT / name), run_name="__main__")
            else:
                runpy.run_module(name, run_name="__main__", alter_sys=True)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.modules.pop("tiny", None)


def test_the_collection_sees_the_commands():
    """A pattern that finds nothing would prove nothing."""
    names = {name for name, *_ in COMMANDS}
    scripts = {f"{kind}_video.py" for kind in ("infer", "make", "evaluate", "train")}
    prepare = {f"prepare.{kind}" for kind in ("synthetic", "recordings", "resize")}
    assert names >= {*scripts, *prepare, *SMALL, "tests.fuzz", "recipes.average"}
    train = "train_video.py --data_root synthetic_360 --output_dir runs/synthetic"
    assert tuple(train.split()) in COMMANDS


@pytest.mark.parametrize("command", [c for c in COMMANDS if len(c) > 1], ids=" ".join)
def test_options_in_the_documents_are_accepted(command, begin, capsys):
    with pytest.raises((Parsed, SystemExit)) as end:
        begin(*command)
    helped = "--help" in command and end.value.args == (0,)
    assert end.type is Parsed or helped, capsys.readouterr().err


@pytest.mark.parametrize("name", sorted({name for name, *_ in COMMANDS}))
def test_every_command_explains_itself(name, begin):
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as end:
        begin(name, "--help")
    assert end.value.code == 0
    assert printed.getvalue().startswith("usage: ")


def test_benchmarks_run_to_their_end():
    names = [name for name, *_ in commands(make("bench").splitlines())]
    assert sorted(names) == sorted(SMALL)
    running = {
        name: subprocess.Popen([sys.executable, "-m", name, *SMALL[name].split()], cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in names
    }  # fmt: skip
    for name, process in running.items():
        printed, errors = process.communicate(timeout=300)
        assert process.returncode == 0, f"{name}\n{errors}"
        assert printed.strip(), name


def test_make_demo_takes_a_clip():
    assert "docs/puydesancy.jpg" in make("demo", "VIDEO=docs/puydesancy.jpg")


def test_targets_in_the_documents_are_there():
    named = {match[1] for line in LINES if (match := re.match(r"make ([a-z]+)", line))}
    assert {"demo", "test"} <= named <= set(TARGETS)
