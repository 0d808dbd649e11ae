"""Let a CubeUNet learn what it says itself at several sizes of a frame.

    python -m recipes.distill CHECKPOINT OUTPUT --data_root gaze_360

The mean of a network's logits over frames of several sizes is better than those of one size, and
costs as many passes. A network can learn to give this mean in one pass (G. Hinton, O. Vinyals and
J. Dean, "Distilling the Knowledge in a Neural Network", 2015). The target of each step is

    TEACHER · sigmoid(mean of the logits) + (1 − TEACHER) · map of the data set

for the last frame of a training clip, turned by any angle and mirrored or not; the data set's map
is scaled to the mean of the other one. No gaze on panoramas is needed. Batch statistics stay as
they are and nothing is dropped out, because the network is only corrected a little.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm import tqdm

from common.devices import autocast, choose_device, choose_precision
from common.errors import InputError, run_script
from common.options import HelpFormatter, at_least
from datasets.augment import AUGMENTATIONS
from datasets.layouts import File, list_clips, read_truth
from datasets.splits import read_splits
from losses import DensityLoss
from models import CubeUNet, load, save
from models.checkpoint import read, sha256
from projection import solid_angles
from recipes.flat_photos import cosine
from recipes.output import writable
from video.pictures import read_picture, resize, to_tensor

HEIGHTS = 384, 512, 640  # of the frames whose logits are averaged
TEACHER = 0.85  # share of the mean in the target
STEPS, LEARNING_RATE = 900, 1e-4


def teacher_map(teachers: list[CubeUNet], frames: Tensor) -> Tensor:
    """Return the sigmoid of the networks' mean logits: (1, 1, 3, H, W) → (1, 1, 1, H, W).

    Each network sees the frame at its own size. There is no front in it.
    """
    total, size = 0, frames.shape[-2:]
    for model in teachers:
        own = model.spec.height, model.spec.width
        small = interpolate(frames[0], own, mode="area" if own[0] <= size[0] else "bilinear")
        logits = sum(model.logits(small[None], no_motion(model, small[None])))
        total = total + interpolate(logits.float(), size, mode="bilinear")
    return (total / len(teachers)).sigmoid()[None]


def no_motion(model: CubeUNet, frames: Tensor) -> Tensor:
    channels = model.arguments["in_channels"] - 3
    return frames.new_zeros(1, 1, channels, *frames.shape[-2:])


def item_of(file: File, height: int, width: int, random: np.random.Generator) -> dict:
    """Return a frame (1, 3, H, W) and its map (1, 1, H, W), turned and perhaps mirrored."""
    frame = to_tensor(resize(read_picture(file.picture), height, width))
    item = {"frames": frame[None], "target": read_truth(file.truth, height, width)[None]}
    for name in ("yaw", "mirror"):
        item = AUGMENTATIONS[name](item, random)
    return item


def distill(path: Path, files: list[File], steps: int, share: float, seed: int) -> CubeUNet:
    """Return the network in a checkpoint after some steps on frames with their maps.

    share: of the mean of the logits in the target. seed: of the order of frames and their changes.
    """
    device, random = choose_device("auto"), np.random.default_rng(seed)
    precision = choose_precision("auto", device)
    teachers = [load(path, device, height=height, width=2 * height) for height in HEIGHTS]
    model = load(path, device).train()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout2d)):
            module.eval()
    size = model.spec.height, model.spec.width
    loss_of, areas = DensityLoss(*size).to(device), solid_angles(*size).to(device)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, weight_decay=0)
    order = np.concatenate([random.permutation(len(files)) for _ in range(-(-steps // len(files)))])
    for step, index in enumerate(tqdm(order[:steps], unit="step")):
        item = item_of(files[index], *size, random)
        frames, truth = (item[name].to(device)[None] for name in ("frames", "target"))
        with torch.no_grad(), autocast(device, precision):
            mean = teacher_map(teachers, frames)
        truth = truth * ((mean * areas).sum() / (truth * areas).sum())
        with autocast(device, precision):
            maps = model(frames, no_motion(model, frames))
        loss = loss_of(maps.float(), share * mean + (1 - share) * truth)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(step, steps)
        optimizer.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of a CubeUNet")
    add("output", type=Path, help="checkpoint to write")
    add("--data_root", type=Path, required=True, help="data set whose training frames are used")
    add("--teacher", type=at_least(0, 1.001), default=TEACHER, help="share of the mean's map")
    add("--steps", type=at_least(1, kind=int), default=STEPS, help="frames to learn from")
    add("--seed", type=int, default=0, help="seed of the order of frames and their changes")
    args = parser.parse_args()
    writable(args.output)
    if not isinstance(found := load(args.checkpoint), CubeUNet):
        raise InputError(f"{args.checkpoint}: holds '{found.name}'; give one of a CubeUNet")
    clips = list_clips(args.data_root, read_splits(args.data_root).get("train", []))
    files = [clip[-1] for clip in clips.values() if clip and clip[-1].truth]
    if not files:
        raise InputError(f"{args.data_root}: no training frame with a map; give another data set")
    model = distill(args.checkpoint, files, args.steps, args.teacher, args.seed)
    content = read(args.checkpoint)
    kept = "calibrated", "mean_of", "front", "run"
    facts = {name: content[name] for name in kept if content.get(name)}
    facts["distilled"] = {name: getattr(args, name) for name in ("teacher", "steps", "seed")}
    facts["distilled"]["sha256"] = sha256(args.checkpoint)
    save(args.output, model, **facts)


if __name__ == "__main__":
    run_script(main)
