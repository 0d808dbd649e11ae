"""Train a CubeUNet on scenes of gaze, with the maps of a teacher.

    python -m recipes.distill CHECKPOINT OUTPUT --data_root gaze_360 --sources DIR --maps maps

Each step learns from the last frame of a scene (recipes/gaze_scenes.py), randomly rotated and
mirrored. Its target is

    TEACHER · map of recipes.teachers + (1 − TEACHER) · the scene's own map

with the own map scaled to the mean of the teacher's (G. Hinton, O. Vinyals and J. Dean, "Distilling
the Knowledge in a Neural Network", 2015). Half of the frames are first reduced to the resolution of
cheap cameras, down to COARSEST rows, with the same target. A share MOVING has its motion image, the
others a zero one. Each frame is seen by one of the two looks alone, a share SECOND by the second.

Each step also learns from the fixations of two flat photographs, with the weight --flat, so that
what they taught (recipes/flat_photos.py) is not forgotten. Batch statistics are fixed and dropout
is off.
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
from models import CubeUNet, save
from projection import solid_angles
from recipes.flat import FlatDensityLoss, FlatUNet, to_tensor
from recipes.flat_photos import HEIGHT, WIDTH, batches, cosine
from recipes.gaze_sources import LICENCES, Picture, read_sources
from recipes.output import history, load_cube_unet, writable
from video.pictures import read_picture, resize
from video.spec import Spec

TEACHER = 0.6  # share of the teacher's map in the target
SMALL, COARSEST, MOVING, SECOND = 0.5, 80, 0.3, 0.45  # see above
TOGETHER = 2  # photographs of a step


def mixed(teacher: Tensor, truth: Tensor, areas: Tensor) -> Tensor:
    """Return TEACHER · teacher + (1 − TEACHER) · truth, which is scaled to the teacher's mean."""
    truth = truth * ((teacher * areas).sum() / (truth * areas).sum())
    return TEACHER * teacher + (1 - TEACHER) * truth


def item_of(clip: list[File], target: Tensor, spec: Spec, random: np.random.Generator) -> dict:
    """Return the last frame (1, 3, H, W) of a clip, its motion and target, turned and mirrored.

    target: (1, H, W).
    """
    size = spec.height, spec.width
    frames = [to_tensor(resize(read_picture(file.picture), *size)) for file in clip[-2:]]
    if random.random() < SMALL:
        rows = round(math.exp(random.uniform(math.log(COARSEST), math.log(spec.height))))
        small = interpolate(torch.stack(frames), (rows, 2 * rows), mode="area")
        frames = list(interpolate(small, size, mode="bilinear"))
    moves = random.random() < MOVING and len(clip) > 1
    motion = MOTIONS[spec.motion]()(frames[0] if moves else None, frames[-1])
    item = {"frames": frames[-1][None], "motion": motion[None], "target": target[None]}
    for name in possible(("yaw", "mirror"), spec.motion):
        item = AUGMENTATIONS[name](item, random, MOTIONS[spec.motion])
    return item


def endless(pictures: list[Picture]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of photographs and their maps without end, in the same order for every seed."""
    random = np.random.default_rng(99)
    while True:
        yield from batches(pictures, TOGETHER, random)


def distill(
    model: CubeUNet, clips: list[list[File]], pictures: list[Picture], args: argparse.Namespace
) -> CubeUNet:
    """Return the network after some steps on frames with their maps.

    pictures: flat photographs to learn from as well. args: see main.
    """
    device, random = choose_device("auto"), np.random.default_rng(args.seed)
    looks = np.random.default_rng(args.seed + 77)  # independent of the order of the frames
    precision, spec = choose_precision("auto", device), model.spec
    model.to(device).train()
    flat, photographs = FlatUNet(model), endless(pictures)  # shares its weights
    for module in (*model.modules(), *flat.modules()):
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout2d)):
            module.eval()
    size = spec.height, spec.width
    loss_of, areas = DensityLoss(*size).to(device), solid_angles(*size)
    flat_loss = FlatDensityLoss(HEIGHT, WIDTH).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0)
    rounds = -(-args.steps // len(clips))
    order = np.concatenate([random.permutation(len(clips)) for _ in range(rounds)])
    for step, index in enumerate(tqdm(order[: args.steps], unit="step")):
        target = read_truth(clips[index][-1].truth, *size)
        said = read_array(map_path(args.maps, clips[index])).astype(np.float32)
        target = mixed(torch.from_numpy(resize(said, *size)), target, areas)
        item = item_of(clips[index], target, spec, random)
        frames, motion, target = (item[name].to(device)[None] for name in item)
        images, fixated = (part.to(device) for part in next(photographs))
        model.second_look = float(looks.random() < SECOND)
        with autocast(device, precision):
            maps, flat_maps = model(frames, motion), flat(images)
        loss = loss_of(maps.float(), target) + args.flat * flat_loss(flat_maps.float(), fixated)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = args.rate * cosine(step, args.steps)
        optimizer.step()
    return model.eval()


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
    add("--sources", type=Path, required=True,
        help=f"folder that holds any of {', '.join(LICENCES)}")  # fmt: skip
    add("--maps", type=Path, required=True, help="folder that recipes.teachers has written")
    add("--steps", type=at_least(1, kind=int), default=1080, help="frames to learn from")
    add("--rate", type=at_least(1e-9), default=3e-4, help="peak learning rate")
    add("--flat", type=at_least(0), default=0.2, help="weight of the loss on photographs")
    add("--seed", type=int, default=0, help="seed of the order of frames and their changes")
    args = parser.parse_args()
    writable(args.output)
    model, clips = load_cube_unet(args.checkpoint), training_clips(args.data_root)
    for path in (map_path(args.maps, clip) for clip in clips):
        if not path.exists():
            raise InputError(f"{path}: no such file; run recipes.teachers")
    photographs = read_sources(args.sources)["train"].photographs
    model = distill(model, clips, photographs, args)
    said = {name: getattr(args, name) for name in ("steps", "rate", "flat", "seed")}
    facts = history(args.checkpoint, "distill", **said, photographs=len(photographs))
    save(args.output, model, **facts)


if __name__ == "__main__":
    run_script(main)
