"""Train a saliency model on clips with ground truth.

The same command continues an interrupted run exactly where it stopped. Several GPUs: torchrun
--nproc_per_node 4 train_video.py …
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import json
import math
import shlex
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from common import options
from common.components import AUGMENTATIONS, LOSSES, MODELS, MOTIONS
from common.errors import InputError, run_script
from common.options import at_least, python

OPTIMIZERS = {
    "sgd": lambda groups, config: torch.optim.SGD(
        groups, config.learning_rate, config.momentum, weight_decay=config.weight_decay
    ),
    "adamw": lambda groups, config: torch.optim.AdamW(
        groups, config.learning_rate, weight_decay=config.weight_decay, fused=True
    ),
}

# Learning rate of a step, counted from 0, as a fraction of the peak learning rate.
SCHEDULES = {
    "constant": lambda step, steps: 1.0,
    "cosine": lambda step, steps: min(
        (step + 1) / (0.05 * steps + 1), (1 + math.cos(math.pi * min(step / steps, 1))) / 2
    ),
}

# Default training options by (model, recipe). Other models have those of cube_unet.
CUBE_UNET: dict[str, Any] = {
    "model_args": [],
    "model_fps": None,  # as in --init, else the model's own
    "epochs": 10,
    "samples": 0,
    "batch_size": 2,
    "skip_frames": 0,
    "loss": "smse",
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "momentum": 0.9,
    "weight_decay": 1e-5,
    "clip_gradient": 0.0,
    "ema": 0.0,
    "augment": ["yaw", "mirror"],
}
CUBE_UNET_PAPER = CUBE_UNET | {
    "model_args": ["backbone=published"],
    "model_fps": options.HIGHEST_FPS,
    "optimizer": "sgd",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "augment": [],
}
SST_SAL = CUBE_UNET_PAPER | {
    "model_args": [],
    "model_fps": None,
    "epochs": 240,
    "batch_size": 1,
    "skip_frames": 20,
    "loss": "spherical_kl",
    "learning_rate": 0.8,
    "momentum": 0.0,
    "weight_decay": 0.0,
}
DEFAULTS = {
    ("cube_unet", "default"): CUBE_UNET,
    ("cube_unet", "paper"): CUBE_UNET_PAPER,
    ("sst_sal", "default"): SST_SAL,
    ("sst_sal", "paper"): SST_SAL,
}


def recipe_of(model: str, recipe: str) -> dict[str, Any]:
    """Return the defaults of the training options. model, recipe: as --model and --recipe."""
    name = MODELS.find(model).name if ":" in model else model
    return DEFAULTS.get((name, recipe), DEFAULTS["cube_unet", recipe] | {"model_args": []})


# fmt: off
def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--model", default="cube_unet", metavar="NAME",
        help="cube_unet, sst_sal, or package.module:Class for your own (docs/own_model.md)")
    first.add_argument("--recipe", default="default", choices=["default", "paper"],
        help="defaults of the training options; paper: as published, with the U-Net's backbone")
    chosen = first.parse_known_args(arguments)[0]
    defaults = recipe_of(chosen.model, chosen.recipe)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=options.HelpFormatter, parents=[first]
    )
    add = parser.add_argument
    options.add_data_options(add)
    add("--model_fps", type=options.sampled_rate, metavar="RATE",
        help="frames a second that the model sees, in training and afterwards; all: every frame, "
        "as in --recipe paper of cube_unet (default: as in --init, else the model's own, 8)")
    add("--motion", metavar="NAME",
        help=f"motion image: {', '.join(MOTIONS)} or package.module:Class for your own "
        "(default: as in --init, else difference for cube_unet, colour_difference for its "
        "published backbone, dis for sst_sal)")
    add("--model_args", nargs="+", metavar="NAME=VALUE", default=[],
        help="arguments of the model, such as height=120 width=240 base_channels=16 "
        "backbone=published padding=zero latitude_bias=false")
    add("--init", type=Path, metavar="CHECKPOINT", help="weights to start from (default: random)")
    add("--output_dir", type=Path, help="folder of the run (default: runs/<model>)")
    add("--resume", nargs="?", default="auto", const="yes", choices=["auto", "yes", "no"],
        help="continue the run in --output_dir; auto: if there is one")
    add("--save_minutes", type=at_least(0), default=10.0,
        help="minutes between saves within an epoch, with loss and pictures for TensorBoard")
    add("--dry_run", action="store_true", help="run one batch of each step and keep no files")

    whose = f"The defaults shown are those of --model {chosen.model} --recipe {chosen.recipe}."
    add = parser.add_argument_group("training", whose).add_argument
    add("--epochs", type=at_least(1, 10**6, int), help="passes over the training clips")
    add("--samples", type=at_least(0, 10**7, int), help="clips drawn for an epoch; 0: all clips")
    add("--batch_size", type=at_least(1, 10**5, int), help="clips per step, over all processes")
    add("--skip_frames", type=at_least(0, kind=int), help="frames to skip at a clip's start")
    add("--loss", metavar="NAME",
        help=f"{', '.join(LOSSES)} or package.module:Class for your own; validation reports it, CC "
        f"and, if it needs fixations, NSS (default: as in --init, else {defaults['loss']})")
    add("--optimizer", choices=list(OPTIMIZERS), help="optimizer")
    add("--learning_rate", "--lr", type=at_least(0), help="peak learning rate")
    add("--schedule", choices=list(SCHEDULES), help="learning-rate schedule")
    add("--momentum", type=at_least(0, 1), help="momentum of SGD")
    add("--weight_decay", type=at_least(0), help="weight decay")
    add("--clip_gradient", type=at_least(0), metavar="NORM",
        help="gradient norm to clip to; 0: no clipping")
    add("--ema", type=at_least(0, 1), metavar="DECAY",
        help="decay, such as 0.999, of averaged weights to validate and save; 0: no average")
    add("--augment", nargs="*", choices=list(AUGMENTATIONS), metavar="NAME",
        help=f"augmentations: {', '.join(AUGMENTATIONS)}; without a name: none (default: "
        f"{' '.join(defaults['augment']) or 'none'}, as far as they are valid for --motion)")
    add("--seed", type=at_least(0, 2**32, int), default=0,
        help="seed for initialisation, shuffling and augmentation")

    add = parser.add_argument_group("machine").add_argument
    options.add_machine_options(add)
    add("--workers", type=at_least(0, 1025, int),
        help="data-loading processes (default: one per core, at most 8)")
    add("--compile", action="store_true", help="compile the network with torch.compile")
    add("--accumulate", type=at_least(1, 10**5, int), default=1, metavar="PARTS",
        help="split each batch into so many parts to save memory (gradient accumulation)")
    follow = dict.fromkeys(("loss", "augment", "model_fps"))  # --init and --motion
    parser.set_defaults(**defaults | follow | {"model_args": []})
    return parser.parse_args(arguments)
# fmt: on


if __name__ == "__main__":  # help and wrong options need none of the slow imports
    given_options = run_script(parse_args)

import torch
from torch import Tensor, nn
from tqdm import tqdm

import models
from common import processes
from common.devices import autocast, choose_kernels
from common.locks import lock
from common.processes import is_main, print_main
from datasets.splits import read_splits
from datasets.video_saliency import summarise
from models.ema import WeightAverage
from training.batches import loss_sum, make_loaders, read_data, split
from training.config import Config, resolve
from training.model import make_loss
from training.monitor import PREDICTIONS, MeanScores, Monitor, RunningLoss, best_constant
from training.resume import Interruptions, Stopped, describe_run, restore, save
from video.pictures import unit


def main(args: argparse.Namespace | None = None) -> None:
    args = args or parse_args()
    config, model = resolve(args, recipe_of(args.model, args.recipe))
    folder = nullcontext(args.output_dir or Path("runs", model.name.rpartition(":")[2]))
    with (
        tempfile.TemporaryDirectory() if config.dry_run else folder as path,
        lock(Path(path)) if is_main() else nullcontext(),
    ):
        train(config, model, Path(path))


def train(config: Config, model: models.SaliencyModel, folder: Path) -> None:
    """Train a model, with all files in a folder."""
    run = Run(config, model, folder)
    processes.extend_timeout()
    batches, epoch_steps = iter(run.train_loader), run.order.epoch_steps
    with Interruptions(config.save_minutes) as interruptions, run.monitor.bar:
        try:
            for epoch in range(len(run.log) + 1, config.epochs + 1):
                run.network.train()
                for batch in islice(batches, epoch * epoch_steps - run.step):
                    run.advance(train_step(run, batch), batch)
                    if run.step < epoch * epoch_steps and interruptions.checkpoint_due(run.losses):
                        rate = run.learning_rate()
                        run.monitor.write(run, train_loss=run.losses.mean(), learning_rate=rate)
                        save(run)
                finish_epoch(run, validate(run, interruptions))
        except Stopped as stopped:
            save(run)
            [number] = stopped.args
            place = f"step {run.step} of {run.order.steps}, saved in {run.path}"
            name = signal.Signals(number).name
            print_main(f"{name}: stopped after {place}; the same command continues")
            sys.exit(128 + number)
    print_main(summary(run))


class Run:
    """A training run, new or resumed from its last checkpoint.

    result: the model to validate and save, averaged by --ema. step, log: finished steps, epochs.
    """

    def __init__(self, config: Config, model: models.SaliencyModel, folder: Path):
        choose_kernels(config.device, config.precision)
        device, root, rest = config.device, config.data_root, (config.skip_frames, config.fps)
        data = read_data(root, model.spec, *rest, LOSSES[config.loss].needs_fixations)
        if config.dry_run:
            del data["val"].samples[config.batch_size :]
        stem = model.name.rpartition(":")[2]
        self.path, self.best_path = (folder / f"{stem}_{kind}.pth" for kind in ("last", "best"))
        self.config, self.data, self.model = config, data, model.to(device)
        self.facts = describe_run(config, model, data)
        self.loss_of = make_loss(config.loss, data, config.augment).to(device)
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self.result: Any = self.average.module if self.average else model
        self.network: Any = processes.parallel(model, device)
        if config.compile:
            self.network = torch.compile(self.network, dynamic=False)
        self.optimizer = OPTIMIZERS[config.optimizer](model.parameter_groups(), config)
        half = config.precision == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=half)
        self.step, self.log = 0, []
        torch.manual_seed(1_000_003 * config.seed + 1 + processes.rank())  # of dropout
        self.begin_epoch()
        restore(self)

        self.order, self.train_loader, self.val_loader = make_loaders(config, data, self.step)
        self.best_constant = best_constant(data["val"], self.loss_of, device)
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.best_constant.items())
        left_out = "" if "best_constant" in self.best_constant else " (not finite, left out)"
        print_main(f"{config.loss}{left_out} and scores of the best constant map on val, "
                   f"in parentheses in the progress bar: {values}")  # fmt: skip
        self.monitor = Monitor(folder, self)

    def begin_epoch(self) -> None:
        self.losses, self.irregular, self.epoch_start = RunningLoss(), [], time.monotonic()

    def advance(self, loss: Tensor, batch: dict) -> None:
        """Count a step. loss: sum over the valid maps of a batch."""
        self.step += 1
        self.losses.add(loss, batch)
        self.irregular += batch["irregular"]
        self.monitor.show(self)

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        share = SCHEDULES[self.config.schedule](self.step, self.order.steps)
        return self.config.learning_rate * share


def train_step(run: Run, batch: dict) -> Tensor:
    """Update the weights once. Returns the sum of the losses of this process' valid maps."""
    loss_sum = torch.zeros((), device=run.config.device)
    count = processes.total(batch["valid"].sum()).item()  # of valid maps in all processes
    if not count:
        return loss_sum
    for group in run.optimizer.param_groups:
        group["lr"] = run.learning_rate() * group["scale"]
    # Gradients are averaged over processes; multiplied by their number, they are summed.
    weight = processes.world() / (1 if run.loss_of.summed else count)
    for part in split(batch, run.config.accumulate):
        loss, _ = batch_loss(run, run.network, part)
        run.scaler.scale(loss * weight).backward()
        loss_sum += loss.detach()
    if run.config.clip_gradient:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), run.config.clip_gradient)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad()
    if run.average:
        run.average.update(run.model)
    return loss_sum


def batch_loss(run: Run, network: nn.Module, batch: dict) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses of a batch's valid maps, and all its maps (B, T, 1, H, W)."""
    device, dtype = run.config.device, run.config.precision
    pictures = (batch[name].to(device, non_blocking=True) for name in ("frames", "motion"))
    frames, motion = map(unit, pictures)
    with autocast(device, dtype):
        maps = network(frames, motion)
        if not batch["valid"].any():  # other processes still need this one's part
            return maps.float().sum() * 0, maps
        return loss_sum(run.loss_of, maps, batch), maps


@torch.inference_mode()
def validate(run: Run, interruptions: Interruptions) -> dict[str, float]:
    """Return the mean loss over valid maps, and CC; NSS if the loss needs fixations."""
    model, losses = run.result.eval(), RunningLoss()
    scores = MeanScores(run.model.spec.height, run.model.spec.width, run.config.device)
    bar = tqdm(run.val_loader, "validation", leave=False, unit="step", disable=not is_main())
    rounds = range(max(processes.gather(len(run.val_loader))))  # some processes have one batch less
    for _, batch in zip_longest(rounds, bar):
        interruptions.checkpoint_due(losses)  # may raise Stopped; the end of the epoch saves
        if batch is None or not batch["valid"].any():
            continue
        loss, maps = batch_loss(run, model, batch)
        losses.add(loss, batch)
        if loss.isfinite():  # otherwise the mean of the losses raises RunError
            scores.add(maps, batch)
    return {"val_loss": losses.mean()} | {f"val_{n}": mean for n, mean in scores.means().items()}


def finish_epoch(run: Run, scores: dict[str, float]) -> None:
    """Log a validated epoch, and save the run and the model if it is the best so far."""
    scalars = {"train_loss": run.losses.mean(), **scores, **run.best_constant}
    scalars["learning_rate"] = run.learning_rate()
    seconds = round(time.monotonic() - run.epoch_start, 1)
    line = {"epoch": len(run.log) + 1, "step": run.step, **scalars, "seconds": seconds}
    if math.isnan(line["train_loss"] + line["val_loss"]):
        raise InputError(f"{run.config.data_root}: no readable frame has ground truth; check it")
    run.log.append(line)
    print_main(json.dumps(line))
    if irregular := sum(processes.gather(run.irregular), []):
        print_main(f"in this epoch's clips: {summarise(irregular)}")
    if is_main() and line["val_loss"] <= min(line["val_loss"] for line in run.log):
        models.save(run.best_path, run.result, **run.facts, **line)
    run.monitor.write(run, **scalars)
    run.monitor.show(run)
    run.begin_epoch()
    save(run)


def summary(run: Run) -> str:
    """Return the result of a finished run, and the commands that use it."""
    if run.config.dry_run:
        return "dry run: training, validation and saving worked; no files were kept"
    best = min(line["val_loss"] for line in run.log)
    constant = run.best_constant.get("best_constant", math.nan)
    share = f", {best / constant:.2f} of the best constant map's" if constant > 0 else ""
    root, name, motion = run.config.data_root, run.config.model, run.model.spec.motion
    split = "test" if read_splits(root).get("test") else "val"
    model = f"--ckpt_path {shlex.quote(str(run.best_path))}" + f" --model {name}" * (":" in name)
    model += f" --motion {motion}" * (":" in motion)
    data = f"--data_root {shlex.quote(str(root))} --split {split}"
    return (
        f"best validation loss {best:.4g}{share}\n"
        f"{run.path.with_name(PREDICTIONS)}: frame, ground truth, prediction of validation clips\n"
        f"next:\n  {python()} evaluate_video.py {model} {data}\n"
        f"  {python()} infer_video.py {model} --video_path YOUR_CLIP"
    )


if __name__ == "__main__":
    run_script(processes.session(partial(main, given_options)))
