"""Installs the repository as one package, `saliency360`, for other programs.

    pip install .

The scripts here import packages with plain names, such as `datasets`, which also belong to others.
So the build copies them into `saliency360` and rewrites their imports of each other:
`from datasets.gaze import …` becomes `from saliency360.datasets.gaze import …`.
"""

import ast
import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
NAME = "saliency360"
CHECKPOINT = "checkpoints/cube_unet_best.pth"
PACKAGES = [
    *("common", "datasets", "evaluation", "losses", "maps", "metrics", "models", "prepare"),
    *("projection", "training", "video", "views"),
]
OURS = {*PACKAGES, *(path.stem for path in ROOT.glob("*.py"))}
INIT = f'''"""Saliency of 360° video: `from {NAME} import models`, `from {NAME}.video import …`."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "{CHECKPOINT}"
'''


def within_package(source: str) -> str:
    """Return a module's source as a part of saliency360: its imports, and commands in messages.

    Raises ValueError for an import that can't be rewritten in place, such as `import models.base`.
    """
    lines = source.encode().splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names, before, after = [node.module], "from ", f"from {NAME}."
        elif isinstance(node, ast.Import):
            names, before, after = [n.name for n in node.names], "import ", f"from {NAME} import "
        else:
            continue
        if not OURS.intersection(name.split(".")[0] for name in names):
            continue
        line, start, old = lines[node.lineno - 1], node.col_offset, (before + names[0]).encode()
        binds_plain_name = isinstance(node, ast.Import) and names[0] not in OURS
        if len(names) > 1 or binds_plain_name or not line[start:].startswith(old):
            raise ValueError(f"line {node.lineno}: write `import module` or `from module import …`")
        new = (after + names[0]).encode()
        lines[node.lineno - 1] = line[:start] + new + line[start + len(old) :]
    source = b"".join(lines).decode()
    source = re.sub(r"python -m (?=(prepare|models)\.)", f"python -m {NAME}.", source)
    return re.sub(r"python (\w+_video)\.py", rf"python -m {NAME}.\1", source)


class Build(build_py):
    """Copies modules into the package, as part of which they import each other."""

    def run(self) -> None:
        if self.editable_mode:
            raise SystemExit(
                "pip install -e: the package is made by rewriting imports and can't be edited in "
                "place; run pip install . again after each change"
            )
        target = Path(self.build_lib, NAME)
        shutil.rmtree(target, ignore_errors=True)  # modules that are no longer there
        super().run()
        target.joinpath("__init__.py").write_text(INIT, encoding="utf-8")
        target.joinpath("py.typed").touch()  # type checkers then read the annotations in it

    def find_package_modules(self, package: str, folder: str) -> list[tuple[str, str, str]]:
        return [
            found for found in super().find_package_modules(package, folder) if found[1] != "setup"
        ]

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        written, copied = super().build_module(module, module_file, package)
        path = Path(written)
        path.write_text(within_package(path.read_text(encoding="utf-8")), encoding="utf-8")
        return written, copied


def requirements() -> list[str]:
    """Return what the scripts need: the first part of requirements.txt."""
    scripts = (ROOT / "requirements.txt").read_text(encoding="utf-8").partition("\n\n")[0]
    words = (line.partition("#")[0].strip() for line in scripts.splitlines())
    return [word for word in words if word]


setup(
    name=NAME,
    version="0.1.0",
    description="Predict where people look in 360° video",
    license="MIT",
    python_requires=">=3.10",
    install_requires=requirements(),
    packages=[NAME, *(f"{NAME}.{name}" for name in PACKAGES)],
    package_dir={NAME: "."},
    package_data={NAME: [CHECKPOINT, "checkpoints/README.md", "views/viewer.html"]},
    cmdclass={"build_py": Build},
)
