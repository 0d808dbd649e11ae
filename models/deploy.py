"""A trained model as it computes fastest: BatchNorm folded, convolutions with what follows them."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, relu, relu6

from models.base import SaliencyModel
from models.cube_unet import CubeUNet
from models.efficientnet_lite import Conv, EfficientNetLite0

# oneDNN computes a convolution and what follows it in one pass over memory. PyTorch calls it so in
# compiled code, by an operator without a public name.
ONEDNN = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._convolution_pointwise
ACTIVATIONS = {  # as PyTorch computes them, and as the operator names them
    nn.Identity: (lambda x: x, "none", ()),
    nn.ReLU: (relu, "relu", ()),
    nn.ReLU6: (relu6, "hardtanh", (0.0, 6.0)),
}


def deploy(model: SaliencyModel, dtype: torch.dtype = torch.float32) -> SaliencyModel:
    """Change a model for inference alone, and return it; its maps stay the same up to rounding.

    Convolutions of a CubeUNet take in the BatchNorm beside them and the activation after them. It
    can't be trained or saved any more. Other models stay as they are, in eval mode.

    dtype: of the convolutions' weights and results: float32, bfloat16 (fast where the processor
        computes in it) or float16 (on a GPU).

    >>> from models import CubeUNet
    >>> model = deploy(CubeUNet(base_channels=4, height=40, width=80))
    >>> model(torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80)).shape
    torch.Size([1, 2, 1, 40, 80])
    """
    model.eval().requires_grad_(False)
    if isinstance(model, CubeUNet):
        _fuse(model, dtype)
    return model


def _fuse(module: nn.Module, dtype: torch.dtype) -> None:
    """Put a FusedConv in the place of every convolution."""
    if isinstance(module, nn.Sequential):
        _fuse_layers(module, dtype)
    if isinstance(module, EfficientNetLite0):
        module.dtype = dtype
    for name, child in module.named_children():
        if isinstance(child, Conv):
            setattr(module, name, FusedConv(child.conv, dtype, child.activate))
        elif isinstance(child, nn.Conv2d):
            setattr(module, name, FusedConv(child, dtype))
        else:
            _fuse(child, dtype)


def _fuse_layers(layers: nn.Sequential, dtype: torch.dtype) -> None:
    """Fuse convolutions with their neighbours in a sequence, whose places are empty then."""

    def take(n: int, *kinds: type[nn.Module]) -> nn.Module | None:
        """Return the layer at a place and empty the place, if it is one of these kinds."""
        if not 0 <= n < len(layers) or type(layers[n]) not in kinds:
            return None
        taken, layers[n] = layers[n], nn.Identity()
        return taken

    for k, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            before, after = take(k - 1, nn.BatchNorm2d), take(k + 1, nn.BatchNorm2d)
            activation = take(k + 1 + bool(after), nn.ReLU, nn.ReLU6)
            layers[k] = FusedConv(layer, dtype, activation, before, after)


class FusedConv(nn.Module):
    """A convolution without padding, with a BatchNorm before it, one after it and an activation.

    forward: (N, C, H, W) and, of one without an activation, what is added at the end →
    (N, C', H', W'), in channels_last format if the input is.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        dtype: torch.dtype,
        activation: nn.Module | None = None,
        before: nn.BatchNorm2d | None = None,
        after: nn.BatchNorm2d | None = None,
    ):
        super().__init__()
        weight = conv.weight.double()
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.double()
        if before:
            scale, offset = _affine(before)
            bias = bias + (weight.sum((2, 3)) * offset).sum(1)
            weight = weight * scale[:, None, None]
        if after:
            scale, offset = _affine(after)
            weight, bias = weight * scale[:, None, None, None], bias * scale + offset
        weight = weight.to(dtype, memory_format=torch.channels_last)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias.to(dtype), persistent=False)
        self.steps = [0, 0], conv.stride, conv.dilation, conv.groups  # the first is the padding
        self.activate, *self.operator = ACTIVATIONS[type(activation or nn.Identity())]
        computes = torch.ops.mkldnn._is_mkldnn_bf16_supported() if dtype == torch.bfloat16 else True
        self.onednn = ONEDNN and computes and dtype != torch.float16

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        x = x.to(self.weight.dtype)
        weights = self.weight, self.bias
        if x.shape[1] == self.weight[0].numel() == 1:  # a convolution forgets channels_last then
            y = linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)
            return self.activate(y)
        if self.onednn and x.device.type == "cpu":
            if plus is None:
                return ONEDNN(x, *weights, *self.steps, *self.operator, "")
            plus = plus.to(x.dtype, memory_format=torch.channels_last)
            return ONEDNN.binary(x, plus, *weights, *self.steps, "add", 1, None, [], None)
        padding, stride, *others = self.steps
        y = self.activate(conv2d(x, *weights, stride, padding, *others))
        return y if plus is None else y + plus


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the factor and the offset of each channel by which a BatchNorm in eval mode acts."""
    scale = norm.weight * (norm.running_var.double() + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale
