"""Measure the networks' speed: effect of deployment, cube padding and number formats.

    python -m benchmarks.network [--repeats 15] [--threads 2]

All networks of a row run in turn in one process, one frame at a time, of 512×1024 pixels for the
shipped network and 240×480 for the plain one.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import models
from benchmarks.timing import interleaved
from common.options import CHECKPOINT, HelpFormatter, at_least
from models import CubeUNet
from models.deploy import FusedConv
from projection import CubePadding


def with_zero_padding(network: nn.Module) -> nn.Module:
    """Return a copy of a network in which each convolution pads with zeros by itself."""
    network = copy.deepcopy(network)
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, CubePadding):
                setattr(module, name, nn.Identity())
        if isinstance(module, FusedConv):
            _, dilation, _ = module.steps
            module.padding = [d * (k // 2) for d, k in zip(dilation, module.weight.shape[2:])]
        elif isinstance(module, nn.Conv2d):
            module.padding = tuple(
                d * (k // 2) for d, k in zip(module.dilation, module.kernel_size)
            )
    return network


def correlation(one: Tensor, other: Tensor) -> float:
    return torch.corrcoef(torch.stack([m.flatten().double() for m in (one, other)]))[0, 1].item()


def report(title: str, runs: dict, repeats: int) -> None:
    """Print the time of each run and how many times that of the first it is."""
    print(f"\n{title}, {torch.get_num_threads()} threads, {repeats} repeats in turn")
    times = interleaved(runs, repeats)
    median, least = next(iter(times.values()))
    print("| | median ms | ratio | minimum ms | ratio |\n|---|---|---|---|---|")
    for name, (m, n) in times.items():
        print(f"| {name} | {1e3 * m:.1f} | {m / median:.2f} | {1e3 * n:.1f} | {n / least:.2f} |")


def mixed(model: CubeUNet, clip: list[Tensor]) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(*clip)


def inference(clip: list[Tensor], make, title: str, repeats: int) -> None:
    """Compare the forms of one network in which it can run. make: returns it anew."""
    plain, fast = make(), models.deploy(make(), torch.bfloat16)
    whole = models.deploy(make(), torch.float32)
    zeros = with_zero_padding(fast)
    with torch.inference_mode():
        same = [correlation(fast(*clip), maps) for maps in (plain(*clip), mixed(plain, clip))]
        print(
            "\nCC of deployed bfloat16 maps: {:.5f} with float32, {:.5f} with autocast".format(
                *same
            )
        )
        runs = {
            "deployed, bfloat16": lambda: fast(*clip),
            "with zero padding": lambda: zeros(*clip),
            "PyTorch's layers, bfloat16 by autocast": lambda: mixed(plain, clip),
            "deployed, float32": lambda: whole(*clip),
            "PyTorch's layers, float32": lambda: plain(*clip),
        }
        report(title, runs, repeats)


def step(network: nn.Module, faces: Tensor) -> None:
    network(faces).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.network",
        description=__doc__.splitlines()[0],
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--repeats", type=at_least(1, kind=int), default=15, help="runs of each network")
    add("--threads", type=at_least(1, kind=int), default=torch.get_num_threads(), help="of PyTorch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    for title, make, (height, width) in (
        ("Shipped network", lambda: models.load(CHECKPOINT), (512, 1024)),
        ("Plain CubeUNet", lambda: CubeUNet().eval(), (240, 480)),
    ):
        small = torch.rand(1, 4, height // 16, width // 16)
        picture = interpolate(small, (height, width), mode="bilinear")[None]
        inference([picture[:, :, :3], picture[:, :, 3:]], make, title, args.repeats)
    faces = torch.rand(6, 4, 120, 120).to(memory_format=torch.channels_last)
    network = CubeUNet().backbone.train()
    zeros = with_zero_padding(network)
    runs = {
        "cube padding": lambda: step(network, faces),
        "zero padding": lambda: step(zeros, faces),
    }
    report("Plain backbone, float32, forward and backward", runs, args.repeats)


if __name__ == "__main__":
    main()
