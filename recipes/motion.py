"""Let a CubeUNet learn from the gaze in flat clips how much it counts that something moves.

    python -m recipes.motion CHECKPOINT OUTPUT --sources DIR

Only the weights that read the motion learn, so that frames without motion keep their maps. A clip
plays straight ahead on a grey sphere (recipes/score_flat_clips.py). The loss is the
Kullback-Leibler divergence within the clip of the gaze at a moment from the map. The network gets
the motion MOTION from now on.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.devices import autocast, choose_device, choose_precision
from common.errors import InputError, run_script
from common.options import HelpFormatter, at_least
from models import CubeUNet, save
from recipes.flat import motion_levels
from recipes.flat_photos import cosine
from recipes.gaze_sources import read_sources
from recipes.output import history, load_cube_unet, writable
from recipes.score_flat_clips import Clip

MOTION = "steady_difference"
FRAMES = 2  # of each step
EPSILON = 1e-9


def motion_weights(model: CubeUNet) -> list[nn.Parameter]:
    """Return the weights that read the motion, after a change by which they read it as it is.

    No map changes: the normalisation of the motion before them becomes a part of weight and bias,
    so that a motion of zero adds the same whatever the weights.
    """
    weights = []
    for norm, conv in motion_levels(model):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        offset = norm.bias - norm.running_mean * scale
        conv.bias.data += conv.weight.data[..., 0, 0] @ offset.data
        conv.weight.data *= scale.data[:, None, None]
        norm.weight.data = (norm.running_var + norm.eps).sqrt()
        norm.bias.data = norm.running_mean.clone()
        weights.append(conv.weight)
    return weights


def divergence(maps: Tensor, truth: Tensor, region: Tensor) -> Tensor:
    """Return the mean divergence, in nats, of truth (N, H, W) from maps (N, H, W) in a region."""
    p, q = (
        (m * region + EPSILON) / (m * region + EPSILON).sum((1, 2), True) for m in (maps, truth)
    )
    return (q * (q / p).log()).sum((1, 2)).mean()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of a CubeUNet")
    add("output", type=Path, help="checkpoint to write")
    add("--sources", type=Path, required=True, help="folder that holds hevc33_video/")
    add("--steps", type=at_least(1, kind=int), default=400, help=f"each of {FRAMES} frames")
    add("--rate", type=at_least(1e-9), default=0.3, help="peak learning rate")
    add("--far", type=at_least(1e-9), default=1.0, help="factor of the weights' learned change")
    add("--seed", type=int, default=0, help="seed of the order of the frames")
    args = parser.parse_args()
    writable(args.output)
    device, random = choose_device("auto"), np.random.default_rng(args.seed)
    model, precision = load_cube_unet(args.checkpoint).to(device), choose_precision("auto", device)
    model.use_motion(MOTION)
    size, moments = (model.spec.height, model.spec.width), []
    for pictures in tqdm(read_sources(args.sources)["train"].clips, "reading", unit="clip"):
        clip = Clip(pictures, *size, MOTION)
        moments += [(clip, k) for k in range(1, len(pictures)) if clip.scored[k]]
    if not moments:
        raise InputError(f"{args.sources}: holds no hevc33_video; give a folder that does")
    weights = motion_weights(model.requires_grad_(False))
    before = [weight.clone() for weight in weights]
    optimizer = torch.optim.Adam([weight.requires_grad_() for weight in weights])
    for step in tqdm(range(args.steps), unit="step"):
        loss = 0
        for clip, k in (moments[n] for n in random.integers(len(moments), size=FRAMES)):
            frame, region = clip.frames[k], clip.region.float().to(device)
            with autocast(device, precision):
                maps = model(frame.rgb[None, None].to(device), frame.motion[None, None].to(device))
            loss += divergence(maps[0, 0].float(), clip.truth[k][None].to(device), region) / FRAMES
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = args.rate * cosine(step, args.steps)
        optimizer.step()
    for weight, start in zip(weights, before, strict=True):
        weight.data = torch.lerp(start, weight.data, args.far)
    said = {name: getattr(args, name) for name in ("steps", "rate", "far", "seed")}
    save(args.output, model.requires_grad_(True), **history(args.checkpoint, "motion", **said))


if __name__ == "__main__":
    run_script(main)
