"""The batches of a training run: clips, order, loaders, division and losses."""

import atexit
import math
import os
import signal
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common import processes
from common.components import MOTIONS
from common.errors import InputError, advice, counted
from common.options import HIGHEST_FPS
from datasets.augment import Augmented
from datasets.video_saliency import SaliencyVideos, collate, summarise
from models import Spec
from training.config import Config


def read_data(
    root: Path, spec: Spec, skip_frames: int, fps: Fraction | None, fixations: bool
) -> dict[str, SaliencyVideos]:
    """Return the training and validation clips. fixations: whether the loss needs them."""
    data = {}
    for name in ("train", "val"):
        clips = data[name] = SaliencyVideos(root, name, spec, skip_frames, fps, True, fixations)
        samples = f"{counted(len(clips), 'sample')} of {counted(spec.clip_length, 'frame')}"
        problems = summarise(clips.irregular) or "all in order"
        number = counted(len(clips.clips), "clip")
        processes.print_main(f"{name}: {samples} in {number}; {problems}")
    if None in map(clips.rates.of, clips.clips) and spec.fps < HIGHEST_FPS:
        assumed = f"its frames are used as if they were {spec.fps:g} a second"
        cure = "give --fps, or --model_fps all"
        processes.print_main(f"note: {root}: its frame rate is unknown; {assumed}; {cure}")
    return data


def make_loaders(
    config: Config, data: dict[str, SaliencyVideos], first_step: int
) -> tuple["Batches", DataLoader, DataLoader]:
    """Return the order of training batches from a step on, their loader, and that of val."""
    cv2.setNumThreads(1)  # the data workers are many, and forks lack these threads
    size, count = config.batch_size, processes.world() * config.accumulate
    if size % count:
        shares = f"{processes.world()} processes with --accumulate {config.accumulate}"
        problem = f"can't be divided among {shares}; give {math.ceil(size / count) * count}"
        raise InputError(f"--batch_size {size}: {problem}")
    with advice("--augment"):
        clips = Augmented(data["train"], config.augment, config.seed)
    order = Batches(len(clips), config.samples, size, config.seed, config.epochs, first_step)
    val_order = torch.arange(len(data["val"])).split(size // count)
    val_order = [indices.tolist() for indices in processes.shard(val_order)]
    machine = config.device, config.workers
    return order, make_loader(clips, order, *machine), make_loader(data["val"], val_order, *machine)


class Batches:
    """Yield this process' share of each step's batch of clips: lists of (epoch, index).

    A batch depends only on seed and step, not on the number of processes. Each epoch draws a new
    permutation of the clips, and another one to fill its last batch.
    clips: in the data set. samples: clips drawn for an epoch, 0 for all. batch_size: over all
    processes. first_step: first step of an iteration, counted from 0.
    """

    def __init__(
        self, clips: int, samples: int, batch_size: int, seed: int, epochs: int, first_step: int = 0
    ):
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.epochs, self.first_step = epochs, first_step
        self.epoch_steps = math.ceil((samples or clips) / batch_size)
        self.steps = epochs * self.epoch_steps

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        finished_epochs, position = divmod(self.first_step, self.epoch_steps)
        count = self.epoch_steps * self.batch_size  # clips of an epoch
        for epoch in range(finished_epochs + 1, self.epochs + 1):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            rounds = range(math.ceil(count / self.clips))
            order = torch.cat([torch.randperm(self.clips, generator=generator) for _ in rounds])
            for batch in order[:count].split(self.batch_size)[position:]:
                yield [(epoch, index) for index in processes.shard(batch.tolist())]
            position = 0


def split(batch: dict, parts: int) -> Iterator[dict]:
    """Yield equal parts of a batch's tensors."""
    names = batch.keys() & {"frames", "motion", "target", "valid", "fixations"}
    for tensors in zip(*(batch[name].chunk(parts) for name in names), strict=True):
        yield dict(zip(names, tensors))


def loss_sum(loss_of: Any, maps: Tensor, batch: dict) -> Tensor:
    """Return the sum of a loss over the valid maps of a batch, which has at least one.

    maps: (B, T, 1, H, W) predictions. batch: of SaliencyVideos, with "valid" on the CPU.
    """
    names = ["target"] + ["fixations"] * loss_of.needs_fixations + ["valid"] * loss_of.whole_clips
    truths = {name: batch[name].to(maps.device, non_blocking=True) for name in names}
    valid = batch["valid"].flatten().nonzero()[:, 0]  # on the CPU, without waiting for a GPU
    if not loss_of.whole_clips:
        rows = valid.to(maps.device, non_blocking=True)
        maps = maps.flatten(0, 1).index_select(0, rows)
        truths = {name: truth.flatten(0, 1).index_select(0, rows) for name, truth in truths.items()}
    loss = loss_of(maps, truths.pop("target"), **truths)
    return loss if loss_of.summed else loss * len(valid)


def make_loader(
    data: Dataset, batches, device: torch.device, workers: int | None = None
) -> DataLoader:
    """Prefetch batches in worker processes (None: one per core, at most 8)."""
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes on this machine
        workers = max(1, min(8, (cores or 1) // here))
    if workers and hasattr(signal, "SIGCHLD"):
        atexit.register(_end_workers)
    return DataLoader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=partial(_start_worker, [name for name in MOTIONS if ":" in name]),
        generator=torch.Generator(),  # otherwise it would use the generator that a run restores
    )


def _start_worker(motions: list[str], number: int) -> None:
    """Let a data worker survive a signal to the process group, until the main process ends."""
    for name in motions:  # user-defined ones, which a spawned process must import
        MOTIONS.find(name)
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN)


def _end_workers() -> None:
    """Kill the data workers that are left at the end, since they ignore SIGTERM."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises an error for killed ones
    for process in active_children():
        if process.daemon:  # Python would wait for any other
            process.kill()
