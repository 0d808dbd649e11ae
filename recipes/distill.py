"""Write scenes from which a CubeUNet learns what it says itself at several sizes.

    python -m recipes.distill CHECKPOINT --data_root gaze_360 --output distilled_360

The mean of a network's logits over frames of several sizes is better than those of one size, and
costs as many passes. A network can learn to give this mean in one pass (G. Hinton, O. Vinyals and
J. Dean, "Distilling the Knowledge in a Neural Network", 2015). OUTPUT has the training clips of a
data set; the last frame of each has as its map

    TEACHER · density of the mean's map + (1 − TEACHER) · density of the data set's map

where a density has integral 1 over the sphere. Clips of the other splits are as they were, so that
they still tell how good a network is at what people looked at. Train on OUTPUT with train_video.py.
"""

import startup  # noqa: F401  # isort: skip

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate
from tqdm import tqdm

from cli import (
    HelpFormatter,
    InputError,
    at_least,
    autocast,
    choose_device,
    choose_precision,
    run_script,
    write_json,
)
from datasets.layouts import list_clips, read_map
from datasets.splits import read_splits
from files import copy, lock, write_array
from models import CubeUNet, load
from models.checkpoint import sha256
from prepare.records import begin_clip, finish_clip, is_complete
from projection import solid_angles
from video.pictures import read_picture, resize, to_tensor

HEIGHTS = 384, 512, 640  # of the frames whose logits are averaged
TEACHER = 0.5  # share of the mean's map


class Teacher:
    """The mean of a CubeUNet's logits over several sizes of a frame, without its front."""

    def __init__(self, path: Path):
        self.device = choose_device("auto")
        self.dtype = choose_precision("auto", self.device)
        self.models = [
            load(path, self.device, height=height, width=2 * height, front=0.0)
            for height in HEIGHTS
        ]
        if not isinstance(self.models[0], CubeUNet):
            raise InputError(f"{path}: holds no CubeUNet; give a checkpoint of one")

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return the map of a picture (H, W, 3) at a size, in [0, 1]: (height, width) float32."""
        total = 0
        for model in self.models:
            size = model.spec.height, model.spec.width
            frames = to_tensor(resize(picture, *size)).to(self.device)[None, None]
            channels = model.arguments["in_channels"] - 3
            with autocast(self.device, self.dtype):
                logits = sum(model.logits(frames, frames.new_zeros(1, 1, channels, *size)))
            total = total + interpolate(logits.float(), (height, width), mode="area")
        return (total / len(self.models)).sigmoid()[0, 0].cpu().numpy()


def density(saliency: np.ndarray) -> np.ndarray:
    """Return a map (H, W) whose integral over the sphere is 1."""
    return saliency / (saliency * solid_angles(*saliency.shape).numpy()).sum()


def write_clip(
    folder: Path, files: list, facts: dict, teacher: Teacher | None, share: float
) -> None:
    """Write a clip, unless it is complete. Without a teacher its maps are those of the data set."""
    if is_complete(folder, facts):
        return
    begin_clip(folder, facts)
    for file in files:
        copy(file.picture, folder / file.picture.name)
        if file.truth and not teacher:
            copy(file.truth, folder / file.truth.name)
    if teacher:
        truth = density(read_map(files[-1].truth))
        mixed = (1 - share) * truth
        mixed += share * density(teacher(read_picture(files[-1].picture), *truth.shape))
        write_array(folder / files[-1].truth.name, (mixed / mixed.max()).astype(np.float16))
    finish_clip(folder, facts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of a CubeUNet")
    add("--data_root", type=Path, required=True, help="data set of recipes.gaze_scenes")
    add("--output", type=Path, default="distilled_360", help="folder of the data set to write")
    add("--teacher", type=at_least(0, 1.001), default=TEACHER, help="share of the mean's map")
    args = parser.parse_args()
    teacher, splits = Teacher(args.checkpoint), read_splits(args.data_root)
    facts = {"source": args.data_root.resolve().name, "checkpoint": sha256(args.checkpoint)}
    facts |= {"heights": list(HEIGHTS), "teacher": args.teacher}
    with lock(args.output):
        for split, names in splits.items():
            clips = list_clips(args.data_root, names)
            for name, files in tqdm(clips.items(), f"{args.output} {split}", unit="clip"):
                if not files or not files[-1].truth:
                    raise InputError(f"{args.data_root / name}: no frame with a map at its end")
                learns = teacher if split == "train" else None
                write_clip(args.output / name, files, facts, learns, args.teacher)
        write_json(args.output / "splits.json", splits)


if __name__ == "__main__":
    run_script(main)
