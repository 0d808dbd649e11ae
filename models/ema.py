"""Exponential moving average of a model's weights during training."""

import copy

import torch
from torch import nn


class WeightAverage:
    """A copy of a model, `module`, whose weights and batch statistics follow it slowly.

    The decay is the smaller of `decay` and (1 + n) / (10 + n) after n steps, so that the random
    weights of the start are soon forgotten (the rule of TensorFlow's ExponentialMovingAverage with
    num_updates). torch's AveragedModel would average the buffers of geometry too, in each step.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model).eval()
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average in the weights after a step; those after the first one are taken as they are."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.steps else 0.0
        self.steps += 1
        current = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - decay)
            else:
                average.copy_(current[name])
