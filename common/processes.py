"""One job in several processes started by torchrun. In a single process, nothing changes.

If there are GPUs, each process ("rank") uses its own. All processes must call the functions that
sum or gather in the same order.
"""

import functools
import os
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from tqdm import tqdm

from common.errors import RunError

T = TypeVar("T")

# Timeouts for the start of all processes, and later for waiting for each other's clips.
START_TIMEOUT, TIMEOUT = timedelta(minutes=5), timedelta(days=1)


def rank() -> int:
    """Return the rank of this process, starting at 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Return whether this is the main process, the only one that writes and prints."""
    return rank() == 0


def session(main: Callable[[], T]) -> Callable[[], T]:
    """Run a script's main within the process group of torchrun, if there is one."""

    @functools.wraps(main)
    def run() -> T:
        if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return main()
        gpus, local_rank = torch.cuda.is_available(), int(os.environ.get("LOCAL_RANK", 0))
        if local_rank < torch.cuda.device_count():
            torch.cuda.set_device(local_rank)
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=START_TIMEOUT)
            wait_for_all()
        except RuntimeError as error:  # of gloo, nccl and their store
            message = f"torchrun's processes can't connect: {error}; start again"
            raise RunError(message) from error
        try:
            result = main()
            wait_for_all()
            return result
        finally:
            time.sleep(0.1)  # PyTorch 2.8 hung if gloo's threads were still freeing sent tensors
            dist.destroy_process_group()

    return run


def extend_timeout() -> None:
    """Use the long timeout from now on."""
    if world() > 1:
        former_name = dist.distributed_c10d._set_pg_timeout  # in older versions of torch
        getattr(dist, "set_timeout", former_name)(TIMEOUT, dist.group.WORLD)


def shard(items: Iterable[T]) -> list[T]:
    """Return this process' share of a list: every n-th item for n processes."""
    return list(items)[rank() :: world()]


def gather(item: T) -> list[T]:
    """Return the items of all processes, in the order of their ranks."""
    if world() == 1:
        return [item]
    items: list = [None] * world()
    dist.all_gather_object(items, item)
    return items


def total(values) -> Tensor:
    """Sum a number, a list or a tensor on the CPU over the processes: float64, same shape."""
    sums = torch.as_tensor(values, dtype=torch.float64)
    if world() > 1:
        sums = sums.clone()
        dist.all_reduce(sums)
    return sums


def wait_for_all() -> None:
    """Wait until every process has reached this point."""
    total(0)


def print_main(text: str) -> None:
    """Print in the main process, above any progress bar."""
    if is_main():
        tqdm.write(text)
        sys.stdout.flush()


def parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network, which shares gradients and batch statistics over several processes."""
    if world() == 1:
        return network
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d  # same state, different forward
    device_ids = [device] if device.type == "cuda" else None
    wrapped = nn.parallel.DistributedDataParallel(network, device_ids, gradient_as_bucket_view=True)
    wrapped.broadcast_buffers = False  # the name of the argument depends on torch's version
    return wrapped


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over all processes on the CPU, in float64; SyncBatchNorm needs GPUs."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        pixels = x.double()
        mean = all_reduce(pixels.mean((0, 2, 3), keepdim=True)) / world()
        centred = pixels - mean
        variance = all_reduce(centred.square().mean((0, 2, 3), keepdim=True)) / world()
        weight, bias = (channels[:, None, None] for channels in (self.weight, self.bias))
        y = centred * (variance + self.eps).rsqrt() * weight + bias
        with torch.no_grad():
            count = world() * x.numel() // x.shape[1]
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean.flatten().to(self.running_mean), self.momentum)
            self.running_var.lerp_(unbiased.flatten().to(self.running_var), self.momentum)
            self.num_batches_tracked += 1
        return y.to(x.dtype)
