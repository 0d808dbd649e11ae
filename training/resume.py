"""Exact resume: state and identity of a run, and interruptions."""

import hashlib
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

import torch

import models
from common import processes
from common.errors import TERMINATION_SIGNALS, InputError, RunError
from common.files import reading
from common.records import Record
from datasets.video_saliency import SaliencyVideos
from models.checkpoint import put_weights, read
from training.config import Config
from training.monitor import LEARNING_RATE_ADVICE, RunningLoss

CHANGEABLE_FACTS = ("epochs", "precision")  # between a run and its continuation, with a note
RESTART_ADVICE = "give another --output_dir, or --resume no to replace it"


def save(run) -> None:
    """Write everything that a run, train_video.Run, needs to continue exactly, in all processes.

    Raises RunError, and keeps the previous checkpoint, if a loss or a weight is not finite.
    """
    random = {"cpu": torch.get_rng_state()}  # the only generator that the training uses
    if run.config.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(run.config.device)
    content = {
        "step": run.step,
        "log": run.log,
        "sums": run.losses.sums(),
        "seconds": time.monotonic() - run.epoch_start,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "average": run.average and run.average.state(),
        "random": processes.gather(random),
    }
    if not all(tensor.isfinite().all() for tensor in run.model.state_dict().values()):
        raise RunError(f"a weight is not finite; {LEARNING_RATE_ADVICE}")
    if processes.is_main():
        models.save(run.path, run.model, **run.facts, **content)
    processes.wait_for_all()  # torchrun ends the main process with the first process that ends


def restore(run) -> None:
    """Continue from a checkpoint, as --resume says; that of another run raises InputError."""
    path, resume, now = run.path, run.config.resume, run.facts["run"]
    if resume == "no" or (resume == "auto" and not path.exists()):
        return
    content = read(path)
    if not (stored := content["run"]):
        raise InputError(f"{path}: was written by an older version; {RESTART_ADVICE}")
    otherwise = f"the state of its run is damaged ({{}}); {RESTART_ADVICE}"
    with reading(path, otherwise):  # newer arguments of the model get their defaults
        stored = type(run.model)(**content["arguments"]).arguments | stored
    record = Record(path, now, CHANGEABLE_FACTS, stored)
    if refused := record.differences().values():
        raise InputError(f"{path}: belongs to a run with {', '.join(refused)}; {RESTART_ADVICE}")
    for text in record.changes().values():
        processes.print_main(f"note: {path} had {text}; this changes the run")
    with reading(path, otherwise):
        put_weights(run.model, content["weights"])
        if run.average:
            put_weights(run.average.module, content["average"]["weights"])
            run.average.steps = int(content["average"]["steps"])
        run.optimizer.load_state_dict(content["optimizer"])
        if content["scaler"]:  # empty if the run was not in fp16
            run.scaler.load_state_dict(content["scaler"])
        run.step, run.log = int(content["step"]), [dict(line) for line in content["log"]]
        total, count = content["sums"]
        if processes.is_main():
            run.losses = RunningLoss(float(total), int(count))
        run.epoch_start = time.monotonic() - content["seconds"]
        for random in content["random"][processes.rank() :][:1]:  # none for additional processes
            torch.set_rng_state(random["cpu"])
            if run.config.device.type == "cuda" and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"], run.config.device)
    processes.print_main(f"{path}: resumed after step {run.step}")
    if len(run.log) >= run.config.epochs:
        processes.print_main("training is complete; --resume no restarts it")


def describe_run(
    config: Config, model: models.SaliencyModel, data: dict[str, SaliencyVideos]
) -> dict:
    """Return facts about a run for its checkpoints; "run" must be equal to resume it."""
    files = hashlib.sha256()
    for name, clips in data.items():
        for sample in clips.samples:
            frames = [(file.number, file.truth is not None) for file in sample.files]
            files.update(repr((name, sample.clip, frames)).encode())
    folder = config.data_root.resolve().name
    rates = {rate for part in data.values() for rate in map(part.rates.of, part.clips) if rate}
    identity = {
        "model": model.name,
        **model.arguments,
        **asdict(model.spec),
        **config.identity(),
        "init": config.init.name if config.init else "",
        "precision": str(config.precision).removeprefix("torch."),
        "data": f"{folder} ({files.hexdigest()[:8]})",
        "data_fps": " ".join(map(str, sorted(rates))) or None,
    }
    return {"data": folder, "revision": git_revision(), "run": identity}


def git_revision() -> str:
    """Return the git revision of this code, for the checkpoint."""
    folder = str(Path(__file__).resolve().parents[1])
    command = ["git", "-C", folder, "--git-dir", ".git", "describe", "--always", "--dirty"]
    with suppress(OSError):  # there is no git
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    return "unknown"


class Stopped(Exception):  # noqa: N818  like KeyboardInterrupt, no error
    """Raised in all processes after the same step when one has received a signal; its number."""


class Interruptions(ExitStack):
    """A context that defers Ctrl-C and SIGTERM until all processes can stop together."""

    def __init__(self, save_minutes: float):
        super().__init__()
        self.save_minutes, self.last_save, self.signal = save_minutes, time.monotonic(), 0
        for number in (signal.SIGINT, *TERMINATION_SIGNALS):
            if signal.getsignal(number) != signal.SIG_IGN:
                self.callback(signal.signal, number, signal.signal(number, self._note))

    def _note(self, number: int, frame) -> None:
        self.signal = number

    def checkpoint_due(self, losses: RunningLoss) -> bool:
        """Return whether it is time to save, in all processes at once; may raise Stopped."""
        late = time.monotonic() - self.last_save >= 60 * self.save_minutes
        flags = [bool(losses.error), self.signal > 0, late]
        not_finite, stopped, save_due = processes.total(flags).tolist()
        if not_finite:
            losses.sums()  # raises RunError
        if stopped:
            raise Stopped(self.signal or signal.SIGTERM)
        if save_due:
            self.last_save = time.monotonic()
        return save_due > 0
