"""Measure frames per second of all models in inference and training, with profiles.

    python -m benchmarks.throughput [--device cuda] [--batch_sizes 1 16] [--profile]

Clips are in the device's memory, of one frame, or of --frames for SST-Sal, which computes in
float32 alone. Inference is that of infer_video.py, by models.deploy; training is forward, loss,
backward and a step of AdamW, in mixed precision where it is not float32. What the scripts add to
both is measured by benchmarks.video and benchmarks.training. --profile also counts operations, or a
GPU's kernels, and lists those that take most of the time.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from collections.abc import Callable
from itertools import product

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

import models
from benchmarks.timing import interleaved
from common.devices import autocast, choose_device
from common.options import CHECKPOINT, HelpFormatter, at_least
from losses import LOSSES
from models import CubeUNet, SaliencyModel, SSTSal
from projection import CubePadding

FP32, BF16 = torch.float32, torch.bfloat16
MODELS = {  # by the name in the table: what makes it, the loss that it is trained with, formats
    "shipped": (lambda: models.load(CHECKPOINT), "density", (FP32, BF16)),
    "plain": (CubeUNet, "smse", (FP32, BF16)),
    "sst_sal": (SSTSal, "spherical_kl", (FP32,)),
    "sst_sal_without_flow": (lambda: SSTSal(3, 9), "spherical_kl", (FP32,)),
}
SECONDS = 0.5  # that a measurement takes at least


def batch_of(model: SaliencyModel, size: int, frames: int, device: torch.device) -> list:
    """Return frames, motion and truths of clips: (B, T, channels, H, W) each."""
    height, width = model.spec.height, model.spec.width
    length = min(model.spec.clip_length, frames)
    channels = 3, model.arguments["in_channels"] - 3, 1
    return [torch.rand(size, length, c, height, width, device=device) for c in channels]


def inference(model: SaliencyModel, dtype: torch.dtype, batch: list) -> Callable:
    """Return a function that predicts the maps of a batch."""
    frames, motion, _ = batch
    model = models.deploy(model, dtype)

    @torch.inference_mode()
    def predict() -> None:
        with autocast(frames.device, dtype):
            model(frames, motion)

    return predict


def training(model: SaliencyModel, loss: str, dtype: torch.dtype, batch: list) -> Callable:
    """Return a function that takes one step with a batch."""
    frames, motion, truth = batch
    model.train()
    loss_of = LOSSES[loss](*truth.shape[-2:]).to(frames.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(frames.device, dtype):
            maps = model(frames, motion)
        loss_of(maps.float(), truth).backward()
        optimizer.step()

    return step


def repeated(function: Callable, times: int, device: torch.device) -> Callable:
    """Return what calls a function several times and waits for the device."""

    def run() -> None:
        for _ in range(times):
            function()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def measure(function: Callable, repeats: int, device: torch.device) -> float:
    """Return the seconds of one call, a median."""
    once = interleaved({"": repeated(function, 1, device)}, 1)[""][0]
    times = max(1, round(SECONDS / once))
    return interleaved({"": repeated(function, times, device)}, repeats)[""][0] / times


def largest(function: Callable, device: torch.device, count: int = 6) -> str:
    """Return how many operations, or kernels, one call has, and the shares of the largest."""
    gpu, activities = device.type == "cuda", [ProfilerActivity.CPU]
    everywhere = _ExperimentalConfig(profile_all_threads=True)  # that SST-Sal's blocks run in
    if gpu:
        activities, everywhere = [*activities, ProfilerActivity.CUDA], None
    with profile(activities=activities, experimental_config=everywhere) as profiled:
        repeated(function, 1, device)()
    kind, spent, place = "operations", "self_cpu_time_total", torch.autograd.DeviceType.CPU
    if gpu:
        kind, spent, place = "kernels", "self_device_time_total", torch.autograd.DeviceType.CUDA
    found = [event for event in profiled.key_averages() if event.device_type == place]
    found = sorted(found, key=lambda event: getattr(event, spent), reverse=True)
    total = sum(getattr(event, spent) for event in found) or 1
    shares = (f"{event.key[:60]} {getattr(event, spent) / total:.0%}" for event in found[:count])
    return f"{sum(event.count for event in found)} {kind}: {', '.join(shares)}"


def row(name: str, task: str, size: int, dtype: torch.dtype, args: argparse.Namespace) -> None:
    """Print a row of the table, and what takes most of the time."""
    make, loss, _ = MODELS[name]
    gpu = args.device.type == "cuda"
    model = make().to(args.device)
    batch = batch_of(model, size, args.frames, args.device)
    kind = str(dtype).removeprefix("torch.")
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        if task == "inference":
            function = inference(model, dtype, batch)
        else:
            function = training(model, loss, dtype, batch)
        seconds = measure(function, args.repeats, args.device) / batch[0][:, :, 0, 0, 0].numel()
    except torch.OutOfMemoryError:
        print(f"| {name} | {task} | {size} | {kind} | out of memory | | |", flush=True)
        return
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if gpu else "–"
    speed = f"{1 / seconds:.1f} | {1e3 * seconds:.2f}"
    print(f"| {name} | {task} | {size} | {kind} | {speed} | {peak} |", flush=True)
    if args.profile:
        print(f"  {largest(function, args.device)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__.splitlines()[0],
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, …")
    add("--batch_sizes", type=at_least(1, 4097, int), nargs="+", help="clips per batch "
        "(default: 1, and 16 on a GPU)")  # fmt: skip
    add("--frames", type=at_least(1, 1001, int), default=20, help="largest clip of SST-Sal")
    add("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="models to measure")
    add("--repeats", type=at_least(1, kind=int), default=5, help="runs of each measurement")
    add("--profile", action="store_true", help="list the largest operations of each")
    args = parser.parse_args()
    device = args.device = choose_device(args.device)
    gpu = device.type == "cuda"
    sizes = args.batch_sizes or ([1, 16] if gpu else [1])
    print(torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads")
    pad = CubePadding(1).to(device)
    faces = torch.rand(6, 32, 120, 120, device=device).to(memory_format=torch.channels_last)
    pad(faces)
    print(f"a cube padding: {largest(lambda: pad(faces), device)}")
    print("| model | task | batch | format | frames/s | ms a frame | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for name, task, size in product(args.models, ("inference", "training"), sizes):
        for dtype in MODELS[name][2]:
            row(name, task, size, dtype, args)


if __name__ == "__main__":
    main()
