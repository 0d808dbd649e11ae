"""The repository: imports go one way, the package installs, documents' commands start."""

import argparse
import ast
import contextlib
import doctest
import importlib.util
import io
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
import warnings
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

import models
from common import errors
from common.options import python
from tests.clips import write_video
from tests.commands import ROOT, ended
from tests.shared import REFERENCE
from video import read_frames

PLACEHOLDERS = {"S": "0", "$S": "0"}  # numbers that stand for themselves in the documents
FOREIGN = ("mypy", "pip", "venv", "pytest", "ruff")  # modules that are not ours


LAYERS = (  # each may import those before it
    ("common",),
    ("projection",),
    ("losses", "video"),
    ("maps", "metrics"),
    ("datasets", "models", "views"),
    ("evaluation", "prepare", "training"),
    ("recipes",),
)
BELOW = {  # packages that each one may import, besides itself
    package: {lower for layer in LAYERS[:level] for lower in layer}
    for level, layer in enumerate(LAYERS)
    for package in layer
}
BELOW["metrics"] -= {"video"}
OURS = {p.stem for p in ROOT.glob("*.py")} | {p.parent.name for p in ROOT.glob("*/*.py")}


@pytest.mark.parametrize("package", BELOW)
def test_imports_go_one_way(package):
    for path in (ROOT / package).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported = {name.split(".")[0] for name in names} & OURS
            assert imported <= BELOW[package] | {package}, path


def test_nothing_imports_the_recipes():
    for path in ROOT.glob("**/*.py"):
        if not path.relative_to(ROOT).parts[0].startswith(("recipes", "tests", ".venv", "build")):
            text = path.read_text(encoding="utf-8")
            assert "from recipes" not in text and "import recipes" not in text, path


PLAIN = {path.stem for path in ROOT.glob("*.py")} - {"__main__"}
PLAIN |= {path.parent.name for path in ROOT.glob("*/*.py")} - {"build"}
MAP_OF_ONE_FRAME = """
import sys
import datasets, numpy
from saliency360 import CHECKPOINT, models
from saliency360.training.resume import git_revision
from saliency360.video import read_frames

model = models.load(CHECKPOINT)
_, saliency = next(models.predict(model, read_frames("clip.mp4", model.spec)))
numpy.save("map.npy", saliency.numpy())
print(datasets.OF, *sorted(set(sys.argv[1:]) & sys.modules.keys()), git_revision())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the package as pip does, but for the archive, in a repository of its user."""
    project, facts = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("facts")
    who = ["-c", "user.name=user", "-c", "user.email=user@example.org"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *words], cwd=project, check=True)
    folder = project / "site"
    steps = ["build_py", "--build-lib", str(folder), "egg_info", "--egg-base", str(facts)]
    start = "exec(open('setup.py').read(), {'__file__': 'setup.py', '__name__': '__main__'})"
    command = [sys.executable, "-X", "utf8", "-c", start, "-q", *steps]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder, facts / "saliency360.egg-info"


@pytest.fixture
def elsewhere(installed, tmp_path):
    """A folder with packages of our plain names, and a way to run Python in it."""
    for name in PLAIN - {"datasets"}:
        (tmp_path / f"{name}.py").write_text("raise ImportError('a plain name was imported')")
    (tmp_path / "datasets.py").write_text("OF = 'Hugging Face'")
    write_video(tmp_path / "clip.mp4", frames=2, fps=8)
    paths = os.pathsep.join([str(tmp_path), str(installed[0])])

    def run(*words, code=0) -> str:
        result = subprocess.run([sys.executable, *map(str, words)], cwd=tmp_path, text=True,
            capture_output=True, timeout=120, env=os.environ | {"PYTHONPATH": paths})  # fmt: skip
        assert result.returncode == code, result.stderr
        return result.stdout + code * result.stderr

    return tmp_path, run


def test_packages_collided_with_datasets_of_others(installed):
    folder, facts = installed
    assert [path.name for path in folder.iterdir()] == ["saliency360"]
    assert (facts / "top_level.txt").read_text().split() == ["saliency360"]


def test_setup_py_was_in_the_package_and_the_page_was_not(installed):
    names = {path.name for path in (installed[0] / "saliency360").glob("*.py")}
    assert names.isdisjoint({"setup.py", "app.py"}) and "infer_video.py" in names
    for name in ("py.typed", "views/viewer.html"):
        assert (installed[0] / "saliency360" / name).is_file()


def test_the_package_needs_what_scripts_need_and_not_what_tests_need(installed):
    needed = (installed[1] / "requires.txt").read_text().split()
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert needed == [line.split()[0] for line in lines[1:]]
    tests = (ROOT / "requirements-test.txt").read_text(encoding="utf-8")
    assert {"pytest", "ruff", "mypy", "onnx"} <= set(re.findall(r"^\w+", tests, re.MULTILINE))
    assert not set(re.findall(r"^[\w-]+", tests, re.MULTILINE)) & set(
        re.findall(r"[\w-]+", str(needed))
    )


def test_make_demo_installed_what_tests_need():
    """It took 6.2 GB, most of it CUDA, mypy, hypothesis and ONNX exporters, without a word."""
    installed = [line for line in make("demo").splitlines() if "pip install" in line]
    assert [line.split("-r ")[1] for line in installed] == ["requirements.txt"]
    sizes = re.findall(r"Installing .*?: .*GB", make("demo", "test", "app"))
    assert len(sizes) == 3


def test_no_import_of_a_plain_name_is_left(installed):
    modules = list(installed[0].glob("**/*.py"))
    assert len(modules) > 50
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & PLAIN, path


@pytest.mark.slow
def test_predicts_the_same_map_beside_packages_of_the_same_names(elsewhere):
    folder, run = elsewhere
    printed = run("-c", MAP_OF_ONE_FRAME, *PLAIN - {"datasets"})
    assert printed == "Hugging Face unknown\n"  # not the revision of the user's repository
    model = models.load(ROOT / "checkpoints/cube_unet_best.pth")
    _, expected = next(models.predict(model, read_frames(folder / "clip.mp4", model.spec)))
    np.testing.assert_allclose(np.load(folder / "map.npy"), expected.numpy(), rtol=1e-5, atol=1e-7)


ONE_AFTER_ANOTHER = """
import runpy, sys
import saliency360

print(saliency360.__version__)
for line in sys.argv[1:]:
    sys.argv = line.split()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_one_command_makes_maps_and_what_shows_them(elsewhere, installed, monkeypatch):
    """From anywhere, with the package's own checkpoint; then with the maps that are there."""
    folder, run = elsewhere
    run("-m", "saliency360", "clip.mp4", "--export", "maps.npz")
    assert len(list((folder / "outputs/clip_saliency").glob("sal_*.png"))) == 2
    assert (folder / "maps.npz").is_file() and not list((folder / "outputs").glob("clip_*.*"))
    lines = (
        "saliency360 clip.mp4 --viewer",
        "saliency360.make_video --original_video clip.mp4",
        "saliency360 -- -clip.mp4 clip.mp4",
        "saliency360 clip.mp4 other.mp4 --follow --cuts --export peaks.csv --output all --quiet",
        "saliency360 clip.mp4 --stereo top-bottom",
    )
    shutil.copy(folder / "clip.mp4", folder / "-clip.mp4")
    write_video(folder / "other.mp4", frames=3, fps=8)
    printed = run("-c", ONE_AFTER_ANOTHER, *lines, code=2)
    assert printed.startswith("0.1.0\n") and "(none new)" in printed
    assert (folder / "outputs/clip_viewer.html").is_file()
    assert (folder / "outputs/-clip_overlay.mp4").is_file()  # --video_path expected an argument
    assert "next: saliency360 ./-clip.mp4 --viewer\nopen outputs/-clip_overlay.mp4\n" in printed
    for name in ("clip", "other"):
        assert (folder / f"all/{name}_follow_cuts.mp4").is_file() and f"all/{name}" not in printed
        assert (folder / f"all/{name}_saliency/peaks.csv").is_file()
    monkeypatch.chdir(folder)
    words = "-m saliency360.make_video --original_video clip.mp4 --viewer"
    assert f"next: {python()} {words}\n" in printed
    assert "(stereo not given); choose another --output or use --overwrite" in printed
    entry = (installed[1] / "entry_points.txt").read_text()
    assert "saliency360 = saliency360.__main__:command" in entry


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Install a copy of the repository into a new environment, and return its folder.

    Other packages are those of this environment, so that nothing is downloaded.
    """
    for needed in ("pip", "setuptools"):
        if not importlib.util.find_spec(needed):
            pytest.skip(f"{needed} is not installed, so nothing can be")
    folder = tmp_path_factory.mktemp("fresh")
    copy, environment = folder / "copy", folder / "environment"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.suffix in (".py", ".toml", ".txt", ".in", ".md") or path.name == "LICENSE":
            shutil.copy(path, copy)
        elif path.name in OURS | {"checkpoints"}:
            shutil.copytree(path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(environment, symlinks=True)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin/python", "install"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", copy]
    subprocess.run([*map(str, pip), *map(str, offline)], check=True, timeout=120)
    return environment


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="environments have other folders on Windows")
def test_the_installed_command_in_a_fresh_environment(fresh, tmp_path, monkeypatch):
    """From an empty folder, with the code and the checkpoint that pip installed."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", frames=3, fps=8)

    def run(command: str, *words: str) -> str:
        done = subprocess.run([fresh / "bin" / command, *words], capture_output=True, text=True,
            timeout=120)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import saliency360; print(saliency360.CHECKPOINT.is_file(), saliency360.__file__)"
    found, file = run("python", "-c", where).split()
    assert found == "True" and Path(file).is_relative_to(fresh)
    assert run("saliency360", "--version") == "0.1.0\n"
    assert run("saliency360", "--help").startswith("usage: saliency360 ")
    assert "open outputs/clip_overlay.mp4\n" in run("saliency360", "clip.mp4")
    assert len(list((tmp_path / "outputs/clip_saliency").glob("sal_*.png"))) == 3
    assert len(list(read_frames(tmp_path / "outputs/clip_overlay.mp4", models.Spec()))) == 3


@pytest.mark.parametrize("words, line", [
    ("--version", "0.1.0"),
    ("a.mp4 --export a.txt", "saliency360: error: argument --export: a.txt: give a name that"),
    ("https://a.org/b.mp4", ": https://a.org/b.mp4: an address, not a file; download it"),
    ("../docs/viewer.jpg --follow", "viewer.jpg: a still picture, --follow is for videos; lea"),
    ("a.mp4 --cuts", "--cuts is for the camera of --follow; add --follow or leave out --cuts"),
    ("a.mp4 b.mp4 --output c.mp4", "--output c.mp4: one file for several clips; give a folder"),
])  # fmt: skip
def test_the_command_answers_in_one_line_of_its_own(words, line):
    """Its errors had the usage of infer_video.py, and a still was refused after its maps."""
    main = runpy.run_path(str(ROOT / "__main__.py"))["main"]
    code, printed, last = ended(main, *words.replace("..", str(ROOT)).split())
    assert line in printed + last and "--video_path" not in printed + last
    assert (code == 0) == (words == "--version")


PUBLIC = {
    "projection.cubemap": ("Equi2Cube", "Cube2Equi"),
    "projection.cube_pad": ("CubePadding",),
    "losses.smse": ("SMSE",),
    "models.cube_unet": ("CubeUNet",),
    "models.sst_sal": ("SSTSal",),
    "models.checkpoint": ("load",),
    "models.predict": ("predict",),
}


@pytest.mark.parametrize("home", PUBLIC)
def test_examples_run(home, monkeypatch):
    monkeypatch.chdir(REFERENCE.parents[1])  # some read checkpoints/
    torch.manual_seed(0)
    module = importlib.import_module(home)
    found = doctest.DocTestFinder(recurse=True).find(module, home)
    shown = {test.name.removeprefix(f"{home}.") for test in found if test.examples}
    assert shown >= set(PUBLIC[home]), "a public name has no example"
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


DOCUMENTS = [
    "README.md",
    *(f"{folder}/*.md" for folder in ("docs", "checkpoints", "recipes", "tests")),
]
TARGETS = re.search(r"\.PHONY:(.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))[1].split()
START = re.compile(
    r"(?:\S*python\S*|torchrun --nproc_per_node \d+) +(?:-m (?P<module>[\w.]+)|(?P<script>\w+)\.py)"
    r"|(?P<bare>\w+_video)\.py(?= +-)"
)


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
    monkeypatch.setattr(errors, "_own_code", False)
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
    with mock.patch.dict(models.MODELS.known):
        yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.modules.pop("tiny", None)


def test_the_collection_sees_the_commands():
    """A pattern that finds nothing would prove nothing."""
    names = {name for name, *_ in COMMANDS}
    scripts = {f"{kind}_video.py" for kind in ("infer", "make", "evaluate", "train")}
    kinds = "synthetic", "recordings", "pack", "salient360", "vr_eyetracking"
    prepare = {f"prepare.{kind}" for kind in kinds}
    assert names >= {*scripts, *prepare, *SMALL, "tests.fuzz", "recipes.distill"}
    train = "train_video.py --data_root synthetic_360 --output_dir runs/synthetic --epochs 1"
    assert any(" ".join(command).startswith(train) for command in COMMANDS)


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


@pytest.mark.numbers
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


def test_targets_in_the_documents_are_there():
    named = {match[1] for line in LINES if (match := re.match(r"make ([a-z]+)", line))}
    assert {"demo", "test"} <= named <= set(TARGETS)


def test_make_clean_keeps_what_the_user_made(tmp_path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in (".venv/bin", "outputs/infer", "outputs/demo_saliency", "video/__pycache__"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "outputs/my_overlay.mp4").write_bytes(b"an hour of work")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["Makefile", "outputs", "outputs/infer", "outputs/my_overlay.mp4", "video"]
