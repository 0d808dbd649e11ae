"""Measure time and memory of SSTSal and of the plain formulation on one CPU thread.

    python -m benchmarks.sst_sal [--frames 20] [--repeats 5] [--channels 6]

Both run the same clip of 240×320 pixels in reference sampling, in turns, in this process. Memory is
the increase of the process's peak while one of them runs, measured in a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.plain_sst_sal import PlainSSTSal
from models.sst_sal import SSTSal


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20, help="length of the clip (default: 20)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each (default: 5)")
    parser.add_argument(
        "--channels", type=int, default=6, choices=(3, 6), help="6 with flow, 3 without it"
    )
    parser.add_argument("--memory_of", choices=("ours", "plain"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    clip = torch.rand(1, args.frames, args.channels, 240, 320)
    if args.memory_of:
        before = peak()
        build(args.channels)[args.memory_of](clip)
        print(peak() - before)
        return

    systems = build(args.channels)
    seconds = {name: [] for name in systems}
    error = (systems["ours"](clip) - systems["plain"](clip)).abs().max()
    for _ in range(args.repeats):
        for name, system in systems.items():
            start = time.perf_counter()
            system(clip)
            seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        command = [sys.executable, "-m", "benchmarks.sst_sal", "--memory_of", name]
        command += ["--frames", str(args.frames), "--channels", str(args.channels)]
        memory = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        frame = 1000 * statistics.median(times) / args.frames
        print(f"{name}: {frame:.1f} ms a frame (median of {args.repeats}), {memory} MiB")
    pairs = zip(seconds["plain"], seconds["ours"], strict=True)
    print(f"{statistics.median(p / o for p, o in pairs):.2f} times as fast", end="")
    print(f"; largest difference of the maps {error:.1e}")


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
