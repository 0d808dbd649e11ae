"""One job in several processes, as torchrun starts them; alone, everything here costs nothing.

    torchrun --nproc_per_node 4 train_video.py …

Each process ("rank") has a GPU of its own where there are GPUs. What lies on the CPU goes
through gloo, what lies on a GPU through nccl. Every process must call the functions that add
up or gather, in the same order.
"""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from inspect import signature
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cli import InputError

T = TypeVar("T")

# One process may wait for another's clips for long; torchrun ends all where one fails.
PATIENCE = timedelta(days=1)


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _together() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _together() else 1


def is_main() -> bool:
    """Whether this is the one process that writes and prints."""
    return rank() == 0


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def session(main: Callable[[], T]) -> Callable[[], T]:
    """A script's main within the group of processes that torchrun started, if it did."""

    @functools.wraps(main)
    def run() -> T:
        if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return main()
        gpus = torch.cuda.is_available()
        if gpus and _local_rank() < torch.cuda.device_count():
            torch.cuda.set_device(_local_rank())
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
        try:
            result = main()
            total(0)  # nobody leaves before all have finished
            return result
        finally:
            dist.destroy_process_group()

    return run


def _local_rank() -> int:
    """The number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def local_world() -> int:
    """How many processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if world() > 1 else 1


def shard(items: Iterable[T]) -> list[T]:
    """This process' share of a list: every n-th item of n processes."""
    return list(items)[rank() :: world()]


def gather(item: T) -> list[T]:
    """What each process gave, in order of their ranks."""
    if world() == 1:
        return [item]
    items: list = [None] * world()
    dist.all_gather_object(items, item)
    return items


def merge(mine: dict, order: Sequence) -> dict:
    """The entries of all processes' dictionaries, with their keys in the given order."""
    entries = {key: value for part in gather(mine) for key, value in part.items()}
    return {key: entries[key] for key in order if key in entries}


def total(values) -> Tensor:
    """Sum over the processes of a number, a list or a tensor on the CPU: float64, same shape."""
    sums = torch.as_tensor(values, dtype=torch.float64)
    if world() > 1:
        sums = sums.clone()
        dist.all_reduce(sums)
    return sums


def parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with its gradients averaged over the processes; itself where it is alone.

    Raises InputError where this process has no GPU to itself.
    """
    if world() == 1:
        return network
    if device.type == "cuda" and _local_rank() >= torch.cuda.device_count():
        raise InputError(
            f"--nproc_per_node {local_world()}: only {torch.cuda.device_count()} GPUs here; "
            "start as many processes, or use --device cpu"
        )
    wrap = nn.parallel.DistributedDataParallel
    options: dict = {"gradient_as_bucket_view": True}
    if device.type == "cuda":
        options["device_ids"] = [device]
    names = ("forward_sync_buffers", "broadcast_buffers")  # in newer and older versions of torch
    options[next(name for name in names if name in signature(wrap).parameters)] = False
    return wrap(network, **options)


def say(text: str) -> None:
    """Prints in the main process."""
    if is_main():
        print(text, flush=True)
