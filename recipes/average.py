"""Averages of a model's weights, which are often better than the last.

The mean of several checkpoints of a run, or of runs with other seeds from the same --init:

    python -m recipes.average OUTPUT CHECKPOINT CHECKPOINT …

A checkpoint that is given twice counts twice.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from cli import InputError, run_script
from models.base import SaliencyModel
from models.checkpoint import load, read, save, sha256

FACTS = "data", "revision", "epoch", "val_loss", "best_constant"  # kept of each checkpoint


def mean_of(paths: Sequence[Path]) -> SaliencyModel:
    """The model whose weights are the mean of those of several checkpoints.

    They are of one run, or of runs that began with the same weights and drew differently: the
    mean of networks that have learned apart is none (M. Wortsman et al., "Model soups", 2022).

    Its arguments and spec are the first one's, others may be for frames of another size.
    Raises InputError where they are of models with other weights.
    """
    models = [load(path) for path in paths]
    first, states = models[0], [model.state_dict() for model in models]
    kinds = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    for path, model, kind in zip(paths, models, kinds, strict=True):
        if (model.name, kind) != (first.name, kinds[0]):
            raise InputError(f"{path}: another model than {paths[0]}; their mean makes no sense")
    first.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(0)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in states[0].items()
        }
    )
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the mean of checkpoints.")
    parser.add_argument("output", type=Path, help="checkpoint to write")
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        help="of one run, or of runs from the same --init; one given twice counts twice",
    )
    args = parser.parse_args()
    mean, sources = mean_of(args.checkpoints), []
    for path in args.checkpoints:
        facts = read(path)
        sources.append({"sha256": sha256(path)} | {k: facts[k] for k in FACTS if k in facts})
    save(args.output, mean, mean_of=sources)


if __name__ == "__main__":
    run_script(main)
