"""Train a saliency model on clips with ground truth."""

import argparse
import dataclasses
import json
import math
import subprocess
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import models
from datasets.motion import MOTIONS
from datasets.video_saliency import SaliencyVideos, collate, summarise
from files import InputError, run_script
from losses import LOSSES
from models.checkpoint import read
from models.devices import PRECISIONS, autocast, choose_device, choose_precision

OPTIMIZERS = {
    "sgd": lambda parameters, spec: torch.optim.SGD(
        parameters, spec.learning_rate, spec.momentum, weight_decay=spec.weight_decay
    ),
    "adamw": lambda parameters, spec: torch.optim.AdamW(
        parameters, spec.learning_rate, weight_decay=spec.weight_decay, fused=True
    ),
}

# Learning rate at each step, as a share of the highest.
SCHEDULES = {
    "constant": lambda steps: lambda step: 1.0,
    "cosine": lambda steps: (
        lambda step: min(
            (step + 1) / (0.05 * steps + 1), (1 + math.cos(math.pi * min(step / steps, 1))) / 2
        )
    ),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data_root", type=Path, default="360_Saliency_dataset_2018ECCV", help="data set")
    add("--model", default="cube_unet", choices=list(models.MODELS), help="what to train")
    add("--motion", choices=list(MOTIONS), help="motion channels; the model's if not given")
    add("--model_args", nargs="+", metavar="NAME=VALUE", default=[], type=argument,
        help="of the model, such as height=120 width=240 base_channels=16")  # fmt: skip
    add("--init", type=Path, help="checkpoint to start from instead of random weights")
    add("--resume", action="store_true", help="go on after the last whole epoch")
    add("--output_dir", type=Path, default="checkpoints", help="for checkpoints and logs")
    add("--epochs", type=int, help="passes over the training clips; the model's if not given")
    add("--samples", type=int, help="clips drawn for an epoch; all if not given")
    add("--batch_size", type=int, help="clips a step; the model's if not given")
    add("--skip_frames", type=int, help="at the start of each clip; the model's if not given")
    add("--loss", choices=list(LOSSES), help="the model's if not given")
    add("--optimizer", choices=list(OPTIMIZERS), help="the model's if not given")
    add("--learning_rate", "--lr", type=float, help="the model's if not given")
    add("--schedule", choices=list(SCHEDULES), help="the model's if not given")
    add("--workers", type=int, default=2, help="processes that read the data")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--precision", default="auto", choices=["auto", *PRECISIONS], help="of the network")
    add("--seed", type=int, default=0, help="of the first weights and the order of clips")
    return parser.parse_args()


def argument(text: str) -> tuple[str, int | str]:
    name, _, value = text.partition("=")
    return name, int(value) if value.isdecimal() else value


def main() -> None:
    args = parse_args()
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    dtype = choose_precision(args.precision, device)
    last_path, best_path = (
        args.output_dir / f"{args.model}_{which}.pth" for which in ("last", "best")
    )
    model, state = make_model(args, last_path)
    spec = model.spec
    model.to(device)
    loss_of, optimizer = LOSSES[spec.loss](), OPTIMIZERS[spec.optimizer](model.parameters(), spec)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    train_set, val_set = (SaliencyVideos(args.data_root, split, spec) for split in ("train", "val"))
    for name, data in (("train", train_set), ("val", val_set)):
        print(
            f"{name}: {len(data)} clips of {spec.clip_length}; {data.summary() or 'all in order'}"
        )
    order = torch.Generator()
    sampler = RandomSampler(train_set, num_samples=args.samples, generator=order)
    train_loader, val_loader = (
        DataLoader(
            data,
            spec.batch_size,
            sampler=s,
            num_workers=args.workers,
            collate_fn=collate,
            pin_memory=device.type == "cuda",
            persistent_workers=args.workers > 0,
        )
        for data, s in ((train_set, sampler), (val_set, None))
    )
    steps = spec.epochs * len(train_loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, SCHEDULES[spec.schedule](steps))
    resumable = {"optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    if args.resume:
        for name, part in resumable.items():
            part.load_state_dict(state[name])
    floor = best_constant_loss(val_set, loss_of)
    print(f"{spec.loss} of the best constant map on val: {floor:.4g}")

    args.output_dir.mkdir(parents=True, exist_ok=True)
    board = SummaryWriter(args.output_dir / "tensorboard")
    best, first = state.get("best", float("inf")), state.get("epoch", 0) + 1
    for epoch in range(first, spec.epochs + 1):
        start = time.perf_counter()
        order.manual_seed(args.seed * 1_000_003 + epoch)
        title = f"epoch {epoch}/{spec.epochs}"
        train_loss = train_epoch(
            model, train_loader, loss_of, optimizer, schedule, scaler, dtype, title
        )
        val_loss, picture = validate(model, val_loader, loss_of, dtype)
        log = {
            "epoch": epoch,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "best_constant": floor,
            "learning_rate": schedule.get_last_lr()[0],
            "seconds": round(time.perf_counter() - start, 1),
        }
        print(json.dumps(log))
        with open(args.output_dir / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(log) + "\n")
        for name in ("train_loss", "val_loss", "learning_rate"):
            board.add_scalar(name, log[name], epoch)
        board.add_image("frame, truth, prediction", picture, epoch)
        facts = {**log, "data": args.data_root.resolve().name, "revision": git_revision()}
        if val_loss < best:
            best = val_loss
            models.save(best_path, model, **facts)
        parts = {name: part.state_dict() for name, part in resumable.items()}
        models.save(last_path, model, **facts, **parts, best=best)
    board.close()
    print(
        f"best val {spec.loss} {best:.4g} ({best / floor:.2f} of the best constant map's); next: "
        f"python infer_video.py --ckpt_path {best_path} --video_path YOUR_CLIP"
    )


def make_model(args: argparse.Namespace, last_path: Path) -> tuple[models.SaliencyModel, dict]:
    """The model with its spec as the options change it, and the state to resume from."""
    start = last_path if args.resume else args.init
    arguments = dict(args.model_args)
    if args.motion and not start:
        channels = MOTIONS[args.motion].channels
        arguments = models.MODELS[args.model].arguments_for(channels) | arguments
    try:
        model = models.load(start, **arguments) if start else models.MODELS[args.model](**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"--model_args {arguments}: {error}") from error
    if not list(model.parameters()):
        raise InputError(f"--model {args.model}: has no weights to train; give another")
    if model.name != args.model:
        raise InputError(f"{start}: a {model.name}, not a {args.model}; give --model {model.name}")
    if args.motion and MOTIONS[args.motion].channels != MOTIONS[model.spec.motion].channels:
        raise InputError(f"--motion {args.motion}: {start} was trained with {model.spec.motion}")
    fields = {field.name for field in dataclasses.fields(model.spec)}
    given = {k: v for k, v in vars(args).items() if k in fields and v is not None}
    model.spec = dataclasses.replace(model.spec, **given)
    return model, read(start) if args.resume else {}


def train_epoch(model, loader, loss_of, optimizer, schedule, scaler, dtype, title) -> float:
    """One pass over the training clips. Returns the mean loss of their valid maps."""
    model.train()
    start = time.perf_counter()
    total, count, recent, irregular = 0.0, 0, None, []
    bar = tqdm(loader, title, unit="step", dynamic_ncols=True)
    for batch in bar:
        irregular += batch["irregular"]
        valid = int(batch["valid"].sum())
        if not valid:
            continue
        with autocast(device_of(model), dtype):
            loss = batch_loss(model, batch, loss_of)[0]
        if not torch.isfinite(loss):
            frames = [f"{n} {i.tolist()}" for n, i in zip(batch["name"], batch["numbers"])]
            raise InputError(f"the loss is {loss.item()} at frames {frames}; lower --learning_rate")
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        mean = loss.item() / valid if loss_of.summed else loss.item()
        total, count = total + mean * valid, count + valid
        recent = mean if recent is None else recent + 0.02 * (mean - recent)
        speed = count / (time.perf_counter() - start)
        bar.set_postfix(loss=f"{recent:.4g}", fps=f"{speed:.1f}")
    if irregular:
        print(f"in this epoch's clips: {summarise(irregular)}")
    if not count:
        raise InputError("no valid ground truth in the whole epoch; check the data set")
    return total / count


@torch.inference_mode()
def validate(model, loader, loss_of, dtype) -> tuple[float, Tensor]:
    """Mean loss over the valid maps, and a picture: frame, truth and prediction side by side."""
    model.eval()
    total, count, picture = 0.0, 0, None
    for batch in tqdm(loader, "validation", unit="step", leave=False, dynamic_ncols=True):
        valid = int(batch["valid"].sum())
        if not valid:
            continue
        with autocast(device_of(model), dtype):
            loss, maps = batch_loss(model, batch, loss_of)
        total += loss.item() if loss_of.summed else loss.item() * valid
        count += valid
        if picture is None:
            maps = [m[0, -1].expand(3, -1, -1).cpu() for m in (batch["target"], maps)]
            picture = torch.cat([batch["frames"][0, -1], *maps], dim=-1).clamp(0, 1)
    if not count:
        raise InputError("no valid ground truth in the validation clips; check the data set")
    return total / count, picture


def batch_loss(model: nn.Module, batch: dict, loss_of: nn.Module) -> tuple[Tensor, Tensor]:
    """Loss over the valid maps of a batch, and all its maps (B, T, 1, H, W)."""
    device = device_of(model)
    tensors = ("frames", "motion", "target", "valid")
    frames, motion, target, valid = (batch[name].to(device, non_blocking=True) for name in tensors)
    maps = model(frames, motion)
    return loss_of(maps[valid], target[valid]), maps


def best_constant_loss(data: SaliencyVideos, loss_of: nn.Module) -> float:
    """Loss of the one map that fits a split best: what every model must beat.

    That is the mean of the maps for a squared error, and of the maps scaled to sum 1 for a
    divergence.
    """

    def targets():
        for index in tqdm(range(len(data)), "best constant map", leave=False):
            yield from data.targets(index)

    means, count = [0.0, 0.0], 0
    for target in targets():
        count += 1
        for k, scaled in enumerate((target, target / target.sum())):
            means[k] = means[k] + scaled
    if not count:
        raise InputError(f"{data.root}: no usable ground truth in split '{data.split}'")
    losses = [0.0, 0.0]
    for target in targets():
        for k, mean in enumerate(means):
            losses[k] += loss_of(mean / count, target).item()
    return min(losses) / count


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def git_revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    run_script(main)
