"""What moves a model's weights, with all the state that a resumed run must find again."""

import math
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

import distributed
import models
from cli import InputError
from losses import LOSSES
from models.batch_norm import synchronise
from cli import autocast
from models.ema import WeightAverage

OPTIMIZERS = {
    "sgd": lambda parameters, spec: torch.optim.SGD(
        parameters, spec.learning_rate, spec.momentum, weight_decay=spec.weight_decay
    ),
    "adamw": lambda parameters, spec: torch.optim.AdamW(
        parameters, spec.learning_rate, weight_decay=spec.weight_decay, fused=True
    ),
}

# Learning rate of each of a run's steps, counted from 0, as a share of the highest.
SCHEDULES = {
    "constant": lambda step, steps: 1.0,
    "cosine": lambda step, steps: min(
        (step + 1) / (0.05 * steps + 1), (1 + math.cos(math.pi * min(step / steps, 1))) / 2
    ),
}

# Options of train_video.py by recipe and model; those given on the command line win, and those
# that neither gives are the model's. SST-Sal's published learning rate, 0.8 at 240×320, depends
# on the size and is in its Spec.
RECIPES: dict[str, dict[str, dict]] = {
    "default": {"cube_unet": {"augment": ["yaw", "mirror"]}},
    "paper": {
        "cube_unet": {
            "optimizer": "sgd",
            "learning_rate": 1e-3,
            "momentum": 0.9,
            "schedule": "constant",
        },
        "sst_sal": {
            "loss": "spherical_kl",
            "optimizer": "sgd",
            "momentum": 0.0,
            "schedule": "constant",
            "batch_size": 1,
            "epochs": 240,
        },
    },
}


class Trainer:
    """A model in training: its optimizer, learning rate, gradient scaling and average.

    model: on its device; `network` is what is called, the model itself or wrapped. For several
        processes its batch normalisation becomes that of their batches together.
    steps: of the whole run, for the schedule of the learning rate.
    dtype: of the network's computations.
    average: decay of the average of weights that is validated instead of them, 0 for none.
    clip_gradient: largest norm of a step's gradient, None for any.
    parts: that this process' share of a batch is worked through in, to save memory.
    """

    def __init__(
        self,
        model: models.SaliencyModel,
        steps: int,
        dtype: torch.dtype,
        average: float = 0.0,
        clip_gradient: float | None = None,
        parts: int = 1,
        compiled: bool = False,
    ):
        spec = model.spec
        self.steps, self.done, self.dtype = steps, 0, dtype
        self.clip_gradient, self.parts = clip_gradient, parts
        self.device = next(model.parameters()).device
        self.average = WeightAverage(model, average) if average else None
        self.model = synchronise(model, self.device) if distributed.world() > 1 else model
        self.parallel = distributed.parallel(self.model, self.device)
        self.network = torch.compile(self.parallel, dynamic=False) if compiled else self.parallel
        self.loss_of = LOSSES[spec.loss]()
        self.optimizer = OPTIMIZERS[spec.optimizer](parameter_groups(model), spec)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)

    @property
    def learning_rate(self) -> float:
        spec = self.model.spec
        return spec.learning_rate * SCHEDULES[spec.schedule](self.done, self.steps)

    @property
    def result(self) -> models.SaliencyModel:
        """The model that is validated and kept: the average where there is one."""
        return self.average.model if self.average else self.model

    def step(self, batch: dict, count: int) -> Tensor:
        """One step of the optimizer on this process' share of a batch.

        count: valid maps in the whole batch, that of all processes; not 0.
        Returns the sum of the losses of the share's valid maps, a scalar without a gradient
        that nobody has waited for yet.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * group["share"]
        # Gradients are averaged over processes: as many times their mean is their sum.
        weight = distributed.world() / (1 if self.loss_of.summed else count)
        losses = []
        for number, part in enumerate(split(batch, self.parts), 1):
            wait = distributed.world() > 1 and number < self.parts
            with self.parallel.no_sync() if wait else nullcontext():
                loss, _ = batch_loss(self.network, part, self.loss_of, self.device, self.dtype)
                self.scaler.scale(loss * weight).backward()
            losses.append(loss.detach())
        if self.clip_gradient:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        if self.average:
            self.average.update(self.model)
        return torch.stack(losses).sum()

    def state_dict(self) -> dict:
        """All but the model's own weights. Called in every process."""
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "steps": self.done,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "random": distributed.gather(random),  # nothing here draws from numpy's or Python's
        }

    def load_state_dict(self, state: dict) -> None:
        self.done = state["steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        random = state["random"][distributed.rank() % len(state["random"])]
        torch.set_rng_state(random["cpu"])
        if self.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], self.device)


def parameter_groups(model: models.SaliencyModel) -> list[dict]:
    """What an optimizer takes: weights that learn, by their share of the learning rate."""
    groups: dict[float, list] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            shares = (share for start, share in model.learning_rate_scales.items() if name.startswith(start))
            groups.setdefault(next(shares, 1.0), []).append(weight)
    return [{"params": weights, "share": share} for share, weights in groups.items()]


def split(batch: dict, parts: int) -> Iterator[dict]:
    """Equal parts of a batch's tensors."""
    names = ("frames", "motion", "target", "valid")
    for tensors in zip(*(batch[name].chunk(parts) for name in names), strict=True):
        yield dict(zip(names, tensors))


def batch_loss(
    network: nn.Module, batch: dict, loss_of: nn.Module, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Sum of the losses of a batch's valid maps, and all its maps (B, T, 1, H, W)."""
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


class RunningLoss:
    """Mean loss of the valid maps of an epoch, in this process.

    A step's loss is read one step later, so that a GPU has work while it is waited for.
    """

    def __init__(self, total: float = 0.0, count: int = 0):
        self.total, self.count, self.recent = total, count, math.nan
        self.bad = ""  # a loss that is not finite and the frames it belongs to
        self._pending: tuple[Tensor, int, dict] | None = None

    def add(self, loss: Tensor, count: int, batch: dict) -> None:
        """loss: sum over the count valid maps of a batch."""
        self.settle()
        self._pending = loss, count, batch

    def settle(self) -> None:
        """Waits for the last step's loss."""
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

    def check(self, kept: str) -> None:
        """Called in every process: InputError in all where a loss of any was not finite.

        kept: what the last good weights are in.
        """
        self.settle()
        if bad := "; ".join(filter(None, distributed.gather(self.bad))):
            raise InputError(f"{bad}; {kept}; lower --learning_rate or look at these frames")
