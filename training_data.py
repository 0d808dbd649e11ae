"""The clips of a training run: in which order, by which processes, and what is to be beaten."""

import math
import os
import signal
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import distributed
from cli import InputError
from datasets.video_saliency import SaliencyVideos, collate


class EpochOrder:
    """The batches of one epoch, this process' share of each: lists of (epoch, index).

    A batch holds the same items however many processes share it. Where the clips do not fill
    the last one, those drawn next do.

    clips: in the data set. samples: drawn for an epoch, None for as many as there are clips.
    batch_size: over all processes.
    epoch, start: whose batches come next, and how many of them are left out.
    """

    def __init__(self, clips: int, samples: int | None, batch_size: int, seed: int):
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.steps = math.ceil((samples or clips) / batch_size)
        self.epoch, self.start = 1, 0

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        count = self.steps * self.batch_size
        rounds = range(math.ceil(count / self.clips))
        drawn = torch.cat([torch.randperm(self.clips, generator=generator) for _ in rounds])
        for batch in drawn[:count].view(self.steps, self.batch_size)[self.start :].tolist():
            yield [(self.epoch, index) for index in distributed.shard(batch)]


def shares(batch_size: int, parts: int) -> int:
    """In how many equal shares a batch is computed: so many parts in each process.

    Raises InputError where it can't be divided.
    """
    count = distributed.world() * parts
    if batch_size % count:
        raise InputError(
            f"--batch_size {batch_size}: can't be divided among {distributed.world()} processes "
            f"with --accumulate {parts}; give a multiple of {count}"
        )
    return count


def make_loader(
    data: Dataset, batches, device: torch.device, workers: int | None = None
) -> DataLoader:
    """Batches of a data set, read ahead by other processes into memory that a GPU can copy from.

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


TOO_LITTLE = 0.01  # of the frames with ground truth
SAMPLE = 64  # maps that are read to see whether they are usable


def check_truth(data: SaliencyVideos) -> None:
    """Raises InputError where too little of a split's ground truth is there or usable."""
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


def best_constant_loss(data: SaliencyVideos, loss_of: nn.Module) -> float:
    """Loss of the one map that fits a split best: what every model must beat.

    That is the mean of the maps for a squared error, and of the maps scaled to sum 1 for a
    divergence.
    """

    def targets() -> Iterator[Tensor]:
        mine = distributed.shard(range(len(data)))
        for index in tqdm(mine, "best constant map", leave=False, disable=None):
            yield from data.targets(index)

    size = data.spec.height, data.spec.width
    sums, count = torch.zeros(2, 1, *size), 0
    for target in targets():
        count += 1
        for k, scaled in enumerate((target, target / target.sum())):
            sums[k] += scaled
    count = int(distributed.total(count))
    if not count:
        raise InputError(f"{data.root}: no usable ground truth in split '{data.split}'")
    means = (distributed.total(sums) / count).float()
    losses = [0.0, 0.0]
    for target in targets():
        for k, mean in enumerate(means):
            losses[k] += loss_of(mean, target).item()
    return distributed.total(losses).min().item() / count
