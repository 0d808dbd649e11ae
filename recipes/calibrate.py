"""Calibrate the confidence of a CubeUNet.

    python -m recipes.calibrate CHECKPOINT OUTPUT --data_root DATA

Networks are often too confident, and the mean of several networks trained on other pictures even
more so. Two factors and an offset correct that, as a temperature does for a
classifier (C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2):

    map = sigmoid(image factor · image logits + latitude factor · latitude bias + offset)

They minimise the density loss over the validation clips of a data set and become part of the
weights.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import InputError, run_script
from datasets import SaliencyVideos
from losses import DensityLoss
from models import CubeUNet, load, save
from models.checkpoint import sha256
from recipes.output import history, writable

PIXELS = ..., slice(2, None, 4), slice(2, None, 4)  # every fourth row and column are compared
ITERATIONS = 20


class Calibration(NamedTuple):
    """The factors and the offset, and the loss before and after."""

    image: float
    latitude: float
    offset: float
    before: float
    after: float


@torch.no_grad()
def calibrate(model: CubeUNet, clips: Iterable[dict]) -> Calibration:
    """Fit factors and offset on items of SaliencyVideos and change the model's weights by them.

    Raises ValueError where no frame of the clips has ground truth.
    """
    logits, biases, truth = [], [], []
    for item in clips:
        image_logits, latitude_bias = model.logits(item["frames"][None], item["motion"][None])
        logits.append(image_logits[item["valid"]][PIXELS])
        biases.append(latitude_bias.expand_as(image_logits)[item["valid"]][PIXELS])
        truth.append(item["target"][item["valid"]][PIXELS])
    if not sum(map(len, truth)):
        raise ValueError("no frame of the clips has ground truth")
    fitted = fit(torch.cat(logits), torch.cat(biases), torch.cat(truth))
    model.head.weight *= fitted.image
    model.head.bias.mul_(fitted.image).add_(fitted.offset)
    model.latitude_bias *= fitted.latitude
    return fitted


@torch.enable_grad()
def fit(logits: Tensor, latitude_bias: Tensor, truth: Tensor) -> Calibration:
    """Minimise the density loss; factors 1 and offset 0 where nothing lowers it.

    logits, latitude_bias, truth: (N, 1, H, W).
    """
    factors = torch.tensor([1.0, 1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([factors], max_iter=ITERATIONS, line_search_fn="strong_wolfe")
    loss_of = DensityLoss()

    def loss() -> Tensor:
        optimizer.zero_grad()
        maps = (factors[0] * logits + factors[1] * latitude_bias + factors[2]).sigmoid()
        value = loss_of(maps, truth)
        value.backward()
        return value

    before = loss().item()
    optimizer.step(loss)
    after = loss().item()
    if not after < before:
        return Calibration(1.0, 1.0, 0.0, before, before)
    return Calibration(*factors.tolist(), before, after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a CubeUNet")
    parser.add_argument("output", type=Path, help="checkpoint to write")
    parser.add_argument("--data_root", type=Path, required=True,
                        help="data set whose validation split is used")  # fmt: skip
    args = parser.parse_args()
    writable(args.output)
    model = load(args.checkpoint)
    if not isinstance(model, CubeUNet):
        raise InputError(
            f"{args.checkpoint}: holds the model '{model.name}'; give one of a CubeUNet"
        )
    data = SaliencyVideos(args.data_root, "val", model.spec)
    clips = (data[k] for k in tqdm(range(len(data)), unit="clip"))
    try:
        fitted = calibrate(model, clips)
    except ValueError as error:
        raise InputError(f"{args.data_root}: {error}; give another data set") from error
    facts = history(args.checkpoint)
    facts["calibrated"] = fitted._asdict() | {"sha256": sha256(args.checkpoint)}
    save(args.output, model, **facts)
    print(
        f"image factor {fitted.image:.3f}, latitude factor {fitted.latitude:.3f}, "
        f"offset {fitted.offset:+.3f}: loss {fitted.before:.4f} → {fitted.after:.4f}"
    )


if __name__ == "__main__":
    run_script(main)
