"""Exponential moving average of a model's weights during training."""

import copy

import torch
from torch import nn


class WeightAverage:
    """A copy of a model, `module`, with averaged weights and batch statistics.

    The decay after n steps is the smaller of `decay` and (1 + n) / (10 + n), as in TensorFlow's
    ExponentialMovingAverage. torch's AveragedModel would average the geometry buffers too.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model).eval()
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights after a step to the average; the first ones are copied."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.steps else 0.0
        self.steps += 1
        current = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - decay)
            else:
                average.copy_(current[name])

    def state(self) -> dict:
        return {"steps": self.steps, "weights": self.module.state_dict()}
