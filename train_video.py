"""Train a saliency model on clips with ground truth.

After an interruption, run the same command again: it continues exactly where it was. On several
GPUs: torchrun --nproc_per_node 4 train_video.py …
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import inspect
import json
import shlex
import sys
import tempfile
import time
import traceback
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from signal import SIGTERM, Signals

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import models
import training
from common import processes
from common.devices import autocast, choose_device, choose_precision
from common.errors import InputError, advice, counted, run_script
from common.files import atomic
from common.locks import lock
from common.options import HelpFormatter, add_machine_options, at_least
from common.processes import is_main, say
from datasets.augment import AUGMENTATIONS, Augmented, possible
from datasets.splits import read_splits
from datasets.video_saliency import SaliencyVideos, summarise
from losses import LOSSES
from models.checkpoint import put_weights, read
from models.ema import WeightAverage
from models.registry import find_model
from video.motion import MOTIONS

# A training option that is not given has the value of its column here; other models have the
# columns of cube_unet.
# fmt: off
COLUMNS = {
    ("cube_unet", "default"): 0, ("cube_unet", "paper"): 1,
    ("sst_sal", "default"): 2, ("sst_sal", "paper"): 2,
}
DEFAULTS = {
    #                 cube_unet          as published  sst_sal, as published
    "epochs":        (10,                10,           240),
    "samples":       (0,                 0,            0),
    "batch_size":    (2,                 2,            1),
    "skip_frames":   (0,                 0,            20),
    "loss":          ("smse",            "smse",       "spherical_kl"),
    "optimizer":     ("adamw",           "sgd",        "sgd"),
    "learning_rate": (2e-3,              1e-3,         0.8),
    "schedule":      ("cosine",          "constant",   "constant"),
    "momentum":      (0.9,               0.9,          0.0),
    "weight_decay":  (1e-5,              1e-5,         0.0),
    "clip_gradient": (0.0,               0.0,          0.0),
    "ema":           (0.0,               0.0,          0.0),
    "augment":       (["yaw", "mirror"], [],           []),
}


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--model", default="cube_unet", metavar="NAME",
        help="model to train: cube_unet, sst_sal, or package.module:Class for one of your own, "
        "see docs/own_model.md")
    first.add_argument("--recipe", default="default", choices=["default", "paper"],
        help="defaults of the training options; paper: as published")
    chosen = first.parse_known_args(arguments)[0]
    name = find_model(chosen.model).name
    column = COLUMNS.get((name, chosen.recipe), COLUMNS["cube_unet", chosen.recipe])
    defaults = {name: values[column] for name, values in DEFAULTS.items()}
    default_loss, default_augment = defaults.pop("loss"), defaults.pop("augment")

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter, parents=[first]
    )
    add = parser.add_argument
    add("--data_root", type=Path, default="360_Saliency_dataset_2018ECCV", help="data set")
    add("--motion", choices=list(MOTIONS),
        help="motion channels (default: those of the checkpoint given with --init, else the "
        "model's own: difference for cube_unet and dis for sst_sal)")
    add("--model_args", nargs="+", metavar="NAME=VALUE", default=[], type=argument,
        help="arguments of the model, such as height=120 width=240 base_channels=16")
    add("--init", type=Path, metavar="CHECKPOINT",
        help="checkpoint to start from (default: random weights)")
    add("--output_dir", type=Path, default="checkpoints", help="folder for checkpoints and logs")
    add("--resume", nargs="?", default="auto", const="yes", choices=["auto", "yes", "no"],
        help="whether to continue the run in --output_dir; auto: if there is one")
    add("--save_minutes", type=at_least(0), default=10.0,
        help="minutes between saves in an epoch, at which TensorBoard gets loss and pictures")
    add("--dry_run", action="store_true", help="run one batch of everything and keep nothing")

    add = parser.add_argument_group("training", "The defaults shown are those of --model "
        f"{chosen.model} --recipe {chosen.recipe}.").add_argument
    add("--epochs", type=at_least(1, 10**6, int), help="passes over the training clips")
    add("--samples", type=at_least(0, 10**7, int),
        help="clips drawn for an epoch; 0: all clips")
    add("--batch_size", type=at_least(1, 10**5, int), help="clips per step, over all processes")
    add("--skip_frames", type=at_least(0, kind=int),
        help="frames at the start of each clip that are not trained on")
    add("--loss", choices=list(LOSSES), help="loss (default: that of the checkpoint given with "
        f"--init, else {default_loss})")
    add("--optimizer", choices=list(training.OPTIMIZERS), help="optimizer")
    add("--learning_rate", "--lr", type=at_least(0), help="peak learning rate")
    add("--schedule", choices=list(training.SCHEDULES), help="schedule of the learning rate")
    add("--momentum", type=at_least(0, 1), help="momentum of SGD")
    add("--weight_decay", type=at_least(0), help="weight decay of the optimizer")
    add("--clip_gradient", type=at_least(0), metavar="NORM",
        help="largest norm of the gradient of a step; 0: no limit")
    add("--ema", type=at_least(0, 1), metavar="DECAY",
        help="decay of the exponential moving average of the weights that is validated and kept "
        "in their place, such as 0.999; 0: no average")
    add("--augment", nargs="*", choices=list(AUGMENTATIONS), metavar="NAME",
        help=f"random changes of the clips, {', '.join(AUGMENTATIONS)}; without a name: none "
        f"(default: {' '.join(default_augment) or 'none'}, as far as the motion image can follow)")
    add("--seed", type=at_least(0, 2**32, int), default=0,
        help="seed for initialisation, shuffling and augmentation")

    add = parser.add_argument_group("machine").add_argument
    add_machine_options(add)
    add("--workers", type=at_least(0, 1025, int),
        help="processes that read data (default: one per core, at most 8)")
    add("--compile", action="store_true", help="compile the network first (torch.compile)")
    add("--accumulate", type=at_least(1, 10**5, int), default=1, metavar="PARTS",
        help="parts of a batch that are computed one after the other, to save memory")
    parser.set_defaults(**defaults, default_loss=default_loss, default_augment=default_augment)
    return parser.parse_args(arguments)
# fmt: on


def argument(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


# What --model_args gives, by the type of the argument's default.
PARSERS = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: float,
    str: str,
    type(None): int,
}


def model_arguments(args: argparse.Namespace) -> dict:
    """Return what --model_args gives. Raises InputError for what the model does not take."""
    taken = inspect.signature(find_model(args.model)).parameters
    known = {name: parameter.default for name, parameter in taken.items()}
    arguments = {}
    for name, text in args.model_args:
        try:
            arguments[name] = PARSERS[type(known[name])](text)
        except (KeyError, ValueError) as error:
            takes = " ".join(f"{other}={default}" for other, default in known.items())
            wrong = f"--model_args {name}={text}: {args.model} takes {takes}; change it"
            raise InputError(wrong) from error
    return arguments


def main() -> None:
    args = parse_args()
    folder = nullcontext(args.output_dir)
    if args.dry_run:
        args.epochs, args.resume, folder = 1, "no", tempfile.TemporaryDirectory()
    with folder as path, lock(Path(path)) if is_main() else nullcontext():
        stopped = train(args, Path(path))
    if stopped:
        sys.exit(128 + stopped)


def train(args: argparse.Namespace, folder: Path) -> int:
    """Run the training, with its files in a folder. Returns the signal that ended it, or 0."""
    device = choose_device(args.device)
    dtype = choose_precision(args.precision, device)
    cv2.setNumThreads(1)  # the data workers are many, and forked, where its threads are missing
    torch.manual_seed(args.seed)
    model = make_model(args)
    spec = model.spec
    data = {s: SaliencyVideos(args.data_root, s, spec, args.skip_frames) for s in ("train", "val")}
    for name, clips in data.items():
        training.check_truth(clips)
        found = clips.summary() or "all in order"
        length = counted(spec.clip_length, "frame")
        say(f"{name}: {counted(len(clips), 'clip')} of {length}; {found}")
    if args.augment is None:
        args.augment = possible(args.default_augment, spec.motion)
    if args.dry_run:
        args.samples = args.batch_size
        del data["val"].samples[args.batch_size :]

    # Progress: from the beginning, or as an interrupted run left it.
    run = training.describe_run(args, tuple(DEFAULTS), model, data, dtype)
    stem = model.name.rpartition(":")[2]
    path, best_path = (folder / f"{stem}_{kind}.pth" for kind in ("last", "best"))
    state = training.stored_state(args.resume, path, run) or {}
    step: int = state.get("step", 0)  # finished steps of the whole run
    log: list[dict] = state.get("log", [])  # a line for each finished epoch
    losses = training.RunningLoss(*state.get("sums", (0.0, 0)) if is_main() else (0.0, 0))
    started = time.monotonic() - state.get("seconds", 0.0)  # of the epoch

    # Batches: a function of seed and step.
    with advice("--augment"):
        augmented = Augmented(data["train"], args.augment, args.seed)
    order = training.Batches(
        len(augmented), args.samples, args.batch_size, args.seed, args.epochs, step
    )
    batches = iter(training.make_loader(augmented, order, device, args.workers))
    at_once = training.share_of_batch(args.batch_size, args.accumulate)
    val_order = processes.shard(torch.arange(len(data["val"])).split(at_once))
    val_order = [indices.tolist() for indices in val_order]
    val_loader = training.make_loader(data["val"], val_order, device, args.workers)

    # Network, loss and optimizer.
    if state:
        with training.restoring(path):
            put_weights(model, state["weights"])
            if not 0 <= step - len(log) * order.epoch_steps <= order.epoch_steps:
                raise ValueError(f"step {step} does not fit {len(log)} epochs")
    model.to(device)
    ema = WeightAverage(model, args.ema) if args.ema else None
    result = ema.model if ema else model  # what is validated and kept
    parallel = processes.parallel(model, device)
    network = torch.compile(parallel, dynamic=False) if args.compile else parallel
    loss_of = LOSSES[args.loss](spec.height, spec.width).to(device)
    optimizer = training.OPTIMIZERS[args.optimizer](training.parameter_groups(model), args)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    if state:
        with training.restoring(path):
            training.restore_optimizer(optimizer, state["optimizer"])
            if state["scaler"]:  # empty where the run was not in fp16
                scaler.load_state_dict(state["scaler"])
            if ema:
                ema.load_state_dict(state["average"])
            training.set_random_state(state["random"], device)

    baseline, scores = training.best_constant(data["val"], loss_of, device)
    told = "".join(f", {name.upper()} {score:.3f}" for name, score in scores.items())
    say(f"{args.loss} of the best constant map on val: {baseline:.4g}{told}")
    best_constant = {"best_constant": baseline} | {f"best_constant_{n}": scores[n] for n in scores}
    written = step < (len(log) + 1) * order.epoch_steps  # else this epoch is yet to be validated
    purge = {"purge_step": step + written}  # events of later steps, by a run that was killed
    board = SummaryWriter(folder / "tensorboard", **purge) if is_main() else None
    facts = {"data": args.data_root.resolve().name, "revision": training.git_revision(), "run": run}

    def save() -> None:
        """Write all that the run needs to continue exactly. Called in every process."""
        content = {
            "step": step,
            "log": log,
            "sums": losses.sums(path),
            "seconds": time.monotonic() - started,
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "average": ema.state_dict() if ema else None,
            "random": processes.gather(training.random_state(device)),
        }
        training.check_finite(model, path)
        if is_main():
            models.save(path, model, **facts, **content)
        processes.wait_for_all()

    def show(scalars: dict[str, float]) -> None:
        """Write scalars and the pictures of four clips to TensorBoard, in the main process."""
        for name, value in scalars.items():
            board.add_scalar(name, value, step)
        for name, picture in training.pictures(result, data["val"], device, dtype):
            board.add_image(f"frame, truth, prediction/{name}", picture, step)
        board.flush()

    saved, shown = time.monotonic(), step
    irregular: list[tuple[str, str]] = []
    bar = tqdm(total=order.last, initial=step, unit="step", dynamic_ncols=True,
        disable=not is_main())  # fmt: skip
    with training.StopSignals() as stop, bar:
        while len(log) < args.epochs:
            end_of_epoch = step == (len(log) + 1) * order.epoch_steps
            batch = None if end_of_epoch else next(batches)
            valid = 0 if end_of_epoch else int(batch["valid"].sum())

            # All processes must agree on what comes next: one sum of numbers and flags.
            due = not end_of_epoch and time.monotonic() - saved >= 60 * args.save_minutes
            now = [valid, stop.number > 0, due, losses.bad != ""]
            count, stopped, due, bad = processes.total(now).tolist()
            if due and not bad and step > shown:
                sums, maps = losses.sums(path)
                if is_main() and maps:
                    rate = learning_rate(args, step, order.last)
                    show({"train_loss": sums / maps, "learning_rate": rate})
                shown = step
            if stopped or due or bad:
                save()  # raises InputError where a loss was not finite
                saved = time.monotonic()
            if stopped:
                number = stop.number or SIGTERM  # noted by another process
                say(f"{Signals(number).name}: stopped after step {step} of {order.last}, which is "
                    f"saved in {path}; the same command continues from there")  # fmt: skip
                return number

            if not end_of_epoch:
                if count:
                    training.set_learning_rate(optimizer, learning_rate(args, step, order.last))
                    # Gradients are averaged over processes: as many times the mean is the sum.
                    weight = processes.world() / (1 if loss_of.summed else count)
                    total = torch.zeros((), device=device)
                    for number, part in enumerate(training.split(batch, args.accumulate), 1):
                        last = number == args.accumulate or processes.world() == 1
                        with nullcontext() if last else parallel.no_sync():
                            loss, _ = batch_loss(network, part, loss_of, device, dtype)
                            scaler.scale(loss * weight).backward()
                        total += loss.detach()
                    if args.clip_gradient:
                        scaler.unscale_(optimizer)
                        nn.utils.clip_grad_norm_(model.parameters(), args.clip_gradient)
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad(set_to_none=True)
                    if ema:
                        ema.update(model)
                    losses.add(total, valid, batch)
                step += 1
                irregular += batch["irregular"]
                bar.set_description(f"epoch {len(log) + 1}/{args.epochs}", refresh=False)
                bar.set_postfix_str(standing(losses.recent, log, best_constant), refresh=False)
                bar.update()
                continue

            loss_sum, map_count = losses.sums(path)
            if not map_count:
                raise InputError("no valid ground truth in the whole epoch; check the data set")
            found = validate(result.eval(), val_loader, loss_of, device, dtype, stop, path)
            network.train()
            if found is None:
                continue  # stopped
            best = min((line["val_loss"] for line in log), default=float("inf"))
            line = {
                "epoch": len(log) + 1,
                "step": step,
                "train_loss": loss_sum / map_count,
                **found,
                **best_constant,
                "learning_rate": learning_rate(args, step, order.last),
                "seconds": round(time.monotonic() - started, 1),
            }
            log.append(line)
            say(json.dumps(line))
            if gathered := sum(processes.gather(irregular), []):
                say(f"in this epoch's clips: {summarise(gathered)}")
            if is_main():
                if line["val_loss"] < best:
                    models.save(best_path, result, **facts, **line)
                show({n: line[n] for n in line if n not in ("epoch", "step", "seconds")})
                write_log(folder, log)
            losses, irregular, started = training.RunningLoss(), [], time.monotonic()
            save()
            saved = time.monotonic()
    say(summary(args, best_path, log, baseline))
    return 0


def make_model(args: argparse.Namespace) -> models.SaliencyModel:
    """Build the model as the options describe it, with random weights or those of --init."""
    kind, arguments, start = find_model(args.model), model_arguments(args), args.init
    taken = inspect.signature(kind).parameters
    if args.motion and not start:
        variant = kind.arguments_for(MOTIONS[args.motion].channels)
        arguments = {name: variant[name] for name in variant if name in taken} | arguments
    try:
        model = models.load(start, **arguments) if start else kind(**arguments)
    except (TypeError, ValueError) as error:
        file, line, *_ = traceback.extract_tb(error.__traceback__)[-1]
        where = f" ({file}, line {line})" if isinstance(error, TypeError) else ""
        given = f"--model {args.model} --model_args {arguments}"
        raise InputError(f"{given}: {error}{where}; change it") from error
    if model.name != kind.name:
        raise InputError(f"{start}: a {model.name}, not a {kind.name}; give --model {model.name}")
    if differing := taken.keys() ^ model.arguments.keys():
        raise InputError(
            f"--model {args.model}: '{min(differing)}' is not among the arguments of both its "
            "constructor and super().__init__(spec, …); give it to both, so that a checkpoint can "
            "build the model again"
        )
    if not any(weights.requires_grad for weights in model.parameters()):
        raise InputError(f"--model {args.model}: has no weights to train; choose another")
    with advice(f"--motion {args.motion}"):
        model.use_motion(args.motion)
    if start:
        compare_with_init(args, model)
    args.loss = args.loss or args.default_loss
    return model.train()


def compare_with_init(args: argparse.Namespace, model: models.SaliencyModel) -> None:
    """Take the loss of the checkpoint given with --init if none is given, and say what differs."""
    content = read(args.init)
    loss = content["run"].get("loss")
    if args.loss is None and loss in list(LOSSES):
        args.loss = loss
        say(f"--loss {loss}, with which {args.init} was trained")
    now = args.loss or args.default_loss
    if loss not in (None, now):
        say(f"note: {args.init} was trained with --loss {loss}, this run uses {now}")
    stored = content["arguments"] | content.get("spec", {})
    own = model.arguments | asdict(model.spec)
    if changed := [name for name in stored if stored[name] != own.get(name)]:
        before, now = (", ".join(f"{n} {of.get(n)}" for n in changed) for of in (stored, own))
        say(f"note: {args.init} was made with {before}; this run uses {now}")


def standing(loss: float, log: list[dict], best_constant: dict[str, float]) -> str:
    """Return the bar's text: loss and last validation, each (best constant map's) in brackets."""
    last = log[-1] if log else {}
    texts = [f"loss {loss:.4g} (constant {best_constant['best_constant']:.4g})"]
    for name in training.MeanScores.NAMES:
        if (constant := best_constant.get(f"best_constant_{name}")) is not None:
            found = last.get(f"val_{name}")
            text = "–" if found is None else f"{found:.3f}"
            texts.append(f"val {name.upper()} {text} ({constant:.3f})")
    return ", ".join(texts)


def learning_rate(args: argparse.Namespace, step: int, steps: int) -> float:
    return args.learning_rate * training.SCHEDULES[args.schedule](step, steps)


def batch_loss(
    network: nn.Module, batch: dict, loss_of: nn.Module, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses of a batch's valid maps, and all its maps (B, T, 1, H, W)."""
    valid = batch["valid"].flatten().nonzero()[:, 0]  # counted on the CPU: no wait for a GPU
    tensors = (batch[name].to(device, non_blocking=True) for name in ("frames", "motion", "target"))
    with autocast(device, dtype):
        frames, motion, target = tensors
        maps = network(frames, motion)
        if not len(valid):  # still part of what other processes compute
            return maps.float().sum() * 0, maps
        predicted, target = maps.flatten(0, 1), target.flatten(0, 1)
        if len(valid) < len(target):
            rows = valid.to(device, non_blocking=True)
            predicted, target = predicted.index_select(0, rows), target.index_select(0, rows)
        loss = loss_of(predicted, target)
    return loss if loss_of.summed else loss * len(valid), maps


@torch.inference_mode()
def validate(
    model: models.SaliencyModel,
    loader: DataLoader,
    loss_of: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    stop: training.StopSignals,
    path: Path,
) -> dict[str, float] | None:
    """Return the mean loss over the valid maps, and their CC and NSS as far as there are truths.

    None where a signal came. path: the checkpoint that keeps the run.
    """
    losses = training.RunningLoss()
    scores = training.MeanScores(model.spec.height, model.spec.width, device)
    batches = iter(tqdm(loader, "validation", leave=False, unit="step", dynamic_ncols=True,
        disable=not is_main()))  # fmt: skip
    for _ in range(max(processes.gather(len(loader)))):
        if processes.total(stop.number > 0):
            return None
        batch = next(batches, None)  # some processes have one less than others
        if batch is None or not batch["valid"].any():
            continue
        loss, maps = batch_loss(model, batch, loss_of, device, dtype)
        losses.add(loss, int(batch["valid"].sum()), batch)
        if loss.isfinite():  # else the end of this function says where it is not
            kinds = batch.keys() & {"target", "fixations"}
            truths = {kind: batch[kind][batch["valid"]][:, 0].to(device) for kind in kinds}
            scores.add(maps[batch["valid"].to(device)][:, 0].float(), **truths)
    total, count = losses.sums(path)
    if not count:
        raise InputError("no valid ground truth in the validation clips; check the data set")
    means = scores.means()
    return {"val_loss": total / count} | {f"val_{name}": means[name] for name in means}


def write_log(folder: Path, log: list[dict]) -> None:
    with atomic(folder / "log.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")


def summary(args: argparse.Namespace, best_path: Path, log: list[dict], baseline: float) -> str:
    if args.dry_run:
        return "dry run: a batch of everything went through; nothing was kept"
    try:
        name = "test" if read_splits(args.data_root).get("test") else "val"
    except InputError:
        name = "val"
    best = min(line["val_loss"] for line in log)
    own = f" --model {args.model}" if ":" in args.model else ""
    return (
        f"best validation loss {best:.4g}, {best / baseline:.2f} of the best constant map's; "
        "next:\n"
        f"  python evaluate_video.py --ckpt_path {best_path}{own} "
        f"--data_root {shlex.quote(str(args.data_root))} --split {name}\n"
        f"  python infer_video.py --ckpt_path {best_path}{own} --video_path YOUR_CLIP"
    )


if __name__ == "__main__":
    run_script(processes.session(main))
