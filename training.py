"""The parts of a training run around the loop in train_video.py: optimizer, batches, resuming."""

import argparse
import functools
import hashlib
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import distributed
import models
from cli import InputError, RunError
from datasets.video_saliency import SaliencyVideos, collate
from files import reading
from models.checkpoint import read

OPTIMIZERS = {
    "sgd": lambda groups, args: torch.optim.SGD(
        groups, args.learning_rate, args.momentum, weight_decay=args.weight_decay
    ),
    "adamw": lambda groups, args: torch.optim.AdamW(
        groups, args.learning_rate, weight_decay=args.weight_decay, fused=True
    ),
}

# Learning rate of each step of a run, counted from 0, as a share of the peak learning rate.
SCHEDULES = {
    "constant": lambda step, steps: 1.0,
    "cosine": lambda step, steps: min(
        (step + 1) / (0.05 * steps + 1), (1 + math.cos(math.pi * min(step / steps, 1))) / 2
    ),
}


def parameter_groups(model: models.SaliencyModel) -> list[dict]:
    """Group the trainable parameters by learning-rate scale, as an optimizer takes them."""
    groups: dict[float, list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scales = (s for part, s in model.learning_rate_scales.items() if name.startswith(part))
            groups.setdefault(next(scales, 1.0), []).append(parameter)
    return [{"params": parameters, "scale": scale} for scale, parameters in groups.items()]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


class Batches:
    """Yields this process' share of the clips of each step's batch: lists of (epoch, index).

    A batch is a function of seed and step alone, and the same however many processes share it.
    Every epoch draws a new permutation of the clips; where they do not fill its last batch, those
    of a further permutation do.

    clips: number of clips in the data set. samples: clips drawn for an epoch, 0 for all.
    batch_size: over all processes. first: the step that an iteration begins with.
    epoch_steps, last: the number of steps in an epoch and in the whole run.
    """

    def __init__(
        self, clips: int, samples: int, batch_size: int, seed: int, epochs: int, first: int = 0
    ):
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.epoch_steps = math.ceil((samples or clips) / batch_size)
        self.first, self.last = first, epochs * self.epoch_steps

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order_of = functools.lru_cache(maxsize=1)(self._order)
        for step in range(self.first, self.last):
            epoch, k = divmod(step, self.epoch_steps)
            batch = order_of(epoch + 1)[k * self.batch_size : (k + 1) * self.batch_size]
            yield [(epoch + 1, index) for index in distributed.shard(batch)]

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        rounds = range(math.ceil(self.epoch_steps * self.batch_size / self.clips))
        return torch.cat([torch.randperm(self.clips, generator=generator) for _ in rounds]).tolist()


def share_of_batch(batch_size: int, parts: int) -> int:
    """Return how many clips a process computes at once. Raises InputError for uneven parts."""
    count = distributed.world() * parts
    if batch_size % count:
        raise InputError(
            f"--batch_size {batch_size}: can't be divided among {distributed.world()} processes "
            f"with --accumulate {parts}; give a multiple of {count}"
        )
    return batch_size // count


def make_loader(
    data: Dataset, batches, device: torch.device, workers: int | None = None
) -> DataLoader:
    """Read batches ahead in other processes, into memory that a GPU can copy from.

    batches: lists of keys, one for each batch. workers: None for one a core, at most 8.
    """
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        workers = max(1, min(8, (cores or 1) // distributed.local_world()))
    return DataLoader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else it would draw from the one that a run restores
    )


GRACE = 20  # seconds


def _start_worker(number: int) -> None:
    """Workers outlive a signal to the whole group until the main process has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))


def split(batch: dict, parts: int) -> Iterator[dict]:
    """Yield equal parts of a batch's tensors."""
    names = ("frames", "motion", "target", "valid")
    for tensors in zip(*(batch[name].chunk(parts) for name in names), strict=True):
        yield dict(zip(names, tensors))


class RunningLoss:
    """Adds up the losses of the valid maps of an epoch, in this process.

    A step's loss is read one step later, so that a GPU has work while it is waited for.

    total, count: sums over the maps so far. recent: moving average for the progress bar.
    bad: a loss that is not finite and the frames that it belongs to, else empty.
    """

    def __init__(self, total: float = 0.0, count: int = 0):
        self.total, self.count, self.recent, self.bad = total, count, math.nan, ""
        self._pending: tuple[Tensor, int, dict] | None = None

    def add(self, loss: Tensor, count: int, batch: dict) -> None:
        """loss: sum over the count valid maps of a batch, a scalar without gradient."""
        self._read()
        self._pending = loss, count, batch

    def _read(self) -> None:
        if not self._pending:
            return
        (loss, count, batch), self._pending = self._pending, None
        loss = loss.item()
        if not math.isfinite(loss) and not self.bad:
            frames = [f"{n} {i.tolist()}" for n, i in zip(batch["name"], batch["numbers"])]
            self.bad = f"the loss is {loss} at frames {', '.join(frames)}"
        self.total, self.count = self.total + loss, self.count + count
        mean = loss / max(count, 1)
        old = mean if math.isnan(self.recent) else self.recent
        self.recent = old + 0.02 * (mean - old)

    def sums(self, path: Path) -> tuple[float, int]:
        """Return loss and number of maps over all processes; called in each of them.

        path: the checkpoint with the last good weights. Raises RunError in every process where
        a loss in any of them is not finite.
        """
        self._read()
        if bad := "; ".join(filter(None, distributed.gather(self.bad))):
            raise RunError(f"{bad}; {kept(path)}; lower --learning_rate or look at these frames")
        total, count = distributed.total([self.total, self.count]).tolist()
        return total, int(count)


def kept(path: Path) -> str:
    """Return where the last good weights are of a run that breaks off."""
    return f"{path} keeps what was good" if path.exists() else "nothing was saved yet"


def check_finite(model: nn.Module, path: Path) -> None:
    """Raise RunError where a weight is not finite. path: the checkpoint saved before."""
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise RunError(f"a weight is not finite any more; {kept(path)}; lower --learning_rate")


TOO_LITTLE = 0.01  # of the frames with ground truth
SAMPLE = 64  # maps that are read to find out whether they are usable


def check_truth(data: SaliencyVideos) -> None:
    """Raise InputError where too little of a split's ground truth is there or usable."""
    files = [file for clip in data.clips.values() for file in clip]
    announced = sum(file.truth is not None for file in files)
    where = f"{data.root}: split '{data.split}'"
    see = "'python evaluate_video.py --check' lists what is wrong"
    if announced < TOO_LITTLE * len(files):
        raise InputError(f"{where}: {announced} of {len(files)} frames have ground truth; {see}")
    every = max(1, len(data) * data.spec.clip_length // SAMPLE)
    there = usable = 0
    for index in range(0, len(data), every):
        there += sum(file.truth is not None for file in data.samples[index].files)
        usable += len(data.targets(index))
    if 2 * usable < there:
        raise InputError(f"{where}: of {there} maps that were tried {usable} are usable; {see}")


def best_constant_loss(data: SaliencyVideos, loss_of: nn.Module, device: torch.device) -> float:
    """Return the loss of the one map that fits a split best, which every model must beat.

    That is the mean of the maps for a squared error, and of the maps scaled to sum 1 for a
    divergence.
    """

    def targets() -> Iterator[Tensor]:
        mine = distributed.shard(range(len(data)))
        for index in tqdm(mine, "best constant map", leave=False, disable=None):
            yield from (target.to(device) for target in data.targets(index))

    size = data.spec.height, data.spec.width
    sums, count = torch.zeros(2, 1, *size, device=device), 0
    for target in targets():
        count += 1
        for k, scaled in enumerate((target, target / target.sum())):
            sums[k] += scaled
    count = int(distributed.total(count))
    if not count:
        raise InputError(f"{data.root}: no usable ground truth in split '{data.split}'")
    means = (distributed.total(sums.cpu()) / count).float().to(device)
    losses = [0.0, 0.0]
    for target in targets():
        for k, mean in enumerate(means):
            losses[k] += loss_of(mean, target).item()
    return distributed.total(losses).min().item() / count


MAY_CHANGE = ("epochs", "precision")  # between a run and its continuation, with a note


def describe_run(
    args: argparse.Namespace,
    options: tuple[str, ...],
    model: models.SaliencyModel,
    data: dict[str, SaliencyVideos],
    dtype: torch.dtype,
) -> dict:
    """Return all that the weights depend on, which must be the same for a run to be resumed.

    options: names of the training options. data: the data sets by split.
    """
    files = hashlib.sha256()
    for name, clips in data.items():
        for sample in clips.samples:
            frames = [(file.number, file.truth is not None) for file in sample.files]
            files.update(repr((name, sample.clip, frames)).encode())
    return {
        "model": model.name,
        **model.arguments,
        **asdict(model.spec),
        **{name: getattr(args, name) for name in (*options, "seed", "accumulate")},
        "init": args.init.name if args.init else "",
        "precision": str(dtype).removeprefix("torch."),
        "data": f"{args.data_root.resolve().name} ({files.hexdigest()[:8]})",
    }


def stored_state(resume: str, path: Path, run: dict) -> dict | None:
    """Return what a checkpoint holds of an interrupted run; None to begin afresh.

    resume: "yes", "no", or "auto": yes if the checkpoint is there.
    Raises InputError where the checkpoint belongs to another run, naming what differs.
    """
    if resume == "no" or (resume == "auto" and not path.exists()):
        return None
    state = read(path)
    stored = state.get("run", {})
    changed = {
        key: f"{key} {stored.get(key)} instead of {run.get(key)}"
        for key in dict.fromkeys((*run, *stored))
        if stored.get(key) != run.get(key)
    }
    refused = [text for key, text in changed.items() if key not in MAY_CHANGE]
    if refused or not stored:
        reason = f"it had {', '.join(refused)}" if stored else "it is of an older version"
        raise InputError(
            f"{path}: belongs to another run, {reason}; give another --output_dir, or --resume no "
            "to replace what is there"
        )
    with restoring(path):
        losses = [line["val_loss"] for line in state["log"]]
        total, count = state["sums"]
        if not all(map(math.isfinite, [*losses, total, count, state["seconds"], state["step"]])):
            raise ValueError("a loss is not finite")
    for text in changed.values():
        distributed.say(f"note: {path} had {text}; the run is not the one that it was")
    distributed.say(f"{path}: resumed after step {state['step']}")
    if len(state["log"]) >= run["epochs"]:
        distributed.say("training is complete; --resume no restarts it")
    return state


def restoring(path: Path):
    """Return a context in which every error is about the run's state in a checkpoint."""
    again = "give another --output_dir, or --resume no to begin again"
    return reading(path, f"the state of its run is damaged ({{}}); {again}")


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load an optimizer's state. Raises ValueError where it does not fit the parameters."""
    optimizer.load_state_dict(state)
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            fits = name == "step" or value.shape == parameter.shape
            if not fits or not value.isfinite().all():
                raise ValueError(f"'{name}' of the optimizer does not fit or is not finite")


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of torch's random numbers, the only ones that the training draws."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(states: list[dict[str, Tensor]], device: torch.device) -> None:
    """Restore what random_state returned in each of the processes that saved it."""
    state = states[distributed.rank() % len(states)]
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


class StopSignals:
    """A context in which Ctrl-C and SIGTERM are noted, not obeyed: `number` is the last one's."""

    def __init__(self):
        self.number = 0

    def __enter__(self) -> "StopSignals":
        self.before = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        self.number = number


def git_revision() -> str:
    """Return the revision of this code, for the checkpoint."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
