"""Imports go one way: scripts → prepare, recipes → datasets, models, metrics → video, losses → …"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
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
