"""Installs the repository as one package, `saliency360`, for other programs.

    pip install .

The scripts here import packages with plain names, such as `datasets`, which also belong to others.
So the build copies them into `saliency360` and rewrites their imports of each other:
`from datasets.gaze import …` becomes `from saliency360.datasets.gaze import …`.
"""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
NAME = "saliency360"
VERSION = re.findall(r'"([\d.]+)"', (ROOT / "common/__init__.py").read_text(encoding="utf-8"))[0]
CHECKPOINT = "checkpoints/cube_unet_best.pth"
FILES = [CHECKPOINT, "checkpoints/README.md", "datasets/published_splits.json", "views/viewer.html"]
PACKAGES = [
    *("common", "datasets", "evaluation", "losses", "maps", "metrics", "models", "prepare"),
    *("projection", "training", "video", "views"),
]
OURS = "|".join([*PACKAGES, *(path.stem for path in ROOT.glob("*_video.py"))])
REWRITTEN = {  # what a line of a module says, and what it says in the package
    rf"^( *)from ({OURS})\b(?=[\w.]* import )": rf"\1from {NAME}.\2",
    rf"^( *)import ({OURS})$": rf"\1from {NAME} import \2",
    r"python -m (?=(prepare|models)\.)": f"python -m {NAME}.",
    r"python (\w+_video)\.py": rf"python -m {NAME}.\1",
    r"(\{(?:options\.)?python\(\)\}) (\w+_video)\.py": rf"\1 -m {NAME}.\2",
}
INIT = f'''"""Saliency of 360° video: `from {NAME} import models`, `from {NAME}.video import …`."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "{CHECKPOINT}"
__version__ = "{VERSION}"
'''


class Build(build_py):
    """Copies modules into the package, as part of which they import each other."""

    def run(self) -> None:
        if self.editable_mode:
            problem = "imports are rewritten, so the package can't be edited in place"
            raise SystemExit(f"pip install -e: {problem}; run pip install . after each change")
        target = Path(self.build_lib, NAME)
        shutil.rmtree(target, ignore_errors=True)  # modules that are no longer there
        super().run()
        for name in ("setup.py", "app.py"):  # which needs packages of its own
            target.joinpath(name).unlink()
        target.joinpath("__init__.py").write_text(INIT, encoding="utf-8")
        target.joinpath("py.typed").touch()  # type checkers then read the annotations in it

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        written, copied = super().build_module(module, module_file, package)
        source = Path(written).read_text(encoding="utf-8")
        for here, there in REWRITTEN.items():
            source = re.sub(here, there, source, flags=re.MULTILINE)
        Path(written).write_text(source, encoding="utf-8")
        return written, copied


scripts_need = (ROOT / "requirements.txt").read_text(encoding="utf-8")

setup(
    name=NAME,
    version=VERSION,
    description="Predict where people look in 360° video",
    license="MIT",
    python_requires=">=3.10",
    install_requires=re.findall(r"^[^#\s]+", scripts_need, flags=re.MULTILINE),
    packages=[NAME, *(f"{NAME}.{name}" for name in PACKAGES)],
    package_dir={NAME: "."},
    package_data={NAME: FILES},
    cmdclass={"build_py": Build},
    entry_points={"console_scripts": [f"{NAME} = {NAME}.__main__:command"]},
)
