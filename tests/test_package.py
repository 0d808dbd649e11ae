"""`pip install .` puts one package beside others, and plain names stay theirs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import models
from tests.clips import write_video
from video import read_frames

ROOT = Path(__file__).resolve().parents[1]
PLAIN = {path.stem for path in ROOT.glob("*.py")}
PLAIN |= {path.parent.name for path in ROOT.glob("*/*.py")} - {"build"}
MAP_OF_ONE_FRAME = """
import sys
import datasets, numpy
from saliency360 import CHECKPOINT, models, training
from saliency360.video import read_frames

model = models.load(CHECKPOINT)
_, saliency = next(models.predict(model, read_frames("clip.mp4", model.spec)))
numpy.save("map.npy", saliency.numpy())
print(datasets.OF, *sorted(set(sys.argv[1:]) & sys.modules.keys()), training.git_revision())
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

    def run(*words) -> str:
        result = subprocess.run([sys.executable, *map(str, words)], cwd=tmp_path, text=True,
            capture_output=True, timeout=120, env=os.environ | {"PYTHONPATH": paths})  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout

    return tmp_path, run


def test_packages_collided_with_datasets_of_others(installed):
    folder, facts = installed
    assert [path.name for path in folder.iterdir()] == ["saliency360"]
    assert (facts / "top_level.txt").read_text().split() == ["saliency360"]


def test_setup_py_was_in_the_package(installed):
    assert not (installed[0] / "saliency360/setup.py").exists()


def test_the_page_of_the_viewer_is_in_the_package(installed):
    page = "views/viewer.html"
    assert (installed[0] / "saliency360" / page).read_bytes() == (ROOT / page).read_bytes()


def test_the_package_needs_what_scripts_need_and_not_what_tests_need(installed):
    needed = (installed[1] / "requires.txt").read_text().split()
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert needed == [line.split()[0] for line in lines[1 : lines.index("")]]


def test_no_import_of_a_plain_name_is_left(installed):
    modules = list(installed[0].glob("**/*.py"))
    assert len(modules) > 50
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & PLAIN, path


def test_predicts_the_same_map_beside_packages_of_the_same_names(elsewhere):
    folder, run = elsewhere
    printed = run("-c", MAP_OF_ONE_FRAME, *PLAIN - {"datasets"})
    assert printed == "Hugging Face unknown\n"  # not the revision of the user's repository
    model = models.load(ROOT / "checkpoints/cube_unet_best.pth")
    _, expected = next(models.predict(model, read_frames(folder / "clip.mp4", model.spec)))
    np.testing.assert_allclose(np.load(folder / "map.npy"), expected.numpy(), rtol=1e-5, atol=1e-7)


def test_scripts_of_the_package_find_their_checkpoint_from_anywhere(elsewhere):
    folder, run = elsewhere
    run("-m", "saliency360.infer_video", "--video_path", "clip.mp4", "--output_dir", "maps")
    assert len(list((folder / "maps").glob("sal_*.png"))) == 2
