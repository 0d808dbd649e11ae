"""Distil a CubeUNet from its own maps at several frame sizes, or from other maps.

    python -m recipes.distill CHECKPOINT OUTPUT --data_root gaze_360

The mean of a network's logits over several frame sizes is better than the logits for one size, but
needs several passes. A network can learn to predict this mean in one pass (G. Hinton, O. Vinyals
and J. Dean, "Distilling the Knowledge in a Neural Network", 2015). The target of each step is

    teacher · sigmoid(mean of the logits) + (1 − teacher) · map of the data set

for the last frame of a training clip, randomly rotated and mirrored; the data set's map is scaled
to the mean of the other one. With --maps, maps written by recipes.teachers replace the sigmoid. No
gaze on panoramas is needed. Batch statistics are fixed and dropout is off, because the network
changes only a little.

With --varied, half of the frames are first reduced to the resolution of cheap cameras, down to
COARSEST rows, with the same target. A share MOVING has its motion image, the others a zero one.
With --looks, each frame is seen by one of the two looks alone, a share SECOND by the second. With
--lift P, the maps are multiplied by the lift (recipes/gaze_scenes.py) to the power P, where a scene
has one. With --photographs, each step also learns from the fixations of two flat photographs, with
the weight FLAT, so that what they taught (recipes/flat_photos.py) is not forgotten.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm import tqdm

from common.components import AUGMENTATIONS, MOTIONS
from common.devices import autocast, choose_device, choose_precision
from common.errors import InputError, run_script
from common.files import read_array
from common.options import HelpFormatter, at_least
from datasets.augment import possible
from datasets.layouts import File, list_clips, read_truth
from datasets.splits import read_splits
from losses import DensityLoss
from models import CubeUNet, load, save
from models.checkpoint import sha256
from projection import solid_angles
from recipes.flat import FlatDensityLoss, FlatUNet, to_tensor
from recipes.flat_photos import HEIGHT, WIDTH, batches, cosine
from recipes.gaze_sources import Picture, read_sources
from recipes.output import history, writable
from video.pictures import read_picture, resize
from video.spec import Spec

HEIGHTS = 384, 512, 640  # of the frames whose logits are averaged
TEACHER = 0.85  # share of the mean in the target
STEPS, LEARNING_RATE = 900, 1e-4
SMALL, COARSEST, MOVING, SECOND = 0.5, 80, 0.3, 0.45  # see above
MOST = 8.0  # times the attention of the prior: limit of a lift
FLAT, TOGETHER = 0.2, 2  # weight of the loss on photographs, and how many of them a step has


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


def mixed(mean: Tensor, truth: Tensor, share: float, areas: Tensor) -> Tensor:
    """Return share · mean + (1 − share) · truth, which is scaled to the mean of the other one."""
    truth = truth * ((mean * areas).sum() / (truth * areas).sum())
    return share * mean + (1 - share) * truth


def item_of(
    clip: list[File], target: Tensor, spec: Spec, random: np.random.Generator, varied: bool
) -> dict:
    """Return the last frame (1, 3, H, W) of a clip, its motion and target, turned and mirrored.

    target: (1, H, W). varied: see above.
    """
    size = spec.height, spec.width
    frames = [to_tensor(resize(read_picture(file.picture), *size)) for file in clip[-2:]]
    if varied and random.random() < SMALL:
        rows = round(math.exp(random.uniform(math.log(COARSEST), math.log(spec.height))))
        small = interpolate(torch.stack(frames), (rows, 2 * rows), mode="area")
        frames = list(interpolate(small, size, mode="bilinear"))
    moves = varied and random.random() < MOVING and len(clip) > 1
    motion = MOTIONS[spec.motion]()(frames[0] if moves else None, frames[-1])
    item = {"frames": frames[-1][None], "motion": motion[None], "target": target[None]}
    for name in possible(("yaw", "mirror"), spec.motion):
        item = AUGMENTATIONS[name](item, random, MOTIONS[spec.motion])
    return item


def student(path: Path) -> CubeUNet:
    """Return the CubeUNet in a checkpoint. Raises InputError for another model."""
    if not isinstance(model := load(path), CubeUNet):
        raise InputError(f"{path}: holds '{model.name}'; give one of a CubeUNet")
    return model


def endless(pictures: list[Picture]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of photographs and their maps without end, in the same order for every seed."""
    random = np.random.default_rng(99)
    while True:
        yield from batches(pictures, TOGETHER, random)


def distill(
    model: CubeUNet, clips: list[list[File]], pictures: list[Picture], args: argparse.Namespace
) -> CubeUNet:
    """Return the network after some steps on frames with their maps.

    pictures: flat photographs to learn from as well, or none. args: see main.
    """
    device, random = choose_device("auto"), np.random.default_rng(args.seed)
    looks = np.random.default_rng(args.seed + 77)  # independent of the order of the frames
    precision, spec, path = choose_precision("auto", device), model.spec, args.checkpoint
    heights = HEIGHTS if args.teacher and not args.maps else ()
    teachers = [load(path, device, height=height, width=2 * height) for height in heights]
    model.to(device).train()
    flat, photographs = FlatUNet(model), endless(pictures)  # shares its weights
    for module in (*model.modules(), *flat.modules()):
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout2d)):
            module.eval()
    size = spec.height, spec.width
    loss_of, areas = DensityLoss(*size).to(device), solid_angles(*size)
    flat_loss = FlatDensityLoss(HEIGHT, WIDTH).to(device)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, weight_decay=0)
    rounds = -(-args.steps // len(clips))
    order = np.concatenate([random.permutation(len(clips)) for _ in range(rounds)])
    for step, index in enumerate(tqdm(order[: args.steps], unit="step")):
        truth = read_truth(clips[index][-1].truth, *size)
        if args.maps:
            said = read_array(map_path(args.maps, clips[index])).astype(np.float32)
            said *= lift_of(clips[index], *said.shape, args.lift)
            said = torch.from_numpy(resize(said, *size))
            truth = mixed(said, truth, args.teacher, areas)
        item = item_of(clips[index], truth, spec, random, args.varied)
        frames, motion, target = (item[name].to(device)[None] for name in item)
        if teachers:
            with torch.no_grad(), autocast(device, precision):
                mean = teacher_map(teachers, frames)
            target = mixed(mean, target, args.teacher, areas.to(device))
        if args.looks:
            model.second_look = float(looks.random() < SECOND)
        with autocast(device, precision):
            maps = model(frames, motion)
        loss = loss_of(maps.float(), target)
        if pictures:
            images, fixated = (part.to(device) for part in next(photographs))
            with autocast(device, precision):
                maps = flat(images)
            loss = loss + FLAT * flat_loss(maps.float(), fixated)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = args.rate * cosine(step, args.steps)
        optimizer.step()
    return model.eval()


def lift_of(clip: list[File], height: int, width: int, power: float = 1) -> np.ndarray | float:
    """Return by how much attention to people is denser in a clip's last frame: (H, W), or 1.

    It is at most MOST, before the power is taken.
    """
    path = clip[-1].picture.with_name(f"{clip[-1].picture.stem}_lift.npy")
    if not path.exists():
        return 1.0
    return resize(read_array(path).astype(np.float32).clip(1, MOST) ** power, height, width)


def training_clips(root: Path) -> list[list[File]]:
    """Return the training clips whose last frame has a map. Raises InputError for none."""
    clips = list_clips(root, read_splits(root).get("train", [])).values()
    clips = [clip for clip in clips if clip and clip[-1].truth]
    if not clips:
        raise InputError(f"{root}: no training frame with a map; give another data set")
    return clips


def map_path(maps: Path, clip: list[File]) -> Path:
    """Return where the map of a clip's last frame is that recipes.teachers writes."""
    return maps / f"{clip[-1].picture.parent.name}.npy"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of a CubeUNet")
    add("output", type=Path, help="checkpoint to write")
    add("--data_root", type=Path, required=True, help="data set whose training frames are used")
    add("--maps", type=Path, help="folder of the maps that recipes.teachers has written")
    add("--teacher", type=at_least(0, 1.001), default=TEACHER, help="share of the mean's map, or "
        "of that in --maps")  # fmt: skip
    add("--steps", type=at_least(1, kind=int), default=STEPS, help="frames to learn from")
    add("--rate", type=at_least(1e-9), default=LEARNING_RATE, help="peak learning rate")
    add("--varied", action="store_true", help="also frames of small pictures, and their motion")
    add("--looks", action="store_true", help="each frame with one of two looks alone")
    add("--lift", type=at_least(0, 10), default=0.0, help="power of the scenes' lifts by which the "
        "maps are multiplied")  # fmt: skip
    add("--photographs", type=Path, help="folder of flat photographs (recipes/gaze_sources.py) to "
        "learn from as well")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of the order of frames and their changes")
    args = parser.parse_args()
    writable(args.output)
    model, clips = student(args.checkpoint), training_clips(args.data_root)
    if args.maps and (
        missing := [clip for clip in clips if not map_path(args.maps, clip).exists()]
    ):
        raise InputError(f"{map_path(args.maps, missing[0])}: no such file; run recipes.teachers")
    sources = read_sources(args.photographs)["train"].photographs if args.photographs else []
    model = distill(model, clips, sources, args)
    facts = history(args.checkpoint)
    said = "teacher", "steps", "rate", "varied", "looks", "lift", "seed"
    facts["distilled"] = {name: getattr(args, name) for name in said}
    facts["distilled"]["photographs"] = len(sources)
    facts["distilled"]["sha256"] = sha256(args.checkpoint)
    save(args.output, model, **facts)


if __name__ == "__main__":
    run_script(main)
