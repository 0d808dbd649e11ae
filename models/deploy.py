"""Inference optimisation: fold BatchNorm, fuse activations."""

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, relu, relu6
from torch.nn.utils.fusion import fuse_conv_bn_eval

from common.devices import choose_precision
from models.base import SaliencyModel
from models.cube_unet import CubeUNet
from models.efficientnet_lite import Conv

# oneDNN can compute a convolution and its activation in one pass over memory. In PyTorch, only
# compiled code uses this, through an operator without a public name.
ONEDNN = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._convolution_pointwise
ACTIVATIONS = {  # PyTorch's functions, and their names for the operator
    nn.Identity: (lambda x: x, "none", ()),
    nn.ReLU: (relu, "relu", ()),
    nn.ReLU6: (relu6, "hardtanh", (0.0, 6.0)),
}


def deploy(model: SaliencyModel, dtype: torch.dtype | None = None) -> SaliencyModel:
    """Optimise a model for inference in place and return it; its maps change only by rounding.

    Afterwards, a CubeUNet can't be trained or saved. Other models are only set to eval mode.

    dtype: data type of the convolutions' weights and results: float32, bfloat16 or float16 (on a
        GPU). None: bfloat16 if the hardware supports it, else float32.

    >>> from models import CubeUNet
    >>> model = deploy(CubeUNet(base_channels=4, height=40, width=80))
    >>> model(torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80)).shape
    torch.Size([1, 2, 1, 40, 80])
    """
    model.eval().requires_grad_(False)
    if dtype is None:
        dtype = choose_precision("auto", next(chain(model.parameters(), model.buffers())).device)
    return _fused(model, dtype) if isinstance(model, CubeUNet) else model


def _fused(module: Any, dtype: torch.dtype) -> Any:
    """Return a module in which FusedConvs replace convolutions and the layers around them."""
    if isinstance(module, Conv):
        return FusedConv(module.conv, dtype, module.activate)
    if isinstance(module, nn.Conv2d):
        return FusedConv(module, dtype)
    if isinstance(module, nn.Sequential):
        module = nn.Sequential(*_merged(module, dtype))
    for name, child in module.named_children():
        setattr(module, name, _fused(child, dtype))
    return module


def _merged(layers: nn.Sequential, dtype: torch.dtype) -> list[nn.Module]:
    """Return layers in which BatchNorms and activations are merged into convolutions."""
    merged: list[nn.Module] = [nn.Identity()]
    for layer in layers:
        before = merged[-1]
        convolution = isinstance(layer, nn.Conv2d) and layer
        if isinstance(before, nn.BatchNorm2d) and convolution and _takes_in_norm(convolution):
            merged[-1] = _with_norm_before(before, convolution)
        elif isinstance(before, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d):
            merged[-1] = fuse_conv_bn_eval(before, layer)
        elif isinstance(before, nn.Conv2d) and type(layer) in ACTIVATIONS:
            merged[-1] = FusedConv(before, dtype, layer)
        else:
            merged.append(layer)
    return merged[1:]


def _takes_in_norm(conv: nn.Conv2d) -> bool:
    """Return whether the BatchNorm before a convolution can be folded into it."""
    padded = any(conv._reversed_padding_repeated_twice)  # with zeros that are not normalised
    return not padded and conv.groups == 1 and conv.bias is not None


def _with_norm_before(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution without padding into which the BatchNorm before it is folded."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight * (variance + norm.eps).rsqrt()
    offset = norm.bias - mean * scale
    conv.get_parameter("bias").data += conv.weight.sum((2, 3)) @ offset
    conv.weight.data *= scale[:, None, None]
    return conv


class FusedConv(nn.Module):
    """A convolution with an activation; the result has `dtype`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, activation: nn.Module | None = None):
        super().__init__()
        weight = conv.weight.detach().to(dtype, memory_format=torch.channels_last)
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().to(dtype)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.steps, self.padding = (conv.stride, conv.dilation, conv.groups), [0, 0]
        self.margins, self.mode = conv._reversed_padding_repeated_twice, conv.padding_mode
        if self.mode == "zeros" and not isinstance(conv.padding, str):
            self.margins, self.padding = [], list(conv.padding)  # the convolution's own
        self.activate, *self.operator = ACTIVATIONS[type(activation or nn.Identity())]
        bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported
        self.onednn = ONEDNN and (dtype == torch.float32 or dtype == torch.bfloat16 and bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        x, weights = x.to(self.weight.dtype), (self.weight, self.bias)
        if any(self.margins):
            x = pad(x, self.margins, "constant" if self.mode == "zeros" else self.mode)
        if self.onednn and x.is_cpu:
            return ONEDNN(x, *weights, self.padding, *self.steps, *self.operator, "")
        stride, dilation, groups = self.steps
        return self.activate(conv2d(x, *weights, stride, self.padding, dilation, groups))
