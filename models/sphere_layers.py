"""Spherical max pooling and the ConvLSTM cell of SST-Sal, which convolves on the sphere.

The nine taps of a kernel are defined in models/sphere_taps.py. Images are lists of pixels, (H·W,
B, C).
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear

from models.sphere_taps import SphereTaps


def to_pixels(images: Tensor) -> Tensor:
    """(B, C, H, W) → (H·W, B, C)."""
    return images.flatten(2).movedim(-1, 0).contiguous()


def to_images(pixels: Tensor, size: tuple[int, ...]) -> Tensor:
    """(H·W, B, C) → (B, C, H, W)."""
    return pixels.movedim(0, -1).unflatten(2, size)


class SphereMaxPool2d(nn.Module):
    """Maximum of the nine taps of each pixel: (H·W, B, C) → (H·W/stride², B, C)."""

    def __init__(self, taps: SphereTaps):
        super().__init__()
        self.taps = taps

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return self.taps.read_all(x).max(dim=1).values
        return torch.cat(
            self.taps.map_blocks(lambda b: self.taps.read(x, b).unflatten(2, (9, -1)).amax(2), x)
        )


def lstm_step(z, c, matrix, bias, taps, gates=None) -> tuple[Tensor, Tensor]:
    """Compute one step of the cell, block by block: taps, matrix product and gates.

    z: (P, B, C), input and hidden state. c: (P, B, hidden), cell state.
    matrix: (4·hidden, 9·C) and bias: (4·hidden,), of the gates i, f, o and g, which are written
        into `gates`, (P, B, 4·hidden), if given.
    Returns the next hidden and cell state, (P, B, hidden).
    """
    sigmoids = 3 * c.shape[-1]

    def step(block: slice) -> tuple[Tensor, Tensor]:
        s = linear(taps.read(z, block), matrix, bias)
        s[..., :sigmoids].sigmoid_()
        s[..., sigmoids:].tanh_()
        i, f, o, g = s.chunk(4, dim=-1)
        c_next = torch.addcmul(f * c[block], i, g)
        if gates is not None:
            gates[block] = s
        return o * c_next.tanh(), c_next

    h_next, c_next = zip(*taps.map_blocks(step, z))
    return torch.cat(h_next), torch.cat(c_next)


class _LSTMStep(Function):
    """lstm_step with a gradient that reads the taps again, in a third of autograd's memory."""

    @staticmethod
    def forward(ctx, z, c, matrix, bias, taps):
        ctx.taps, gates = taps, c.new_empty(*c.shape[:2], len(bias))
        h_next, c_next = lstm_step(z, c, matrix, bias, taps, gates)
        ctx.save_for_backward(z, c, matrix, gates, c_next)
        return h_next, c_next

    @staticmethod
    def backward(ctx, grad_h, grad_c_next):
        (z, c, matrix, gates, c_next), taps = ctx.saved_tensors, ctx.taps
        grad_samples, grad_c = z.new_empty(len(z), 9, *z.shape[1:]), torch.empty_like(c)

        def gradients(block: slice) -> tuple[Tensor, Tensor]:
            i, f, o, g = gates[block].chunk(4, dim=-1)
            dh, tanh = grad_h[block], c_next[block].tanh()
            dc = torch.addcmul(grad_c_next[block], dh * o, 1 - tanh * tanh)
            grad_c[block] = dc * f
            di, df = dc * g * i * (1 - i), dc * c[block] * f * (1 - f)
            do, dg = dh * tanh * o * (1 - o), dc * i * (1 - g * g)
            gate = torch.cat([di, df, do, dg], dim=-1)
            grad_samples[block] = (gate @ matrix).unflatten(-1, (9, -1)).transpose(1, 2)
            gate = gate.flatten(0, 1)
            return gate.T @ taps.read(z, block).flatten(0, 1), gate.sum(0)

        grad_matrix, grad_bias = map(sum, zip(*taps.map_blocks(gradients, z)))
        return taps.adjoint(grad_samples), grad_c, grad_matrix, grad_bias, None


class ConvLSTMCell(nn.Module):
    """LSTM whose state is an image on the sphere; gates in the order i, f, o, g, no peepholes.

    conv.weight: (4·hidden, in_channels + hidden, 3, 3), rows from the north, columns from the west.
    """

    def __init__(self, in_channels: int, hidden_channels: int, taps: SphereTaps):
        super().__init__()
        self.hidden_channels, self.taps = hidden_channels, taps
        weight = torch.empty(4 * hidden_channels, in_channels + hidden_channels, 3, 3)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        kernel = ("weight", weight), ("bias", torch.zeros(len(weight)))
        self.conv = nn.ParameterDict(kernel)  # keeps the order of pairs, not that of a dictionary

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return the hidden and cell state, (P, B, hidden), after x, (P, B, C); None is zeros."""
        if state is None:  # a hidden state of zeros needs no convolution
            z, c = x, x.new_zeros(*x.shape[:2], self.hidden_channels)
        else:
            z, c = torch.cat([x, state[0]], dim=-1), state[1]
        # Columns in the order of a pixel's samples: by tap, then by channel.
        matrix = self.conv["weight"][:, : z.shape[-1]].permute(0, 2, 3, 1).flatten(1)
        step = z, c, matrix, self.conv["bias"], self.taps
        if torch.is_grad_enabled() and (matrix.requires_grad or z.requires_grad):
            return _LSTMStep.apply(*step)
        return lstm_step(*step)
