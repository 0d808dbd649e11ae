"""Resampling with fixed geometry: each place is a weighted sum of four pixels."""

import math

import cv2
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import embedding_bag

OPENCV = int(cv2.__version__.partition(".")[0])
INTERPOLATED = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)  # by OpenCV


class Resampling(nn.Module):
    """A fixed linear map from the pixels of an image to N places, with four taps for each.

    index: (4, *places) integers into the flattened image. weight: (4, *places), stored in `dtype`,
        torch's default if None.
    size: shape of the image, its width last: (H, W), or (6, S, S) for faces.

    forward: (..., *size) → (..., *places), for which the channels come before `size`: summed in
    float32 at the least, rounded for integers. Gradients of any order.

    A CPU has two faster forms. Without gradients OpenCV interpolates, with places rounded to
    float32, 2⁻¹⁵ of a pixel at most before row and column 1024, and for uint8 to 1/32 of a pixel:
    a frame of the shipped network takes about 12 % less time than by bags. With gradients, for
    float64, and with OpenCV before version 5, which rounds all places to 1/32 of a pixel, the taps
    of each place are a bag, and so are those of each pixel for the gradient: eight times as fast
    as the plain form.
    """

    index: Tensor
    weight: Tensor
    # Made at the first call that needs them.
    _squares: tuple | None = None
    _bags: tuple | None = None

    def __init__(self, index: Tensor, weight: Tensor, size: tuple[int, ...], dtype=None):
        super().__init__()
        self.size, self.places = tuple(size), tuple(index.shape[1:])
        weight = weight.to(dtype or torch.get_default_dtype())
        self.register_buffer("index", index.flatten(1).int(), persistent=False)
        self.register_buffer("weight", weight.flatten(1), persistent=False)

    def _apply(self, *args, **kwargs):
        self._squares = self._bags = None  # of weights in another precision
        return super()._apply(*args, **kwargs)

    def forward(self, image: Tensor) -> Tensor:
        if not image.is_cpu or not image.numel() or torch.compiler.is_compiling():
            pixels = image.flatten(-len(self.size))
            a, b, c, d = (pixels.index_select(-1, i) * w for i, w in zip(self.index, self.weight))
            return _rounded(a + b + c + d, image.dtype).unflatten(-1, self.places)
        lead = image.shape[: image.dim() - len(self.size)]
        images = image.reshape(-1, *(lead[-1:] or (1,)), *self.size)
        sides = *_rows_and_columns(self.size), *_rows_and_columns(self.places)
        gradient = torch.is_grad_enabled() and image.requires_grad
        if OPENCV >= 5 and image.dtype in INTERPOLATED and max(sides) < 2**15 and not gradient:
            result = self._remap(images)
        else:
            self._bags = self._bags or (self._bags_of_places(), self._bags_of_pixels())
            result = _SumBags.apply(images, *self._bags)
        return result.reshape(*lead, *self.places)

    def _remap(self, images: Tensor) -> Tensor:
        """(B, C, *size) → (B, C, *places), by OpenCV where the taps are a square of neighbours."""
        self._squares = self._squares or self._find_squares()
        x, y, others, taps, weight = self._squares
        channels = images.shape[1] if images.shape[1] in (3, 4) else 1  # OpenCV's exact ways
        planes = images.reshape(-1, channels, *self.size).movedim(1, -1)
        kind = torch.uint8 if images.dtype == torch.uint8 else torch.float32
        result = torch.empty(len(planes), *x.shape, channels, dtype=kind)
        for plane, target in zip(planes, result):
            source = plane.to(kind).contiguous().view(-1, self.size[-1], channels)
            cv2.remap(source.numpy(), x, y, cv2.INTER_LINEAR, target.numpy(), cv2.BORDER_REPLICATE)
            sums = source.view(-1, channels).index_select(0, taps).view(4, -1, channels) * weight
            target.view(-1, channels).index_copy_(0, others, _rounded(sums.sum(0), kind))
        result = result.flatten(1, 2).mT.reshape(*images.shape[:2], *self.places)
        return result.to(images.dtype)

    def _find_squares(self) -> tuple:
        """Return where cv2.remap finds the places, and the taps of those that it can't sum.

        Returns: x and y, (rows, columns) float32; of the n others the number among the places
        (n,), the pixels (4·n,) and the weights (4, n, 1).
        """
        width, first = self.size[-1], self.index[0]
        neighbours = torch.tensor([0, 1, width, width + 1])[:, None]
        others = (self.index - first != neighbours).any(0) | (first % width == width - 1)
        x = first % width + self.weight[1::2].sum(0)
        y = first // width + self.weight[2:].sum(0)
        x, y = (a.float().view(_rows_and_columns(self.places)).numpy() for a in (x, y))
        others = others.nonzero()[:, 0]
        return x, y, others, self.index[:, others].flatten(), self.weight[:, others, None].float()

    def _bags_of_places(self) -> tuple:
        starts = torch.arange(0, self.index.numel() + 1, 4, dtype=torch.int32)
        return self.index.T.flatten(), self.weight.T.flatten(), starts, self.places

    def _bags_of_pixels(self) -> tuple:
        """Return the transposed map: for each pixel the places that it is a tap of."""
        index, order = self.index.flatten().sort(stable=True)
        pixels = torch.arange(math.prod(self.size) + 1, dtype=torch.int32)
        starts = torch.searchsorted(index, pixels, out_int32=True)
        places = (order % self.index.shape[1]).int()
        return places, self.weight.flatten()[order], starts, self.size


class _SumBags(Function):
    """Weighted sums of pixels, (B, C, ...) → (B, C, *shape).

    bags: index and weight of all terms, where those of each sum begin, with the end after them,
    and the shape. back: bags of the transposed map, which gives the gradient.
    """

    @staticmethod
    def forward(ctx, images, bags, back):
        ctx.bags, ctx.back = bags, back
        index, weight, starts, shape = bags
        batch, channels = images.shape[:2]
        table = images.to(torch.promote_types(images.dtype, torch.float32))
        table = table.movedim((0, 1), (-2, -1)).reshape(-1, batch * channels).contiguous()
        sums = embedding_bag(
            index, table, starts, mode="sum", per_sample_weights=weight.to(table.dtype),
            include_last_offset=True,
        )  # fmt: skip
        sums = sums.view(*shape, batch, channels).movedim(-2, 0).contiguous().movedim(-1, 1)
        return _rounded(sums, images.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return _SumBags.apply(gradient, ctx.back, ctx.bags), None, None


def _rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1]


def _rounded(sums: Tensor, dtype: torch.dtype) -> Tensor:
    return sums.to(dtype) if dtype.is_floating_point else sums.round().to(dtype)
