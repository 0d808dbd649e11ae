"""Resampling with fixed geometry: each output is a weighted sum of four pixels."""

import math
from functools import cached_property
from typing import NamedTuple

import cv2
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import embedding_bag

OPENCV = int(cv2.__version__.partition(".")[0])


class Bags(NamedTuple):
    """Weighted sums of the rows of a table; sum k is over terms starts[k] to starts[k + 1]."""

    rows: Tensor
    weight: Tensor
    starts: Tensor

    def sums(self, table: Tensor) -> Tensor:
        """(rows, C) → (sums, C), without a gradient."""
        return embedding_bag(
            self.rows, table, self.starts, mode="sum", include_last_offset=True,
            per_sample_weights=self.weight.to(table.dtype),
        )  # fmt: skip


class SumBags(Function):
    """Bags.sums with gradients of any order, computed by the bags of the transposed map."""

    @staticmethod
    def forward(ctx, table, bags, back):
        ctx.bags, ctx.back = bags, back
        return bags.sums(table)

    @staticmethod
    def backward(ctx, gradient):
        return SumBags.apply(gradient.contiguous(), ctx.back, ctx.bags), None, None


class Resampling(nn.Module):
    """A fixed linear map from the pixels of an image to N output positions with four taps each.

    index: (4, *places) integers into the flattened image. weight: (4, *places), stored in `dtype`,
        torch's default if None.
    size: shape of the image, its width last: (H, W), or (6, S, S) for faces.

    forward: (..., *size) → (..., *places), with the channels before `size`. Sums are computed in at
    least float32 and rounded for integers. Gradients of any order.

    There are two faster forms for CPUs. With gradients and for float64, the taps of each position
    form a bag, which is five to ten times as fast as the plain form. Otherwise OpenCV interpolates,
    which makes infer_video.py an eighth faster and rounds positions to float32 (by at most 2⁻¹⁵ of
    a pixel up to row and column 1024). OpenCV 4 rounds to 1/32 of a pixel, so bags are used.
    """

    index: Tensor
    weight: Tensor

    def __init__(self, index: Tensor, weight: Tensor, size: tuple[int, ...], dtype=None):
        super().__init__()
        self.size, self.places = tuple(size), tuple(index.shape[1:])
        weight = weight.to(dtype or torch.get_default_dtype())
        self.register_buffer("index", index.flatten(1).int(), persistent=False)
        self.register_buffer("weight", weight.flatten(1), persistent=False)

    def _apply(self, *args, **kwargs):
        for made in ("bags", "back", "squares"):  # with weights in another precision
            self.__dict__.pop(made, None)
        return super()._apply(*args, **kwargs)

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.flatten(-len(self.size)).to(torch.promote_types(image.dtype, torch.float32))
        gradient = torch.is_grad_enabled() and image.requires_grad
        if not image.is_cpu or not image.numel() or torch.compiler.is_compiling():
            a, b, c, d = (pixels.index_select(-1, i) * w for i, w in zip(self.index, self.weight))
            sums = a + b + c + d
        elif gradient or pixels.dtype == torch.float64 or OPENCV < 5:
            sums = self._sum_bags(pixels)
        else:
            sums = self._remap(pixels)
        sums = sums if image.is_floating_point() else sums.round()
        return sums.to(image.dtype).unflatten(-1, self.places)

    def _sum_bags(self, pixels: Tensor) -> Tensor:
        """(..., P) → (..., N)."""
        table = pixels.reshape(-1, pixels.shape[-1]).T.contiguous()
        sums = SumBags.apply(table, self.bags, self.back)
        channels = pixels.shape[-2] if pixels.dim() > 1 else 1
        sums = sums.view(len(sums), -1, channels).transpose(0, 1).contiguous().mT  # channels_last
        return sums.reshape(*pixels.shape[:-1], -1)

    def _remap(self, pixels: Tensor) -> Tensor:
        """(..., P) → (..., N), with OpenCV where the taps are a square of neighbours."""
        x, y, others, taps, weight = self.squares
        channels = pixels.shape[-2] if pixels.dim() > 1 and pixels.shape[-2] in (3, 4) else 1
        images = pixels.reshape(-1, channels, pixels.shape[-1]).mT.contiguous()
        result = torch.empty(len(images), x.size, channels)
        for source, target in zip(images, result):
            picture = source.view(-1, self.size[-1], channels).numpy()
            out = target.view(*x.shape, channels).numpy()
            cv2.remap(picture, x, y, cv2.INTER_LINEAR, out, cv2.BORDER_REPLICATE)
            sums = (source.index_select(0, taps).view(4, -1, channels) * weight).sum(0)
            target.index_copy_(0, others, sums)
        return result.mT.reshape(*pixels.shape[:-1], -1)

    @cached_property
    def squares(self) -> tuple:
        """Columns and rows, (rows, columns) float32 each, for cv2.remap.

        Also indices (n,), taps (4·n,) and weights (4, n, 1) of positions that it can't compute.
        """
        width, first = self.size[-1], self.index[0]
        neighbours = torch.tensor([0, 1, width, width + 1])[:, None]
        others = (self.index - first != neighbours).any(0) | (first % width == width - 1)
        others = others.nonzero()[:, 0]
        x = first % width + self.weight[1::2].sum(0)
        y = first // width + self.weight[2:].sum(0)
        x, y = (a.float().view(-1, self.places[-1]).numpy() for a in (x, y))
        return x, y, others, self.index[:, others].flatten(), self.weight[:, others, None].float()

    @cached_property
    def bags(self) -> Bags:
        """The taps of each position."""
        index = self.index.T.flatten()
        starts = torch.arange(0, len(index) + 1, 4, dtype=torch.int32, device=index.device)
        return Bags(index, self.weight.T.flatten(), starts)

    @cached_property
    def back(self) -> Bags:
        """The positions to which each pixel contributes."""
        index, order = self.index.flatten().sort(stable=True)
        pixels = torch.arange(math.prod(self.size) + 1, dtype=torch.int32, device=index.device)
        starts = torch.searchsorted(index, pixels, out_int32=True)
        return Bags((order % self.index.shape[1]).int(), self.weight.flatten()[order], starts)
