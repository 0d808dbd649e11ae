"""Frames a second of the training loop, fed from memory and from a cache on disk.

    python -m benchmarks.training [--batch_sizes 2 8 32] [--steps 20] [--repeats 3]

The loop is that of train_video.py, on CubeUNet at 240×480 and synthetic scenes that are
rendered for it. "in memory" has one batch that is used again and again, "from the cache" reads
and shuffles as a training run does; the two take turns, median of the repeats, after one epoch
of each that is not counted. On a GPU also with a compiled network, and with how busy nvidia-smi
says that the GPU is and the most memory that torch's tensors took.
"""

import argparse
import itertools
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

import models
from datasets.augment import Augmented
from datasets.video_saliency import SaliencyVideos
from cli import PRECISIONS, choose_device, choose_precision
from prepare.synthetic import write_dataset
from runs import Progress, Saver, StopSignals
from train_video import train_epoch
from training import Trainer
from training_data import EpochOrder, make_loader


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--batch_sizes", type=int, nargs="+", help="2 on a CPU, 2 to 128 on a GPU if not given")
    add("--steps", type=int, help="of an epoch; 20 on a CPU, 100 on a GPU if not given")
    add("--repeats", type=int, default=3, help="epochs of each measurement")
    add("--scenes", type=int, default=40, help="of three frames")
    add("--workers", type=int, help="that read data; as train_video.py if not given")
    add("--device", default="auto", help="auto, cpu, cuda")
    args = parser.parse_args()
    device = choose_device(args.device)
    gpu = device.type == "cuda"
    precisions = [torch.float32]
    if choose_precision("auto", device) != torch.float32:
        precisions.append(torch.bfloat16)
    sizes = args.batch_sizes or ((2, 8, 32, 128) if gpu else (2,))
    args.steps = args.steps or (100 if gpu else 20)
    print(torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads")
    print("| network | batch | in memory | from the cache | share | GPU busy | peak memory |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "scenes"
        write_dataset(root, clips=args.scenes, frames=3, height=240, width=480,
            attention_height=128)  # fmt: skip
        spec = replace(models.CubeUNet().spec, epochs=1)
        data = SaliencyVideos(root, "train", spec, Path(folder) / "cache")
        for compiled, dtype, size in itertools.product([False, True][: 1 + gpu], precisions, sizes):
            print(measure(args, data, device, dtype, size, compiled), flush=True)


def measure(args, data, device, dtype, batch_size: int, compiled: bool) -> str:
    """One line of the table."""
    torch.manual_seed(0)
    model = models.CubeUNet().to(device)
    model.spec = replace(data.spec, batch_size=batch_size)
    trainer = Trainer(model, 1_000_000, dtype, compiled=compiled)
    order = EpochOrder(len(data), args.steps * batch_size, batch_size, seed=0)
    loader = make_loader(Augmented(data, (), 0), order, device, args.workers)
    fed = {"memory": [next(iter(loader))] * args.steps, "cache": loader}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    speeds: dict[str, list[float]] = {name: [] for name in fed}
    busy: list[float] = []
    for repeat in range(args.repeats + 1):
        for name, batches in fed.items():
            order.epoch = repeat + 1
            saver = Saver(Path("none"), trainer, Progress(), {"data": ""}, minutes=1e9)
            with StopSignals() as stop, GPUUse(device) as use:
                start = time.perf_counter()
                train_epoch(saver, batches, stop)
                seconds = time.perf_counter() - start
            if repeat:
                speeds[name].append(args.steps * batch_size / seconds)
                busy += use.shares if name == "cache" else []
    memory, cache = (statistics.median(speeds[name]) for name in ("memory", "cache"))
    name = next(name for name, kind in PRECISIONS.items() if kind == dtype)
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if busy else "–"
    return (
        f"| {name}{', compiled' * compiled} | {batch_size} | {memory:.1f} frames/s | "
        f"{cache:.1f} frames/s | {cache / memory:.1%} | "
        f"{f'{statistics.mean(busy):.0f} %' if busy else '–'} | {peak} |"
    )


class GPUUse:
    """What nvidia-smi says five times a second while it is entered: shares in percent."""

    def __init__(self, device: torch.device):
        self.device, self.shares = device, []

    def __enter__(self) -> "GPUUse":
        self.process = None
        if self.device.type == "cuda":
            name = f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"
            command = ["nvidia-smi", "-i", name, "--query-gpu=utilization.gpu",
                "--format=csv,noheader,nounits", "-lms", "200"]  # fmt: skip
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *exception) -> None:
        if self.process:
            self.process.terminate()
            lines = self.process.communicate()[0].split()
            self.shares = [float(line) for line in lines[1:] if line.isdecimal()]


if __name__ == "__main__":
    main()
