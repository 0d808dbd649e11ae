"""Train a CubeUNet on flat photographs, before it is trained on the sphere.

    python -m recipes.flat_photos --sources DIR --init init.pth --output flat.pth

Flat photographs are cheaper than panoramas and show more detail. The checkpoint of the epoch with
the lowest validation loss is kept; it is an ordinary CubeUNet checkpoint.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.components import AUGMENTATIONS, MOTIONS
from common.devices import autocast, choose_device, choose_precision
from common.errors import InputError, run_script
from common.options import HelpFormatter, at_least
from models import CubeUNet, save
from models.ema import WeightAverage
from recipes.flat import FlatDensityLoss, FlatUNet, motion_levels, read_item
from recipes.gaze_sources import LICENCES, Picture, read_sources
from recipes.output import history, load_cube_unet

HEIGHT, WIDTH = 256, 320  # pixels in which a photograph is shown
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.01  # peak learning rate of AdamW
EMA = 0.998  # decay of the average of weights that is validated and kept
AUGMENT = "mirror", "light"


def batches(
    pictures: Sequence[Picture], batch_size: int, random: np.random.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield RGB (B, 3, H, W) and target maps (B, 1, H, W) of all pictures.

    random: shuffles and augments them; None leaves the pictures as they are, in their order.
    """
    order = random.permutation(len(pictures)) if random else np.arange(len(pictures))
    for start in range(0, len(pictures), batch_size):
        items = [read_item(pictures[k], HEIGHT, WIDTH) for k in order[start : start + batch_size]]
        for name in AUGMENT if random else ():
            items = [AUGMENTATIONS[name](item, random, MOTIONS["none"]) for item in items]
        yield tuple(torch.cat([item[name] for item in items]) for name in ("frames", "target"))


def cosine(step: int, steps: int) -> float:
    """Return the factor of the learning rate at a step: linear over 5 % of the steps, then cosine.

    step: counted from 0.
    """
    return min((step + 1) / (0.05 * steps + 1), (1 + math.cos(math.pi * step / steps)) / 2)


def train(
    cube: CubeUNet,
    pictures: Sequence[Picture],
    validation: Sequence[Picture],
    epochs: int = 5,
    batch_size: int = 8,
    seed: int = 0,
) -> Iterator[tuple[CubeUNet, float, float]]:
    """Train a CubeUNet on flat pictures. Its cube padding is replaced, see FlatUNet.

    Yields after each epoch the averaged CubeUNet, which is changed by the next epoch, and the
    mean losses of the training and of the validation pictures.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    network, loss_of = FlatUNet(cube).to(device), FlatDensityLoss(HEIGHT, WIDTH).to(device)
    average = WeightAverage(network, EMA)
    optimizer = torch.optim.AdamW(
        cube.parameter_groups(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )

    def loss_on(model: FlatUNet, images: Tensor, target: Tensor) -> Tensor:
        with autocast(device, precision):
            maps = model(images.to(device))
        return loss_of(maps, target.to(device))

    step, steps = 0, epochs * math.ceil(len(pictures) / batch_size)
    for epoch in range(1, epochs + 1):
        network.train()
        for norm, _ in motion_levels(network.cube):
            norm.eval()  # photographs do not move
        train_loss = val_loss = 0.0
        for images, target in tqdm(
            batches(pictures, batch_size, random), f"epoch {epoch}", steps // epochs, unit="step"
        ):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * group["scale"] * cosine(step, steps)
            loss = loss_on(network, images, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(network)
            step += 1
            train_loss += loss.item() * len(images) / len(pictures)
        with torch.inference_mode():
            for images, target in batches(validation, batch_size):
                loss = loss_on(average.module, images, target)
                val_loss += loss.item() * len(images) / len(validation)
        yield average.module.cube, train_loss, val_loss


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.flat_photos",
        description="Train a CubeUNet on flat photographs with the fixations of real people.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--sources", type=Path, required=True,
        help=f"folder that holds any of {', '.join(LICENCES)}")  # fmt: skip
    add("--init", type=Path, required=True, help="checkpoint of a CubeUNet to start from")
    add("--output", type=Path, default="flat.pth", help="checkpoint to write")
    add("--epochs", type=at_least(1, kind=int), default=5, help="passes over the photographs")
    add("--batch_size", type=at_least(1, kind=int), default=8, help="photographs in each step")
    add("--seed", type=int, default=0, help="seed for shuffling, augmentation and dropout")
    args = parser.parse_args()
    sources = read_sources(args.sources)
    pictures, validation = (sources[split].photographs for split in ("train", "val"))
    if not pictures or not validation:
        raise InputError(
            f"{args.sources}: holds no photographs to train on and validate with; add "
            "osie, eyecrowd or scene500"
        )
    cube, best = load_cube_unet(args.init), math.inf
    facts = history(args.init, "flat_photos", epochs=args.epochs, seed=args.seed)
    runs = train(cube, pictures, validation, args.epochs, args.batch_size, args.seed)
    for epoch, (model, train_loss, val_loss) in enumerate(runs, start=1):
        print(f"epoch {epoch}: training loss {train_loss:.4f}, validation loss {val_loss:.4f}")
        if not math.isfinite(train_loss):
            raise InputError(f"{args.init}: the loss is not finite; start from other weights")
        if val_loss < best:
            best = val_loss
            save(args.output, model, epoch=epoch, val_loss=val_loss, **facts)


if __name__ == "__main__":
    run_script(main)
