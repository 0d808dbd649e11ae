"""Imports go one way: scripts → prepare, recipes → datasets, models, metrics → video, losses → …"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BELOW = {  # packages that each one may import, besides itself
    "projection": set(),
    "losses": {"projection"},
    "video": {"projection", "cli", "files", "restricted_pickle"},
    "models": {"projection", "video", "cli", "files", "restricted_pickle"},
    "metrics": {"projection", "cli"},
    "datasets": {"projection", "video", "cli", "files", "restricted_pickle"},
}
BELOW["prepare"] = {*BELOW, "cli", "files", "startup"}
BELOW["recipes"] = {*BELOW, "cli", "files", "restricted_pickle", "startup"}
OURS = {path.stem for path in ROOT.glob("*.py")} | {
    path.parent.name for path in ROOT.glob("*/*.py")
}


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


@pytest.mark.parametrize("package", [p for p in BELOW if p not in ("prepare", "recipes")])
def test_libraries_do_not_mention_the_options_of_scripts(package):
    for path in (ROOT / package).glob("*.py"):
        assert " --" not in path.read_text(encoding="utf-8"), path
