"""Exponential moving average of a model's weights during training."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def weight_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a model, in `.module`, whose weights and batch statistics follow it slowly.

    After each step, update_parameters(model) sets average ← d · average + (1 − d) · model, with d
    the smaller of `decay` and (1 + n) / (10 + n) after n steps, so that the random weights of the
    start are soon forgotten (the rule of TensorFlow's ExponentialMovingAverage with num_updates).
    torch's own get_ema_multi_avg_fn has a constant d and truncates averages of integers, which the
    indices of the geometry are; here integers are copied.
    """

    def update(averages: Sequence[Tensor], currents: Sequence[Tensor], steps: Any) -> None:
        rate = 1 - ((1 + steps) / (10 + steps)).clamp(max=decay)
        for average, current in zip(averages, currents):
            if average.is_floating_point():
                average.lerp_(current, rate.to(average))
            else:
                average.copy_(current)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True).eval()
