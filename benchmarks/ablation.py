"""Train variants of the cube U-Net with the same budget and seeds, and compare them on test clips.

    python -m prepare.synthetic --output scenes --clips 300 --height 120 --width 240 \\
        --attention_height 64
    python -m benchmarks.ablation --data_root scenes --output_dir runs/ablation --seeds 0 1 2 \\
        --model_args height=120 width=240 base_channels=16 --epochs 1 --samples 600

The first variant is the model of --model_args; each of the others differs from it in one setting.
The table shows mean ± standard deviation over seeds of each score's mean over clips: on the whole
sphere, and within EDGE degrees of an edge of the cube, where padding has an effect. SMSE is 4π
times the mean squared error of a region, so that it has one unit everywhere. "Turned" is the change
of the maps if the panorama is rotated by 45°, so that edges are at the former centres of faces: the
mean absolute difference relative to the mean of the maps, in per cent. A rotation by 90° changes
nothing. Below are the paired differences of the others from the first variant: means over clips of
means over seeds, with the p-value of a sign-flip test corrected for the variants of a column
(evaluation/summary.py).

Each network is in OUTPUT_DIR/VARIANT_SEED; the same command continues an interrupted training.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import models
from common.devices import choose_device
from common.errors import RunError, run_script
from common.options import HelpFormatter, at_least
from datasets import SaliencyVideos
from evaluation.summary import max_t
from metrics import Protocol
from metrics.inter_observer import mean_of_finite
from projection import directions, solid_angles

VARIANTS = {  # arguments of train_video.py, beside those of all
    "cube": {},
    "zero": {"model_args": ["padding=zero"]},
    "replicate": {"model_args": ["padding=replicate"]},
    "no latitude bias": {"model_args": ["latitude_bias=false"]},
    "planar loss": {"loss": ["mse"]},
}
EDGE = 10.0  # degrees
SCORES = {"cc": "CC ↑", "kld": "KLD ↓", "nss": "NSS ↑", "smse": "SMSE ↓"}


def near_edges(height: int, width: int) -> Tensor:
    """Return which pixels are within EDGE degrees of an edge of the cube: (H, W) bool.

    An edge lies where the two largest components of a direction are equal, on the plane whose
    distance from a direction is the arcsine of their difference over √2.
    """
    largest = directions(height, width, torch.float64).abs().sort(-1, descending=True).values
    distance = ((largest[..., 0] - largest[..., 1]) / math.sqrt(2)).asin()
    return distance <= math.radians(EDGE)


@torch.inference_mode()
def score(model: models.SaliencyModel, root: Path, split: str) -> dict[str, list[float]]:
    """Return the scores of a model by name: of each clip of a data set, the mean over frames."""
    spec, device = model.spec, next(chain(model.parameters(), model.buffers())).device
    size = spec.height, spec.width
    whole, edges = Protocol("sphere", *size), Protocol("sphere", *size)
    areas, near = solid_angles(*size, torch.float64), near_edges(*size)
    edges.weights = areas * near
    clips: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for item in SaliencyVideos(root, split, spec):
        clip = item["frames"][None].to(device), item["motion"][None].to(device)
        turned = (pictures.roll(spec.width // 8, dims=-1) for pictures in clip)
        pred, again = (model(*pair)[0, :, 0].float().cpu() for pair in (clip, turned))
        truths = {name: item[name][:, 0] for name in ("target", "fixations") if name in item}
        scores, squares = clips[item["name"]], (pred - truths["target"]).square()
        for place, protocol in (("", whole), (" at edges", edges)):
            counted = dict(truths)
            if place and "fixations" in counted:
                counted["fixations"] = counted["fixations"] * near
            for name, values in protocol(pred, **counted).items():
                scores[name + place] += values
            weights = protocol.weights * 4 * math.pi / protocol.weights.expand(size).sum()
            scores["smse" + place] += (squares * weights).sum((-2, -1)).tolist()
        change = (again.roll(-(spec.width // 8), dims=-1) - pred).abs()
        scores["turned"] += ((change * areas).sum((-2, -1)) / (pred * areas).sum((-2, -1))).tolist()
    names = {name for scores in clips.values() for name in scores}
    return {name: [mean_of_finite(scores[name]) for scores in clips.values()] for name in names}


def train(folder: Path, variant: dict[str, list[str]], seed: int, args: argparse.Namespace) -> None:
    """Train a variant with train_video.py, or go on with it. Raises RunError where that fails."""
    options = {
        "data_root": [args.data_root],
        "output_dir": [folder],
        "seed": [seed],
        "epochs": [args.epochs],
        "samples": [args.samples],
        "recipe": [args.recipe],
        "model_args": args.model_args + variant.get("model_args", []),
    } | {name: words for name, words in variant.items() if name != "model_args"}
    words = [
        str(word) for name, given in options.items() for word in (f"--{name}", *given) if given
    ]
    script = Path(__file__).resolve().parents[1] / "train_video.py"
    if subprocess.run([sys.executable, script, *words]).returncode:
        raise RunError(f"{folder}: the training failed; see above")


def row(values: list[dict[str, list[float]]], name: str, factor: float = 1) -> str:
    """Return mean ± standard deviation over the seeds of a score's mean over clips."""
    numbers = factor * np.array([mean_of_finite(scores[name]) for scores in values])
    spread = f" ± {numbers.std(ddof=1):.4f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.4f}{spread}"


def differences(found: dict[str, list[dict[str, list[float]]]], name: str) -> Iterator[str]:
    """Yield the mean differences of a score from the first variant's, and their p-values."""
    means = [np.mean([scores[name] for scores in values], 0) for values in found.values()]
    gains = np.stack([other - means[0] for other in means[1:]], -1)
    for gain, p in zip(np.nanmean(gains, 0), max_t(gains)):
        yield f"{gain:+.4f} (p = {p:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__.splitlines()[0],
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--data_root", type=Path, required=True, help="data set")
    add("--output_dir", type=Path, default=Path("runs/ablation"), help="folder for the networks")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the trainings")
    add(
        "--variants",
        nargs="+",
        choices=list(VARIANTS),
        default=list(VARIANTS),
        help="variants to compare",
    )
    add("--split", default="test", help="split to score")
    add(
        "--recipe", default="default", choices=["default", "paper"], help="recipe of train_video.py"
    )
    add("--epochs", type=at_least(1, kind=int), default=1, help="epochs of each training")
    add("--samples", type=at_least(1, kind=int), default=600, help="of an epoch")
    add("--model_args", nargs="+", metavar="NAME=VALUE", default=[], help="arguments of all models")
    args = parser.parse_args()
    found: dict[str, list[dict[str, list[float]]]] = {variant: [] for variant in args.variants}
    jobs = [(variant, seed) for seed in args.seeds for variant in args.variants]
    for variant, seed in tqdm(jobs, unit="network", disable=None):
        folder = args.output_dir / f"{variant.replace(' ', '_')}_{seed}"
        train(folder, VARIANTS[variant], seed, args)
        model = models.load(folder / "cube_unet_best.pth", choose_device("auto"))
        found[variant].append(score(model, args.data_root, args.split))
    shown = [name for name in SCORES if name in found[args.variants[0]][0]]
    places = [(name + place, SCORES[name] + place) for name in shown for place in ("", " at edges")]
    print("| |" + "".join(f" {title} |" for _, title in places) + " turned by 45°, % |")
    print(f"|{'---|' * (len(places) + 2)}")
    for variant, values in found.items():
        cells = [*(row(values, name) for name, _ in places), row(values, "turned", 100)]
        print(f"| {variant} | {' | '.join(cells)} |")
    columns = [differences(found, name) for name in [name for name, _ in places] + ["turned"]]
    for variant, *cells in zip(args.variants[1:], *columns):
        print(f"| {variant} − {args.variants[0]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run_script(main)
