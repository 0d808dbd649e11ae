"""Score the equator prior, the baseline that every model should beat, on real gaze.

    python -m benchmarks.equator_prior opensal360_validation_gt_3videos.npz

The file contains ground truth of OpenSAL360 (github.com/msu-video-group/OpenSAL360, CC BY 4.0): for
each video, fixations (frame, x, y, value) on frames of 1920×960 pixels, and maps of 60×120 for
every sixth frame, which are the fixations blurred on the sphere by 5°. Nothing was fitted to it.

Scores are weighted with solid angles and averaged over the frames of a video, then over videos.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError, run_script
from metrics import METRICS
from models.equator_prior import equator_prior
from projection.sphere import latitudes, solid_angles

FRAME_SIZE, MAP_SIZE, EVERY = (960, 1920), (60, 120), 6
FIXATIONS, MAPS = "_fix", f"_gauss60x120_every{EVERY}"


def predictors() -> dict[str, Tensor]:
    """Return maps that do not depend on the video, by name: (60, 120) each."""
    height, width = MAP_SIZE
    gaussian = (-(latitudes(height) / math.radians(18)).square() / 2).exp()
    return {
        "uniform": torch.ones(MAP_SIZE),
        "Gaussian of 18° in latitude": gaussian[:, None].repeat(1, width),
        "equator prior": equator_prior(height, width),
    }


def read_truths(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return maps, fixation counts and fixations of other videos, by video and truth.

    "target" and "fixations" are (T, 60, 120), "others" (60, 120). Raises InputError for another
    file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [n.removesuffix(FIXATIONS) for n in file.files if n.endswith(FIXATIONS)]
            arrays = {name: (file[name + FIXATIONS], file[name + MAPS]) for name in names}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: this is not ground truth of OpenSAL360; check the path"
        ) from error
    if len(arrays) < 2:
        raise InputError(f"{path}: has {len(arrays)} videos; the shuffled AUC needs two")
    truths = {}
    for name, (fixations, maps) in arrays.items():
        frame, x, y = fixations[fixations[:, 0] % EVERY == 0, :3].astype(np.int64).T
        row, column = y * MAP_SIZE[0] // FRAME_SIZE[0], x * MAP_SIZE[1] // FRAME_SIZE[1]
        counts = np.zeros(maps.shape)
        np.add.at(counts, (frame // EVERY, row, column), 1)
        target = torch.from_numpy(maps.astype(np.float64))
        truths[name] = {"target": target, "fixations": torch.from_numpy(counts)}
    for name, truth in truths.items():
        others = [t["fixations"].sum(0) for n, t in truths.items() if n != name]
        truth["others"] = sum(others)
        truth["prior"] = equator_prior(*MAP_SIZE)
    return truths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help=".npz file of ground truth")
    truths = read_truths(parser.parse_args().path)
    weights = solid_angles(*MAP_SIZE, torch.float64)
    print(f"{'':30}" + "".join(f"{name:>10}" for name in METRICS))
    for predictor, saliency in predictors().items():
        table = []
        for truth in truths.values():
            pred = saliency.expand_as(truth["target"])
            scores = (
                metric.function(pred, *(truth[need] for need in metric.needs), weights=weights)
                for metric in METRICS.values()
            )
            table.append([score.nanmean().item() for score in scores])
        for name, row in zip([*truths, "mean"], [*table, np.mean(table, axis=0)]):
            label = predictor if name == "mean" else f"  {name}"
            print(f"{label:30.30}" + "".join(f"{value:10.3f}" for value in row))


if __name__ == "__main__":
    run_script(main)
