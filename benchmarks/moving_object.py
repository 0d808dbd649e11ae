"""Measure how much more saliency a moving object gets than equal objects that stand still.

    python -m benchmarks.moving_object a.pth b.pth [--clips 12] [--seed 0]

Each clip has four equal quarters of the sphere, with the same figure at the centre of each before
the same background. One figure moves across, without moving its legs, so that only motion
distinguishes it. Its share of the map, within its radius, is divided by the mean of the still ones.
Networks are scored without motion (as if each frame were the first), with motion, and smoothed over
time according to their spec, all without the preference for straight ahead.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from tqdm import tqdm

import models
from common.errors import run_script
from common.options import HelpFormatter, at_least
from maps.attention import share
from prepare.figures import UP, Figure, random_figure, rotation
from prepare.worlds import mix, random_world
from projection import directions
from projection.sphere import longitude_of
from video import Frame
from video.motion import MOTIONS
from video.reader import frames_of

HEIGHT, WIDTH, QUARTERS = 512, 1024, 4
RATE, SECONDS = 8.0, 2.0
KINDS = "person", "animal", "ball"


class Clip(NamedTuple):
    """Four equal figures, of which the first moves.

    pictures: (T, H, W, 3) uint8 RGB. longitudes: (T, 4), of their centres. Angles are in radians.
    """

    pictures: np.ndarray
    longitudes: np.ndarray
    latitude: float
    radius: float


def quarter(figure: Figure, longitude: float, background: np.ndarray) -> np.ndarray:
    """Return the part of the sphere around longitude 0 with a figure in it: (H, W / 4, 3) uint8."""
    columns = slice(WIDTH // 2 - WIDTH // 8, WIDTH // 2 + WIDTH // 8)
    rays = directions(HEIGHT, WIDTH, torch.float64)[:, columns].reshape(-1, 3).numpy()
    local = rays @ rotation(UP, longitude) @ figure.pose
    near = np.flatnonzero(local[:, 2] > math.cos(1.5 * figure.radius))
    picture = background.reshape(-1, 3).copy()
    colours, coverage = figure.draw(local[near], math.pi / HEIGHT, 0.0)
    picture[near] = mix(picture[near], colours, coverage)
    return (255 * picture.clip(0, 1)).round().astype(np.uint8).reshape(HEIGHT, -1, 3)


def render(rng: Generator) -> Clip:
    radius, speed = np.radians(rng.uniform((5, 10), (9, 25)))
    latitude, direction = math.radians(rng.uniform(-20, 0)), rng.choice([-1, 1])
    pose = rotation(np.array([-1.0, 0, 0]), latitude)
    figure = random_figure(rng, rng.choice(KINDS))
    figure = figure._replace(radius=radius, pose=pose, speed=0.0)
    part = random_world(rng, HEIGHT, WIDTH)[:, : WIDTH // 8]
    part = np.roll(np.concatenate([part, part[:, ::-1]], axis=1), rng.integers(WIDTH // 4), axis=1)
    still, turn = quarter(figure, 0.0, part), rng.integers(WIDTH)
    pictures, longitudes = [], []
    for seconds in np.arange(0, SECONDS, 1 / RATE):
        moved = direction * speed * (seconds - SECONDS / 2)
        row = np.concatenate([quarter(figure, moved, part)] + [still] * (QUARTERS - 1), axis=1)
        pictures.append(np.roll(row, turn, axis=1))
        middles = longitude_of((np.arange(QUARTERS) + 0.5) * WIDTH / QUARTERS - 0.5 + turn, WIDTH)
        longitudes.append(middles + moved * (np.arange(QUARTERS) == 0))
    return Clip(np.stack(pictures), np.stack(longitudes), latitude, radius)


def shares_of(clip: Clip, maps: Iterable[tuple[Frame, Tensor]]) -> np.ndarray:
    """Return the share of the maps on each figure, mean over the frames after the first: (4,)."""
    shares = [
        [share(saliency[0], place, clip.latitude, clip.radius) for place in places]
        for places, (_, saliency) in zip(clip.longitudes, maps, strict=True)
    ]
    return np.mean(shares[1:], axis=0)


def forms(model: models.SaliencyModel, clip: Clip) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each form of a network and the shares (4,) of its maps on the figures."""
    spec, estimate = model.spec, MOTIONS[model.spec.motion]()
    frames = list(frames_of(clip.pictures, spec, RATE))
    first = [replace(frame, motion=estimate(None, frame.rgb)) for frame in frames]
    for name, given, smoothing in (
        ("without motion", first, 0.0),
        ("with motion", frames, 0.0),
        ("with motion, smoothed", frames, spec.smoothing),
    ):
        model.spec = replace(spec, smoothing=smoothing)
        yield name, shares_of(clip, models.predict(model, given))
    model.spec = spec


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.moving_object",
        description=__doc__.splitlines()[0],
        formatter_class=HelpFormatter,
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="checkpoints of CubeUNets")
    parser.add_argument("--clips", type=at_least(2, 1001, int), default=12, help="number of clips")
    parser.add_argument("--seed", type=int, default=0, help="seed of the clips")
    args = parser.parse_args()
    networks = {path: models.deploy(models.load(path, front=0.0)) for path in args.checkpoints}
    found = {}
    for number in tqdm(range(args.clips), unit="clip", disable=None):
        clip = render(np.random.default_rng((args.seed, number)))
        for path, model in networks.items():
            for form, shares in forms(model, clip):
                found.setdefault(f"{path}, {form}", []).append(shares)
    print("| | mover / still | most on the mover |\n|---|---|---|")
    for name, shares in found.items():
        mover, *still = np.transpose(shares)
        ratios, most = mover / np.mean(still, axis=0), (mover > np.max(still, axis=0)).sum()
        error = ratios.std(ddof=1) / math.sqrt(args.clips)
        print(f"| {name} | {ratios.mean():.2f} ± {error:.2f} | {most} of {args.clips} |")


if __name__ == "__main__":
    run_script(main)
