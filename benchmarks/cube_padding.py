"""The cost of cube padding: the whole U-Net with it against the same with zero padding.

    python -m benchmarks.cube_padding

Float32, channels_last, batch of one frame (six faces of 120×120 by default); forward alone and
forward with backward, the two networks in turn in one process, median of the repeats.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from models.cube_unet import UNet
from projection import CubePadding


def with_zero_padding(network: nn.Module) -> nn.Module:
    """The same network, each convolution padding with zeros by itself."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.padding = (1, 1)
        for name, child in module.named_children():
            if isinstance(child, CubePadding):
                setattr(module, name, nn.Identity())
    return network


def seconds(network: nn.Module, faces: torch.Tensor, backward: bool) -> float:
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        output = network(faces)
    if backward:
        output.backward(torch.ones_like(output))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15, help="runs of each measurement")
    parser.add_argument("--face_size", type=int, default=120, help="pixels of a face's side")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    networks = {
        "cube": UNet(4, 32).to(memory_format=torch.channels_last),
        "zero": with_zero_padding(UNet(4, 32)).to(memory_format=torch.channels_last),
    }
    faces = torch.rand(6, 4, args.face_size, args.face_size).to(memory_format=torch.channels_last)
    for backward in (False, True):
        times = {name: [] for name in networks}
        for repeat in range(args.repeats + 1):
            for name, network in networks.items():
                taken = seconds(network, faces, backward)
                if repeat:  # the first warms up
                    times[name].append(taken)
        median = {name: statistics.median(values) for name, values in times.items()}
        ratio = statistics.median(c / z for c, z in zip(times["cube"], times["zero"], strict=True))
        print(
            f"{'forward and backward' if backward else 'forward'}: cube {median['cube']:.3f} s, "
            f"zero {median['zero']:.3f} s, ratio {ratio:.3f}"
        )


if __name__ == "__main__":
    main()
