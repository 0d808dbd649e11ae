"""Options shared by several scripts, and the types of their values.

The functions that add options take the add_argument method of a parser or of an argument group.
"""

import argparse
import math
import shlex
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from common.components import MOTIONS

CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints/cube_unet_best.pth"  # shipped

# Choices of modules that are slow to import, so that --help is fast.
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # torch's names
SAMPLINGS = ("reference", "seamless")  # of SST-Sal, in models/sphere_taps.py
HIGHEST_FPS = 1000.0  # at which every frame of a video is sampled
TABLES = ("text", "markdown", "latex", "csv")  # in evaluation/tables.py
STEREO = ("none", "top-bottom", "left-right")  # in video/layout.py


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default  # 0 is shown; False, an empty list and None are not
        if default is None or default is False or default == [] or action.required:
            return action.help
        return super()._get_help_string(action)


def python() -> str:
    """Return the command of this Python, such as .venv/bin/python."""
    path, here = Path(sys.executable), Path.cwd()
    if Path(shutil.which("python") or "").parent == path.parent:
        return "python"
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def at_least(low: Any, below: float = math.inf, kind: Any = float) -> Callable[[str], Any]:
    """Return the argparse type of a number of type `kind` in [low, below)."""

    def number(text: str) -> Any:
        if not low <= (value := kind(text)) < below:
            above = f" and less than {below}" if below < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text}: give {low} or more{above}")
        return value

    number.__name__ = kind.__name__  # in argparse's error about a text that is not a number
    return number


def rate(text: str) -> Fraction:
    try:
        return Fraction(text).limit_denominator(1001)
    except ZeroDivisionError as error:
        raise ValueError from error


frame_rate = at_least(Fraction(1, 1000), 1001, rate)  # 25, 29.97 or 30000/1001
worker_count = at_least(1, 1025, int)
pixel_count = at_least(1, 16385, int)


def sampled_rate(text: str) -> float:
    """Return the value of --model_fps."""
    return HIGHEST_FPS if text == "all" else at_least(0.01, HIGHEST_FPS)(text)


def add_size_options(add: Callable) -> None:
    """Add --height and --width of the frames of a data set."""
    add("--height", type=pixel_count, default=240, help="height of a frame in pixels")
    add("--width", type=pixel_count, default=480, help="width of a frame in pixels")


def add_machine_options(add: Callable, precision: str = "auto") -> None:
    """Add --device and --precision, with its default."""
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, …")
    add("--precision", default=precision, choices=["auto", *PRECISIONS],
        help="the network's number format; auto: bf16 if supported, else fp32")  # fmt: skip


def add_data_options(add: Callable) -> None:
    """Add --data_root, --layout and --fps of a data set."""
    add("--data_root", type=Path, default="360_Saliency_dataset_2018ECCV", help="data set")
    add("--layout", metavar="package.module:Class", help="your own layout of the data set; its "
        "code is run (default: detected)")  # fmt: skip
    add("--fps", type=frame_rate, help="frame rate of the data set, which is sampled like a "
        "video (default: as in its dataset.json; without one, every frame is used)")  # fmt: skip


def add_model_options(add: Callable, **number: str) -> None:
    """Add --model and --backbone of a checkpoint. number: nargs of both."""
    given: dict = {"metavar": "package.module:NAME", **number}
    add("--model", help="your own model that the checkpoint contains; its code is run", **given)
    add("--backbone", help="your own backbone that a cube_unet checkpoint contains", **given)


def add_sampling_option(add: Callable) -> None:
    add("--sampling", choices=SAMPLINGS, help="how SST-Sal samples the sphere; "
        "reference: exactly as in the authors' code (default: the checkpoint's)")  # fmt: skip


def add_motion_option(add: Callable) -> None:
    add("--motion", metavar="NAME", help=f"motion image of the model: {', '.join(MOTIONS)} or "
        "package.module:Class for your own (default: as in its training)")  # fmt: skip


def add_layout_options(add: Callable, default: str = "from the file's metadata") -> None:
    """Add --stereo and --coverage. default: text for their help."""
    add("--stereo", choices=STEREO, help="stereo layout: the left eye is the upper or "
        f"the left half (default: {default})")  # fmt: skip
    add("--coverage", type=float, nargs=4, metavar=("WEST", "EAST", "SOUTH", "NORTH"),
        help="part of the sphere that each eye covers, in degrees of longitude and latitude; "
        f"VR180: -90 90 -90 90 (default: {default}, else -180 180 -90 90)")  # fmt: skip
