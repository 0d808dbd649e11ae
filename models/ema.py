"""Exponential moving average of a model's weights during training."""

import copy

import torch
from torch import Tensor

from models.base import SaliencyModel
from models.checkpoint import put_weights


class WeightAverage:
    """A copy of a model whose weights and batch statistics follow it slowly.

    After each step average ← average + (1 − d)·(model − average), with d the smaller of `decay`
    and (1 + n) / (10 + n) after n steps, so that the random weights of the start are soon
    forgotten (the rule of TensorFlow's ExponentialMovingAverage with num_updates).

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
        self.steps = int(state["steps"])
        put_weights(self.model, state["weights"])
