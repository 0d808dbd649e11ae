"""Measure time and error of `gaussian_map` and of a plain loop over the fixations.

    python -m benchmarks.gaze

The loop computes one angle and one exponential over the whole image for each fixation, in float32.
Both run in turn in one process; times are medians of the repeats. The error is the largest
difference from the same loop in float64, relative to the map's maximum.
"""

import argparse
import math
import statistics
import time

import torch
from torch import Tensor

from datasets.gaze import gaussian_map
from projection import directions


def plain_map(
    longitudes: Tensor, latitudes: Tensor, height: int, width: int, sigma: float, dtype: torch.dtype
) -> Tensor:
    """Return the sum that `gaussian_map` computes near each fixation alone: (H, W)."""
    pixels = directions(height, width, dtype)
    x = latitudes.cos() * longitudes.sin()
    z = latitudes.cos() * longitudes.cos()
    total = torch.zeros(height, width, dtype=dtype)
    for fixation in torch.stack([x, latitudes.sin(), z], dim=-1).to(dtype):
        angle = (pixels @ fixation).clamp_(-1, 1).acos_()
        total += angle.square_().mul_(-1 / (2 * math.radians(sigma) ** 2)).exp_()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--fixations", type=int, default=30, help="fixations in a map")
    parser.add_argument("--height", type=int, default=240, help="height of the map; half its width")
    parser.add_argument("--repeats", type=int, default=7, help="repeats of each measurement")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(2, args.fixations, generator=generator, dtype=torch.float64) * 2 - 1
    size = args.height, 2 * args.height
    fixations = uniform[0] * math.pi, uniform[1].asin()
    for sigma in (1.5, 3.34, 9.0, 20.0):
        maps = {
            "loop": lambda s=sigma: plain_map(*fixations, *size, s, torch.float32),
            "gaussian_map": lambda s=sigma: gaussian_map(*fixations, *size, s),
        }
        exact = plain_map(*fixations, *size, sigma, torch.float64)
        error = {name: ((m() - exact).abs().max() / exact.max()).item() for name, m in maps.items()}
        times = {name: [] for name in maps}
        for _ in range(args.repeats):
            for name, make in maps.items():
                start = time.perf_counter()
                make()
                times[name].append(time.perf_counter() - start)
        median = {name: statistics.median(values) for name, values in times.items()}
        print(
            f"sigma {sigma:g}°: "
            + ", ".join(f"{n} {1e3 * median[n]:.1f} ms (error {error[n]:.0e})" for n in maps)
            + f", ratio {median['loop'] / median['gaussian_map']:.0f}"
        )


if __name__ == "__main__":
    main()
