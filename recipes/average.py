"""Write the mean of the weights of several checkpoints.

    python -m recipes.average OUTPUT CHECKPOINT CHECKPOINT …

The checkpoints must be from one run, or from runs with different seeds that started from the same
weights: the mean of independently trained networks is useless (M. Wortsman et al., "Model soups",
ICML 2022). A checkpoint that is given twice counts twice.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from common.errors import InputError, run_script
from models import SaliencyModel, load, save
from models.checkpoint import read, sha256
from recipes.output import writable


def mean_of(paths: Sequence[Path]) -> SaliencyModel:
    """Return a model whose weights are the mean of those of several checkpoints.

    Its arguments and spec are those of the first checkpoint.
    Raises InputError where a checkpoint is of another model or has weights of other shapes.
    """
    models = [load(path) for path in paths]
    mean, states = models[0], [model.state_dict() for model in models]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    for path, model, shape in zip(paths, models, shapes, strict=True):
        if (model.name, shape) != (mean.name, shapes[0]):
            raise InputError(f"{path}: not the same kind of model as {paths[0]}; leave it out")
    for name, tensor in states[0].items():
        if tensor.is_floating_point():  # the first one's counts of batches are kept
            tensor.copy_(torch.stack([state[name] for state in states]).mean(0))
    return mean


def common_run(paths: Sequence[Path]) -> dict:
    """Return what the runs of the checkpoints have in common, of those that state their run."""
    runs = [run for run in (read(path)["run"] for path in paths) if run]
    first = runs[0] if runs else {}
    return {key: first[key] for key in first if all(run.get(key) == first[key] for run in runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="checkpoint to write")
    parser.add_argument("checkpoints", type=Path, nargs="+",
                        help="checkpoints to average; one that is given twice counts "
                        "twice")  # fmt: skip
    args = parser.parse_args()
    writable(args.output)
    mean = mean_of(args.checkpoints)
    facts = {"mean_of": [sha256(path) for path in args.checkpoints]}
    save(args.output, mean, run=common_run(args.checkpoints), **facts)


if __name__ == "__main__":
    run_script(main)
