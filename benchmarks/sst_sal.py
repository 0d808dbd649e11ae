"""Measure time and memory of SSTSal and of a plain formulation on one and two CPU threads.

    python -m benchmarks.sst_sal [--frames 20] [--repeats 5] [--channels 6]

Both run the same clip of 240×320 pixels in reference sampling, in turns, in this process. Memory is
the increase of the process's peak while one of them runs, measured in a process of its own.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.plain_sst_sal import PlainSSTSal
from benchmarks.timing import interleaved
from models.sst_sal import SSTSal


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20, help="length of the clip (default: 20)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each (default: 5)")
    parser.add_argument(
        "--channels", type=int, default=6, choices=(3, 6), help="6 with flow, 3 without it"
    )
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--memory_of", choices=("ours", "plain"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    clip = torch.rand(1, args.frames, args.channels, 240, 320)
    if args.memory_of:
        torch.set_num_threads(args.threads)
        before = peak()
        build(args.channels)[args.memory_of](clip)
        print(peak() - before)
        return

    systems = build(args.channels)

    def run(name: str, threads: int) -> torch.Tensor:
        torch.set_num_threads(threads)
        return systems[name](clip)

    runs = [(name, threads) for threads in (1, 2) for name in systems]
    times = interleaved({r: partial(run, *r) for r in runs}, args.repeats)
    print("threads            ms a frame: median, minimum   peak memory   times as fast as plain")
    for name, threads in runs:
        command = [sys.executable, "-m", "benchmarks.sst_sal", "--memory_of", name]
        command += ["--threads", str(threads), "--frames", str(args.frames)]
        command += ["--channels", str(args.channels)]
        memory = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        median, least = times[name, threads]
        frame = [f"{1000 * seconds / args.frames:9.1f}" for seconds in (median, least)]
        ratio = times["plain", threads][0] / median
        print(f"{threads:7} {name:>10}  {frame[0]:>17} {frame[1]}   {memory:7} MiB   {ratio:.2f}")
    print(f"ours on two threads: {times['ours', 1][0] / times['ours', 2][0]:.2f} times one thread")
    error = (run("ours", 1) - run("plain", 1)).abs().max()
    print(f"largest difference of the maps {error:.1e}")


def build(channels: int) -> dict:
    """Return both systems by name, each a function of a clip (1, T, C, H, W) in BGR."""
    model = SSTSal(channels, 36 if channels == 6 else 9, sampling="reference").eval()
    plain = PlainSSTSal(model.state_dict(), 240, 320)
    return {"ours": lambda x: model(x[:, :, :3].flip(2), x[:, :, 3:].flip(2)), "plain": plain}


def peak() -> int:
    """Return the peak memory of this process so far in MiB, on Linux."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


if __name__ == "__main__":
    main()
