"""Train a saliency model on clips with ground truth.

Run the same command again after an interruption, and it goes on exactly where it was. On
several GPUs: torchrun --nproc_per_node 4 train_video.py …
"""

import argparse
import json
import math
import shlex
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from signal import SIGTERM, Signals

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import distributed
import models
from cli import InputError, atomic, run_script
from datasets.augment import AUGMENTATIONS, Augmented, possible
from datasets.layouts import read_split
from datasets.video_saliency import SaliencyVideos, summarise
from distributed import is_main, say
from losses import LOSSES
from cli import PRECISIONS, choose_device, choose_precision
from runs import Progress, Saver, StopSignals, define_run, make_model, resumed_state
from training import OPTIMIZERS, RECIPES, SCHEDULES, RunningLoss, Trainer, batch_loss
from training_data import EpochOrder, best_constant_loss, check_truth, make_loader, shares
from video.motion import MOTIONS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data_root", type=Path, default="360_Saliency_dataset_2018ECCV", help="data set")
    add("--cache", type=Path, help="folder for the frames at the model's size, made once; "
        "without it every epoch decodes them again")  # fmt: skip
    add("--model", default="cube_unet", choices=list(models.MODELS), help="what to train")
    add("--motion", choices=list(MOTIONS), help="motion channels; the model's if not given")
    add("--model_args", nargs="+", metavar="NAME=VALUE", default=[], type=argument,
        help="of the model, such as height=120 width=240 base_channels=16")  # fmt: skip
    add("--init", type=Path, help="checkpoint to start from instead of random weights")
    add("--output_dir", type=Path, default="checkpoints", help="for checkpoints and logs")
    add("--resume", nargs="?", default="auto", const="yes", choices=["auto", "yes", "no"],
        help="whether to go on with the run in --output_dir; auto: if there is one")  # fmt: skip
    add("--save_minutes", type=at_least(0), default=10.0, help="between saves in an epoch")
    add("--dry_run", action="store_true", help="one batch of everything; keeps nothing")

    recipe = parser.add_argument_group("recipe", "where not given, the recipe's or the model's")
    add = recipe.add_argument
    add("--recipe", default="default", choices=list(RECIPES), help="paper: as published")
    add("--epochs", type=at_least(1, kind=int), help="passes over the training clips")
    add("--samples", type=at_least(1, kind=int), help="clips drawn for an epoch; all if not given")
    add("--batch_size", type=at_least(1, kind=int), help="clips a step, over all processes")
    add("--skip_frames", type=at_least(0, kind=int), help="at the start of each clip")
    add("--loss", choices=list(LOSSES), help="what is minimised")
    add("--optimizer", choices=list(OPTIMIZERS), help="how")
    add("--learning_rate", "--lr", type=at_least(0), help="the highest")
    add("--schedule", choices=list(SCHEDULES), help="of the learning rate")
    add("--momentum", type=at_least(0, 1), help="of SGD")
    add("--weight_decay", type=at_least(0), help="of the optimizer")
    add("--clip_gradient", type=at_least(0), metavar="NORM", help="largest norm of a gradient")
    add("--ema", type=at_least(0, 1), metavar="DECAY", help="validate and keep an exponential "
        "moving average of the weights, such as 0.999 (0: the weights)")  # fmt: skip
    add("--augment", nargs="*", choices=list(AUGMENTATIONS), help="random changes of the clips")
    add("--seed", type=int, default=0, help="of first weights, order of clips, random changes")

    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add("--workers", type=at_least(0, kind=int), help="processes that read data; one a core, at "
        "most 8, if not given")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--precision", default="auto", choices=["auto", *PRECISIONS], help="of the network")
    add("--compile", action="store_true", help="compile the network first (torch.compile)")
    add("--accumulate", type=at_least(1, kind=int), default=1, metavar="PARTS",
        help="that a batch is worked through in, one after the other, to save memory")  # fmt: skip
    args = parser.parse_args()
    args.augment_given = args.augment is not None
    for name, value in RECIPES[args.recipe].get(args.model, {}).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def argument(text: str) -> tuple[str, int | str]:
    name, _, value = text.partition("=")
    return name, int(value) if value.isdecimal() else value


def at_least(low: float, below: float = math.inf, kind: type = float):
    """The type of an option that is a number in [low, below)."""

    def number(text: str):
        if not low <= (value := kind(text)) < below:
            raise argparse.ArgumentTypeError(f"{text}: give {low} or more, below {below:g}")
        return value

    return number


def main() -> None:
    args = parse_args()
    folder = nullcontext(args.output_dir)
    if args.dry_run:
        args.epochs, args.resume, folder = 1, "no", tempfile.TemporaryDirectory()
    try:
        with folder as path:
            stopped = train(args, Path(path))
    except torch.OutOfMemoryError as error:
        raise InputError(
            "the GPU's memory is too small for this batch; give --accumulate 2 or more, "
            "--precision bf16 or a smaller --batch_size"
        ) from error
    if stopped:
        sys.exit(128 + stopped)


def train(args: argparse.Namespace, folder: Path) -> int:
    """The whole run, with its files in a folder. Returns the signal that ended it, or 0."""
    saver, data, train_loader, val_loader = prepare(args, folder)
    trainer, progress = saver.trainer, saver.progress
    floor = best_constant_loss(data["val"], trainer.loss_of)
    say(f"{trainer.model.spec.loss} of the best constant map on val: {floor:.4g}")
    order, first = train_loader.batch_sampler, progress.epoch + 1
    board = SummaryWriter(folder / "tensorboard", purge_step=first) if is_main() else None
    with StopSignals() as stop:
        while progress.epoch < trainer.model.spec.epochs:
            order.epoch, order.start = progress.epoch + 1, progress.step
            whole = train_epoch(saver, train_loader, stop)
            scores = validate(saver, val_loader, stop) if whole else None
            if not scores:
                saver.save()
                number = stop.number or SIGTERM  # of another process
                say(f"{Signals(number).name}: stopped after {progress}, which is saved in "
                    f"{saver.path}; the same command goes on from there")  # fmt: skip
                return number
            finish_epoch(saver, board, floor, *scores)
    say(summary(args, saver, floor))
    return 0


def prepare(
    args: argparse.Namespace, folder: Path
) -> tuple[Saver, dict[str, SaliencyVideos], DataLoader, DataLoader]:
    """All that training needs, from the beginning or as an interrupted run left it."""
    device = choose_device(args.device)
    dtype = choose_precision(args.precision, device)
    cv2.setNumThreads(1)  # the data workers are many, and forked, where its threads are missing
    torch.manual_seed(args.seed)
    model = make_model(args)
    spec = model.spec
    data = {s: SaliencyVideos(args.data_root, s, spec, args.cache) for s in ("train", "val")}
    for split, clips in data.items():
        check_truth(clips)
        found = clips.summary() or "all in order"
        say(f"{split}: {len(clips)} clips of {spec.clip_length}; {found}")
    if not args.augment_given:
        args.augment = possible(args.augment or (), spec.motion, model.flat)
    run = define_run(args, model, data, dtype)
    path = folder / f"{args.model}_last.pth"
    state = resumed_state(args.resume, path, run)
    if state:
        model.load_state_dict(state["weights"])
    if args.dry_run:
        args.samples = spec.batch_size
        del data["val"].samples[spec.batch_size :]
    augmented = Augmented(data["train"], args.augment or (), args.seed, model.flat)
    order = EpochOrder(len(augmented), args.samples, spec.batch_size, args.seed)
    at_once = spec.batch_size // shares(spec.batch_size, args.accumulate)
    val_batches = distributed.shard(torch.arange(len(data["val"])).split(at_once))
    loaders = (
        make_loader(augmented, order, device, args.workers),
        make_loader(data["val"], [b.tolist() for b in val_batches], device, args.workers),
    )
    trainer = Trainer(model.to(device), spec.epochs * order.steps, dtype, args.ema or 0.0,
        args.clip_gradient, args.accumulate, args.compile)  # fmt: skip
    if state:
        trainer.load_state_dict(state)
    progress = Progress.of(state) if state else Progress()
    return Saver(path, trainer, progress, run, args.save_minutes), data, *loaders


def train_epoch(saver: Saver, loader: DataLoader, stop: StopSignals) -> bool:
    """One pass over the training clips, from where it was left. False where it was stopped."""
    trainer, progress = saver.trainer, saver.progress
    trainer.network.train()
    before = (progress.loss_sum, progress.map_count) if is_main() else (0.0, 0)
    losses, irregular, start = RunningLoss(*before), [], time.perf_counter()

    def settle() -> None:
        losses.check(saver.kept)
        sums = distributed.total([losses.total, losses.count]).tolist()
        progress.loss_sum, progress.map_count = sums[0], int(sums[1])

    title = f"epoch {progress.epoch + 1}/{trainer.model.spec.epochs}"
    bar = tqdm(loader, title, progress.step + len(loader), initial=progress.step, unit="step",
        dynamic_ncols=True, disable=not is_main())  # fmt: skip
    for batch in bar:
        valid = int(batch["valid"].sum())
        now = [valid, stop.number > 0, saver.due, losses.bad != ""]
        count, stopped, save, bad = distributed.total(now).tolist()
        if stopped or save or bad:
            settle()
        if stopped:
            return False
        if save:
            saver.save()
        irregular += batch["irregular"]
        if count:
            losses.add(trainer.step(batch, int(count)), valid, batch)
        progress.step += 1
        if maps := losses.count - before[1]:
            speed = maps * distributed.world() / (time.perf_counter() - start)
            bar.set_postfix(loss=f"{losses.recent:.4g}", fps=f"{speed:.1f}")
    settle()
    if irregular := sum(distributed.gather(irregular), []):
        say(f"in this epoch's clips: {summarise(irregular)}")
    if not progress.map_count:
        raise InputError("no valid ground truth in the whole epoch; check the data set")
    return True


@torch.inference_mode()
def validate(
    saver: Saver, loader: DataLoader, stop: StopSignals
) -> tuple[float, Tensor | None] | None:
    """Mean loss over the valid maps, and a picture: frame, truth and prediction side by side.

    None where it was stopped.
    """
    trainer = saver.trainer
    model = trainer.result.eval()
    losses, picture = RunningLoss(), None
    batches = iter(tqdm(loader, "validation", leave=False, unit="step", dynamic_ncols=True,
        disable=not is_main()))  # fmt: skip
    for _ in range(max(distributed.gather(len(loader)))):
        if distributed.total(stop.number > 0):
            return None
        batch = next(batches, None)  # some processes have one less than others
        if batch is None or not batch["valid"].any():
            continue
        loss, maps = batch_loss(model, batch, trainer.loss_of, trainer.device, trainer.dtype)
        losses.add(loss, int(batch["valid"].sum()), batch)
        if picture is None:
            maps = [m[0, -1].float().cpu().expand(3, -1, -1) for m in (batch["target"], maps)]
            picture = torch.cat([batch["frames"][0, -1], *maps], dim=-1).clamp(0, 1)
    losses.check(saver.kept)
    total, count = distributed.total([losses.total, losses.count]).tolist()
    if not count:
        raise InputError("no valid ground truth in the validation clips; check the data set")
    return total / count, picture


def finish_epoch(
    saver: Saver, board: SummaryWriter | None, floor: float, val_loss: float, picture: Tensor | None
) -> None:
    """Logs and saves. Where it is interrupted, the checkpoint before leads here again.

    board: in the main process, which is the one that writes.
    """
    trainer, progress = saver.trainer, saver.progress
    log = {
        "epoch": progress.epoch + 1,
        "train_loss": progress.loss_sum / progress.map_count,
        "val_loss": val_loss,
        "best_constant": floor,
        "learning_rate": trainer.learning_rate,
        "seconds": round(saver.seconds(), 1),
    }
    say(json.dumps(log))
    saver.facts |= log
    if board:
        if val_loss < progress.best:
            models.save(saver.best_path, trainer.result, **saver.facts)
        for name in ("train_loss", "val_loss", "learning_rate"):
            board.add_scalar(name, log[name], log["epoch"])
        if picture is not None:
            board.add_image("frame, truth, prediction", picture, log["epoch"])
        board.flush()
        with atomic(saver.path.with_name("log.jsonl")) as temporary:
            lines = (json.dumps(line) + "\n" for line in [*progress.history, log])
            temporary.write_text("".join(lines), encoding="utf-8")
    progress.next_epoch(log)
    saver.save()


def summary(args: argparse.Namespace, saver: Saver, floor: float) -> str:
    if args.dry_run:
        return "dry run: a batch of everything went through; nothing was kept"
    try:
        split = "test" if read_split(args.data_root, "test") else "val"
    except InputError:
        split = "val"
    data, best, path = shlex.quote(str(args.data_root)), saver.progress.best, saver.best_path
    return (
        f"best validation loss {best:.4g}, {best / floor:.2f} of the best constant map's; next:\n"
        f"  python evaluate_video.py --ckpt_path {path} --data_root {data} --split {split}\n"
        f"  python infer_video.py --ckpt_path {path} --video_path YOUR_CLIP"
    )


if __name__ == "__main__":
    run_script(distributed.session(main))
