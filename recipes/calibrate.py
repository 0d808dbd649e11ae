"""Makes a CubeUNet as sure as it should be: `python -m recipes.calibrate`.

A network is often too sure of what it sees, and the mean of several that were trained on different
pictures more so. Two factors and an offset put that right, as a temperature does for a classifier
(C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2):

    map = sigmoid(factor · what the network sees + factor · logit of the latitude + offset)

with the least loss, the checkpoint's own, over validation clips.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from cli import InputError, run_script
from datasets import SaliencyVideos
from losses import LOSSES
from models.checkpoint import load, read, save, sha256
from models.cube_unet import CubeUNet

MOST_CLIPS = 500  # evenly spaced ones, where there are more
PIXELS = ..., slice(2, None, 4), slice(2, None, 4)  # every fourth row and column are compared
STEPS = 20


class Calibration(NamedTuple):
    """What the logits are multiplied by and what is added; the loss before and after."""

    seen: float
    latitude: float
    offset: float
    before: float
    after: float


@torch.no_grad()
def calibrate(model: CubeUNet, clips: Iterable[dict]) -> Calibration:
    """Fit the factors on items of SaliencyVideos and change the model's weights by them.

    model: on the sphere; a flat one has no latitude.
    Raises InputError where no frame of the clips has ground truth.
    """
    seen, truth, latitude = [], [], None
    for item in clips:
        logits, latitude = model.logits(item["frames"][None], item["motion"][None])
        seen.append(logits[item["valid"]][PIXELS])
        truth.append(item["target"][item["valid"]][PIXELS])
    if not sum(map(len, truth)):
        raise InputError("no frame of the validation clips has ground truth")
    rows = latitude.expand_as(logits)[:1][PIXELS]
    found, before, after = fit(torch.cat(seen), rows, torch.cat(truth), LOSSES[model.spec.loss]())
    model.head.weight *= found[0]
    model.head.bias.mul_(found[0]).add_(found[2])
    model.latitude *= found[1]
    return Calibration(*found, before, after)


def fit(seen: Tensor, latitude: Tensor, truth: Tensor, loss) -> tuple[list[float], float, float]:
    """Two factors and the offset, the loss without and with them; (1, 1, 0) where none is less."""
    factors = torch.tensor([1.0, 1.0, 0.0], requires_grad=True)
    search = torch.optim.LBFGS([factors], max_iter=STEPS, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def value() -> Tensor:
        search.zero_grad()
        maps = (factors[0] * seen + factors[1] * latitude + factors[2]).sigmoid()
        total = loss(maps, truth)
        total.backward()
        return total

    before = value().item()
    search.step(value)
    after = value().item()
    if not after < before:
        return [1.0, 1.0, 0.0], before, before
    return factors.tolist(), before, after


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="of a CubeUNet on the sphere")
    parser.add_argument("output", type=Path, help="checkpoint to write")
    parser.add_argument("--data_root", required=True,
                        help="data set whose split 'val' tells")  # fmt: skip
    args = parser.parse_args()
    model = load(args.checkpoint)
    if not isinstance(model, CubeUNet) or model.flat:
        raise InputError(f"{args.checkpoint}: not a CubeUNet on the sphere; give another")
    data = SaliencyVideos(args.data_root, "val", model.spec)
    count = min(MOST_CLIPS, len(data))
    chosen = (k * len(data) // count for k in range(count))
    clips = (data[k] for k in tqdm(chosen, total=count, unit="clip", desc=str(args.checkpoint)))
    found = calibrate(model, clips)
    facts = {"calibrated": found._asdict() | {"sha256": sha256(args.checkpoint)}}
    if mean_of := read(args.checkpoint).get("mean_of"):
        facts["mean_of"] = mean_of
    save(args.output, model, **facts)
    print(
        f"what is seen × {found.seen:.3f}, latitude × {found.latitude:.3f}, {found.offset:+.3f}: "
        f"{model.spec.loss} {found.before:.4f} → {found.after:.4f}"
    )


if __name__ == "__main__":
    run_script(main)
