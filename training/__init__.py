"""The parts of a training run around the loop in train_video.py: optimizer, batches, resuming."""

import argparse
import functools
import hashlib
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import models
from common import processes
from common.devices import autocast
from common.errors import InputError, RunError
from common.files import reading
from datasets.gaze import fixation_map
from datasets.layouts import read_truth
from datasets.video_saliency import SaliencyVideos, collate
from metrics import METRICS
from models.checkpoint import read
from projection import solid_angles

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
            yield [(epoch + 1, index) for index in processes.shard(batch)]

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        rounds = range(math.ceil(self.epoch_steps * self.batch_size / self.clips))
        return torch.cat([torch.randperm(self.clips, generator=generator) for _ in rounds]).tolist()


def share_of_batch(batch_size: int, parts: int) -> int:
    """Return how many clips a process computes at once. Raises InputError for uneven parts."""
    count = processes.world() * parts
    if batch_size % count:
        raise InputError(
            f"--batch_size {batch_size}: can't be divided among {processes.world()} processes "
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
        workers = max(1, min(8, (cores or 1) // processes.local_world()))
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
        if bad := "; ".join(filter(None, processes.gather(self.bad))):
            raise RunError(f"{bad}; {kept(path)}; lower --learning_rate or look at these frames")
        total, count = processes.total([self.total, self.count]).tolist()
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


class MeanScores:
    """Means of CC and NSS over frames, weighted with exact solid angles, over all processes.

    Only sums and counts are kept. A frame whose truth can't be scored is left out of the mean.
    """

    NAMES = ("cc", "nss")

    def __init__(self, height: int, width: int, device: torch.device):
        self.areas = solid_angles(height, width, torch.float64).to(device)
        self.sums = torch.zeros(len(self.NAMES), 2, dtype=torch.float64)  # of scores, of frames

    def add(self, pred: Tensor, **truths: Tensor) -> None:
        """pred and truths, target and perhaps fixations: (N, H, W)."""
        for name, sums in zip(self.NAMES, self.sums):
            metric = METRICS[name]
            if truths.keys() >= set(metric.needs):
                needed = (truths[need] for need in metric.needs)
                scores = metric.function(pred, *needed, weights=self.areas).cpu()
                scores = scores[~scores.isnan()]
                sums += torch.tensor([scores.sum().item(), len(scores)], dtype=torch.float64)

    def means(self) -> dict[str, float]:
        """Return the mean of each metric that a frame has; called in each process."""
        sums = processes.total(self.sums).tolist()
        return {name: s / count for name, (s, count) in zip(self.NAMES, sums) if count}


def best_constant(
    data: SaliencyVideos, loss_of: nn.Module, device: torch.device
) -> tuple[float, dict[str, float]]:
    """Return loss and scores of the one map that fits a split best, which a model must beat.

    That is the mean of the maps for a squared error, and of the maps scaled to sum 1 for a
    divergence. Each score is the better one of these two.
    """
    size = data.spec.height, data.spec.width

    def truths() -> Iterator[dict[str, Tensor]]:
        """Yield this process' usable targets, and fixations where there are any: (1, H, W)."""
        for sample in tqdm(
            processes.shard(data.samples), "best constant map", leave=False, disable=None
        ):
            gaze = data.fixations.of(sample.clip)
            for file in filter(lambda file: file.truth, sample.files):
                with suppress(InputError):
                    truth = {"target": read_truth(file.truth, *size).to(device)}
                    if gaze:
                        counts = fixation_map(*gaze.at(file.number), *size)
                        truth["fixations"] = counts[None].to(device)
                    yield truth

    sums, count = torch.zeros(2, 1, *size, device=device), 0
    for truth in truths():
        target, count = truth["target"], count + 1
        for k, scaled in enumerate((target, target / target.sum())):
            sums[k] += scaled
    count = int(processes.total(count))
    if not count:
        raise InputError(f"{data.root}: no usable ground truth in split '{data.split}'")
    means = (processes.total(sums.cpu()) / count).float().to(device)
    losses, scores = [0.0, 0.0], [MeanScores(*size, device) for _ in means]
    for truth in truths():
        for k, mean in enumerate(means):
            losses[k] += loss_of(mean, truth["target"]).item()
            scores[k].add(mean, **truth)
    one, other = (both.means() for both in scores)
    best = {name: max(one[name], other[name]) for name in one}
    return processes.total(losses).min().item() / count, best


def clips_to_show(data: SaliencyVideos, count: int = 4) -> list[int]:
    """Return the indices of clips that are spread evenly over a data set, all where it has less."""
    return sorted({(2 * k + 1) * len(data) // (2 * count) for k in range(count)})


LARGEST_PICTURE = 256  # rows


def pictures(
    model: models.SaliencyModel, data: SaliencyVideos, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yield name and picture of four clips' last frames: frame, truth and prediction side by side.

    Prediction and truth are divided by their maxima: (3, h, 3 w) in [0, 1]. Leaves no trace in
    the random numbers and in the state of the model, so it can be called at any time.
    """
    was_training, gpus = model.training, [device] if device.type == "cuda" else []
    for index in clips_to_show(data):
        clip = data[index]
        batch = (clip[name][None].to(device) for name in ("frames", "motion"))
        with torch.inference_mode(), torch.random.fork_rng(gpus), autocast(device, dtype):
            maps = model.eval()(*batch)
        model.train(was_training)
        prediction, truth = maps[0, -1].float().cpu(), clip["target"][-1]
        shown = [m.clamp(min=0) / m.max().clamp(min=1e-12) for m in (truth, prediction)]
        row = torch.cat([clip["frames"][-1], *(m.expand(3, -1, -1) for m in shown)], dim=-1)
        smaller = avg_pool2d(row, -(-row.shape[-2] // LARGEST_PICTURE))
        yield f"{clip['name']} {clip['numbers'][-1]}", smaller.clamp(0, 1)


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
        processes.say(f"note: {path} had {text}; the run is not the one that it was")
    processes.say(f"{path}: resumed after step {state['step']}")
    if len(state["log"]) >= run["epochs"]:
        processes.say("training is complete; --resume no restarts it")
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
    state = states[processes.rank() % len(states)]
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
    folder = str(Path(__file__).resolve().parents[1])
    command = ["git", "-C", folder, "--git-dir", ".git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
