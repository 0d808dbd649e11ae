"""Averages of a model's weights, which are often better than the last.

An exponential moving average while it is trained; and the mean of several checkpoints of a run, or
of runs with other seeds from the same --init:

    python -m models.average OUTPUT CHECKPOINT CHECKPOINT …

A checkpoint that is given twice counts twice.
"""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from files import InputError, run_script
from models.base import SaliencyModel
from models.checkpoint import load, read, save, sha256

FACTS = "data", "revision", "epoch", "val_loss", "best_constant"  # kept of each checkpoint


class WeightAverage:
    """A copy of a model whose weights and batch statistics follow it slowly.

    After each step average ← average + (1 − d)·(model − average), with d the smaller of
    `decay` and (1 + n) / (10 + n) after n steps, so that the random weights of the start are
    soon forgotten (the rule of TensorFlow's ExponentialMovingAverage with num_updates).

    model: the average, in eval mode.
    """

    def __init__(self, model: SaliencyModel, decay: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, model: SaliencyModel) -> None:
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        current = model.state_dict()  # without the geometry, which never changes
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(current[name], 1 - decay)
            else:
                tensor.copy_(current[name])

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        return {"steps": self.steps, "weights": self.model.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        self.model.load_state_dict(state["weights"])


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
