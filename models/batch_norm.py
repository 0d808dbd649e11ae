"""Batch normalisation over the batches of all processes, as if they were one."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function

PIXELS = (0, 2, 3)


def total(*sums: Tensor) -> Tensor:
    """Sums over the processes: as many (C,) float64 → (number of them, C)."""
    stacked = torch.stack(sums)
    dist.all_reduce(stacked)
    return stacked


class _Normalise(Function):
    """(B, C, H, W) → the same normalised, and mean and variance (C,) of all processes' batches.

    Statistics are summed in float64 and the output is x·α + β, as torch does it on the CPU:
    one process and several then differ in hardly any bit.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        ctx.count = dist.get_world_size() * x.numel() // x.shape[1]  # their batches are equal
        (mean,) = total(x.sum(PIXELS, dtype=torch.float64)) / ctx.count
        centred = x - image(mean, x)
        (variance,) = total(centred.square_().sum(PIXELS, dtype=torch.float64)) / ctx.count
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        alpha = scale * weight
        return torch.addcmul(image(bias - mean * alpha, x), x, image(alpha, x)), mean, variance

    @staticmethod
    def backward(ctx, grad, *_):
        x, weight, mean, scale = ctx.saved_tensors
        normal = (x - image(mean, x)) * image(scale, x)
        grad_bias = grad.sum(PIXELS, dtype=torch.float64)
        grad_weight = (grad * normal).sum(PIXELS, dtype=torch.float64)
        means = total(grad_bias, grad_weight) / ctx.count
        grad_x = grad - image(means[0], x) - normal * image(means[1], x)
        grad_x *= image(scale * weight, x)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


def image(channels: Tensor, like: Tensor) -> Tensor:
    """(C,) → (C, 1, 1) of the type of another tensor."""
    return channels.to(like.dtype)[:, None, None]


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of all processes' batches together.

    torch's SyncBatchNorm does this on GPUs alone. The processes' batches are of equal size;
    the state is that of BatchNorm2d.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        pixels = x if x.dtype.itemsize > 4 else x.float()
        with torch.autocast(x.device.type, enabled=False):
            y, mean, variance = _Normalise.apply(pixels, self.weight, self.bias, self.eps)
        count = dist.get_world_size() * x.numel() // x.shape[1]
        with torch.no_grad():
            for running, new in (
                (self.running_mean, mean),
                (self.running_var, variance * (count / (count - 1))),
            ):
                running.lerp_(new.to(running.dtype), self.momentum)
            self.num_batches_tracked += 1
        return y.to(x.dtype)


def synchronise(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with every BatchNorm2d made global; its parameters and names stay the same."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d  # the state is the same, forward is not
    return model
