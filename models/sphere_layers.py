"""Spherical max pooling and the ConvLSTM cell of SST-Sal, which convolves on the sphere.

Bernal-Berdun et al., "SST-Sal: A spherical spatio-temporal approach for saliency prediction
in 360° videos", Computers & Graphics 2022. models/sphere_taps.py defines the nine taps of a
kernel and how they are sampled. Inside the model an image is a list of pixels, (B, H·W, C).
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear

from models.sphere_taps import SphereTaps


class _Samples(Function):
    """All taps of an image, (B, H·W, C) → (B, N, 9, C); its gradient is the adjoint map."""

    @staticmethod
    def forward(ctx, x, taps):
        ctx.taps = taps
        pixels = slice(0, taps.out_size[0] * taps.out_size[1])
        return torch.stack([taps.read(image, pixels) for image in x])

    @staticmethod
    def backward(ctx, grad):
        return torch.stack([ctx.taps.adjoint(g) for g in grad]), None


class SphereMaxPool2d(nn.Module):
    """Maximum of the nine taps of each pixel: (B, H·W, C) → (B, H·W/stride², C)."""

    def __init__(self, taps: SphereTaps):
        super().__init__()
        self.taps = taps

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _Samples.apply(x, self.taps).max(dim=2).values
        out = x.new_empty(x.shape[0], self.taps.out_size[0] * self.taps.out_size[1], x.shape[2])

        def work(b: int, block: slice) -> None:
            torch.amax(self.taps.read(x[b], block), dim=1, out=out[b, block])

        self.taps.each_block(x, work)
        return out


def lstm_step(z, c, matrix, bias, taps, h_next, c_next, gates=None) -> None:
    """Compute one step of the cell, block by block: taps, matrix product and gates.

    z: (B, P, C), input and hidden state. c: (B, P, hidden), cell state.
    matrix: (4·hidden, 9·C) and bias: (4·hidden,), of the gates i, f, o and g.
    Writes the next hidden and cell state into h_next and c_next, (B, P, hidden), of which the
    latter may be c itself, and the gates, if given, into gates, (B, P, 4·hidden).
    """
    sigmoids = 3 * c.shape[2]

    def work(b: int, block: slice) -> None:
        s = linear(taps.read(z[b], block).flatten(1), matrix, bias)
        s[:, :sigmoids].sigmoid_()
        s[:, sigmoids:].tanh_()
        i, f, o, g = s.chunk(4, dim=1)
        torch.mul(f, c[b, block], out=c_next[b, block]).add_(i * g)
        torch.mul(o, c_next[b, block].tanh(), out=h_next[b, block])
        if gates is not None:
            gates[b, block] = s

    taps.each_block(z, work)


class _LSTMStep(Function):
    """lstm_step with its gradient: z, c, matrix, bias → h_next, c_next."""

    @staticmethod
    def forward(ctx, z, c, matrix, bias, taps):
        ctx.taps = taps
        c_next, h_next = torch.empty_like(c), torch.empty_like(c)
        gates = c.new_empty(*c.shape[:2], len(bias))
        lstm_step(z, c, matrix, bias, taps, h_next, c_next, gates)
        ctx.save_for_backward(z, c, matrix, gates, c_next)
        return h_next, c_next

    @staticmethod
    def backward(ctx, grad_h, grad_c_next):
        z, c, matrix, gates, c_next = ctx.saved_tensors
        grad_z, grad_c = torch.empty_like(z), torch.empty_like(c)
        grad_matrix, grad_bias = torch.zeros_like(matrix), matrix.new_zeros(len(matrix))
        grad_samples = z.new_empty(z.shape[1], 9, z.shape[2])
        for b, block in ctx.taps.blocks(z):
            i, f, o, g = gates[b, block].chunk(4, dim=1)
            dh, tanh = grad_h[b, block], c_next[b, block].tanh()
            dc = torch.addcmul(grad_c_next[b, block], dh * o, 1 - tanh * tanh)
            torch.mul(dc, f, out=grad_c[b, block])
            di, df = dc * g * i * (1 - i), dc * c[b, block] * f * (1 - f)
            do, dg = dh * tanh * o * (1 - o), dc * i * (1 - g * g)
            gradient = torch.cat([di, df, do, dg], dim=1)
            grad_matrix.addmm_(gradient.t(), ctx.taps.read(z[b], block).flatten(1))
            grad_bias += gradient.sum(dim=0)
            torch.mm(gradient, matrix, out=grad_samples[block].flatten(1))
            if block.stop == z.shape[1]:
                grad_z[b] = ctx.taps.adjoint(grad_samples)
        return grad_z, grad_c, grad_matrix, grad_bias, None


class ConvLSTMCell(nn.Module):
    """LSTM whose state is an image on the sphere; gates in the order i, f, o, g, no peepholes.

    conv.weight: (4·hidden, in_channels + hidden, 3, 3), kernel rows from north to south, columns
        from west to east.
    """

    def __init__(self, in_channels: int, hidden_channels: int, taps: SphereTaps):
        super().__init__()
        self.hidden_channels, self.taps = hidden_channels, taps
        weight = torch.empty(4 * hidden_channels, in_channels + hidden_channels, 3, 3)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        kernel = ("weight", weight), ("bias", torch.zeros(len(weight)))
        self.conv = nn.ParameterDict(kernel)  # which would sort the keys of a dictionary

    def forward(self, x: Tensor, state: tuple | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Advance the cell by one frame.

        x: (B, P, C). state: what the previous step returned, None for a state of zeros.
        Returns: hidden and cell state, (B, P, hidden), and a buffer for the next step, None with
        gradients. Without gradients, the tensors of the given state are overwritten by the new one.
        """
        if state is None:  # the hidden state's zeros need no convolution
            z, h = x.contiguous(), x.new_empty(*x.shape[:2], self.hidden_channels)
            c, buffer = torch.zeros_like(h), None
        else:
            h, c, buffer = state
            z = buffer = torch.cat([x, h], dim=-1, out=buffer)
        # Columns in the order of a pixel's samples: tap by tap, then channel by channel.
        matrix = self.conv["weight"][:, : z.shape[-1]].permute(0, 2, 3, 1).flatten(1)
        bias = self.conv["bias"]
        if torch.is_grad_enabled() and (matrix.requires_grad or z.requires_grad):
            return *_LSTMStep.apply(z, c, matrix, bias, self.taps), None
        lstm_step(z, c, matrix, bias, self.taps, h, c)
        return h, c, buffer
