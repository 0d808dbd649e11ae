"""Measure frames per second of train_video.py with data in memory and on disk.

    python -m benchmarks.training [--batch_sizes 2 8 32] [--steps 20] [--repeats 3]

The loop is that of train_video.py, with CubeUNet at 240×480 by default on synthetic scenes that
are rendered for it at that size. "in memory" repeats one batch; "from disk" reads and shuffles as a
training run does. The two take turns; the table has medians over the repeats, without the first
steps of each. On a GPU it also covers the compiled network and the peak memory of torch's tensors.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import contextlib
import io
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch

import train_video
from common.devices import choose_device, choose_precision
from common.options import HelpFormatter
from datasets.augment import Augmented
from prepare.synthetic import write_dataset
from training import batches

WARM_UP = 3  # steps of each run that are not counted


class Timed:
    """Batches that note when each is asked for."""

    def __init__(self, batches):
        self.batches, self.times = batches, []

    def __iter__(self):
        for batch in self.batches:
            self.times.append(time.perf_counter())
            yield batch


def frames_per_second(root: Path, options: list[str], in_memory: bool) -> float:
    """Run one epoch of train_video.py and return the speed of its steps."""
    fed: list[Timed] = []
    make_loader = batches.make_loader

    def timed(data, order, *rest):
        loader = make_loader(data, order, *rest)
        if not isinstance(data, Augmented):
            return loader
        if in_memory:
            loader = itertools.repeat(next(iter(loader)), len(order))
        fed.append(Timed(loader))
        return fed[0]

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(batches, "make_loader", timed),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        args = train_video.parse_args(["--data_root", str(root), "--epochs", "1", *options])
        recipe = train_video.recipe_of(args.model, args.recipe)
        train_video.train(*train_video.resolve(args, recipe), Path(folder))
    times = fed[0].times[WARM_UP:]
    return args.batch_size * (len(times) - 1) / (times[-1] - times[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("--batch_sizes", type=int, nargs="+", help="default: 2 on a CPU, 2 to 128 on a GPU")
    add("--steps", type=int, help="steps of a run (default: 20 on a CPU, 100 on a GPU)")
    add("--repeats", type=int, default=3, help="runs of each measurement")
    add("--scenes", type=int, default=40, help="synthetic scenes of three frames")
    add("--height", type=int, default=240, help="height of the frames; half their width")
    add("--device", default="auto", help="auto, cpu, cuda, …")
    args = parser.parse_args()
    device = choose_device(args.device)
    gpu = device.type == "cuda"
    precisions = ["fp32"]
    if choose_precision("auto", device) != torch.float32:
        precisions.append("bf16")
    sizes = args.batch_sizes or ((2, 8, 32, 128) if gpu else (2,))
    steps = (args.steps or (100 if gpu else 20)) + WARM_UP
    print(torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads")
    print("| network | batch | in memory | from disk | share | peak memory |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "scenes"
        write_dataset(root, clips=args.scenes, frames=3, height=args.height, width=2 * args.height)
        kinds = [[], ["--compile"]] if gpu else [[]]
        for compiled, precision, size in itertools.product(kinds, precisions, sizes):
            options = ["--precision", precision, "--batch_size", str(size), "--device", str(device),
                "--samples", str(steps * size), *compiled, "--model_args",
                f"height={args.height}", f"width={2 * args.height}"]  # fmt: skip
            print(measure(root, options, args.repeats, gpu), flush=True)


def measure(root: Path, options: list[str], repeats: int, gpu: bool) -> str:
    """Return one line of the table."""
    speeds: dict[bool, list[float]] = {True: [], False: []}
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    for _, in_memory in itertools.product(range(repeats), speeds):
        speeds[in_memory].append(frames_per_second(root, options, in_memory))
    memory, disk = (statistics.median(speeds[in_memory]) for in_memory in speeds)
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if gpu else "–"
    name = options[1] + ", compiled" * ("--compile" in options)
    return (
        f"| {name} | {options[3]} | {memory:.1f} frames/s | {disk:.1f} frames/s | "
        f"{disk / memory:.1%} | {peak} |"
    )


if __name__ == "__main__":
    main()
