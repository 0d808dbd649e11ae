"""A training run across signals and interruptions: what it is, how far it is, what it keeps."""

import argparse
import hashlib
import math
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch

import distributed
import models
from cli import InputError
from models.checkpoint import read
from training import Trainer
from video.motion import MOTIONS, with_motion


@dataclass
class Progress:
    """How far a run is; with the state of its Trainer, all that it needs to go on exactly."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the next one
    loss_sum: float = 0.0  # of their valid maps, over all processes
    map_count: int = 0
    seconds: float = 0.0  # spent on them
    best: float = math.inf  # validation loss
    history: list[dict] = field(default_factory=list)  # the lines of log.jsonl

    def next_epoch(self, log: dict) -> None:
        self.__init__(
            self.epoch + 1, best=min(self.best, log["val_loss"]), history=[*self.history, log]
        )

    @classmethod
    def of(cls, state: dict) -> "Progress":
        return cls(**{part.name: state[part.name] for part in fields(cls)})

    def __str__(self) -> str:
        return f"step {self.step} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"


class Saver:
    """Keeps a run's <model>_last.pth: from the last save on, nothing that was done is lost.

    run: what define_run says of it. minutes: between saves within an epoch.
    facts: of the data, the code and the last whole epoch, for people.
    """

    def __init__(self, path: Path, trainer: Trainer, progress: Progress, run: dict, minutes: float):
        self.path, self.trainer, self.progress, self.run = path, trainer, progress, run
        self.best_path = path.with_name(f"{trainer.model.name}_best.pth")
        self.facts = {"data": run["data"].rpartition(" (")[0], "revision": git_revision()}
        self.minutes = minutes
        self.saved = self.clock = time.monotonic()
        if distributed.is_main():
            for name in (f".{trainer.model.name}_*.partial.pth", ".log.*.partial.jsonl"):
                for left in path.parent.glob(name):  # by a run that was killed while it saved
                    left.unlink()

    @property
    def due(self) -> bool:
        return time.monotonic() - self.saved >= 60 * self.minutes

    def seconds(self) -> float:
        """That the current epoch has taken so far, without interruptions."""
        before, self.clock = self.clock, time.monotonic()
        self.progress.seconds += self.clock - before
        return self.progress.seconds

    def save(self) -> None:
        """Called in every process; the main one writes.

        Raises InputError where weights are not finite, or the file can't be written; the one
        before stays.
        """
        state, weights = self.trainer.state_dict(), self.trainer.model.state_dict()
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise InputError(f"weights are not finite any more; {self.kept}; lower --learning_rate")
        self.seconds()
        if distributed.is_main():
            facts = {**self.facts, **asdict(self.progress), **state, "run": self.run}
            models.save(self.path, self.trainer.model, **facts)
        distributed.total(0)  # all wait until it is written
        self.saved = time.monotonic()

    @property
    def kept(self) -> str:
        """What is left of the run where it breaks off."""
        return f"{self.path} keeps what was good" if self.path.exists() else "nothing was saved yet"


def make_model(args: argparse.Namespace) -> models.SaliencyModel:
    """The model with its spec as the options change it, in random weights or those of --init."""
    arguments = dict(args.model_args)
    if args.motion and not args.init:
        channels = MOTIONS[args.motion].channels
        arguments = models.MODELS[args.model].arguments_for(channels) | arguments
    try:
        start = args.init
        model = models.load(start, **arguments) if start else models.MODELS[args.model](**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"--model_args {arguments}: {error}") from error
    if not list(model.parameters()):
        raise InputError(f"--model {args.model}: has no weights to train; give another")
    if model.name != args.model:
        raise InputError(f"{start}: a {model.name}, not a {args.model}; give --model {model.name}")
    model.spec = with_motion(model.spec, args.motion, start or args.model)
    names = {field.name for field in fields(model.spec)}
    given = {k: v for k, v in vars(args).items() if k in names and v is not None}
    model.spec = replace(model.spec, **given)
    return model


MAY_CHANGE = ("epochs", "precision")  # though not without a note


def define_run(
    args: argparse.Namespace, model: models.SaliencyModel, data: dict, dtype: torch.dtype
) -> dict:
    """All that the weights depend on: what must be the same for a run to be resumed.

    data: the data sets by split. dtype: of the network's computations.
    """
    files = hashlib.sha256()
    for split, clips in data.items():
        for sample in clips.samples:
            frames = [(file.number, file.truth is not None) for file in sample.files]
            files.update(repr((split, sample.clip, frames)).encode())
    names = ("samples", "seed", "augment", "ema", "clip_gradient", "accumulate")
    return {
        "model": model.name,
        **model.arguments,
        **asdict(model.spec),
        **{name: getattr(args, name) or 0 for name in names},
        "init": args.init.name if args.init else "",
        "precision": str(dtype).removeprefix("torch."),
        "data": f"{args.data_root.resolve().name} ({files.hexdigest()[:8]})",
    }


def resumed_state(choice: str, path: Path, run: dict) -> dict | None:
    """What a checkpoint holds of an interrupted run; None where it is to begin afresh.

    choice: "yes", "no", or "auto": yes if the checkpoint is there.
    Raises InputError where it is another run's, naming what differs.
    """
    if choice == "no" or (choice == "auto" and not path.exists()):
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
            f"{path}: of another run, {reason}; give another --output_dir, or --resume no to "
            "replace what is there"
        )
    for text in changed.values():
        distributed.say(f"note: {path} had {text}; from here on it is not the run that it was")
    distributed.say(f"{path}: goes on after {Progress.of(state)}")
    if state["epoch"] >= run["epochs"]:
        distributed.say("that was the last one; --resume no begins again")
    return state


class StopSignals:
    """Within it Ctrl-C and SIGTERM are noted, not obeyed: `number` is the last signal's, or 0."""

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
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
