"""Overlay of saliency maps on pictures; video frames stay in YUV without conversion to RGB.

The opacity is proportional to s·(2 − s), where s is the saliency from 0 to 1: at half the maximum,
it is three quarters of the full opacity, so that secondary peaks are visible.
"""

from collections.abc import Iterable, Iterator
from math import gcd

import av
import cv2
import numpy as np
from torch import Tensor

from video.layout import MONO, SPHERE, Layout, resample, rgb_array
from video.yuv import Colour, planes, to_yuv420p
from views.frames import FrameWithMap

SMOOTH_MAP_SIZE = 960, 1920  # size for cubic interpolation; linear from there
COLORMAPS = {
    name.removeprefix("COLORMAP_").lower(): number
    for name, number in sorted(vars(cv2).items())
    if name.startswith("COLORMAP_")
}


def colours(colormap: str) -> np.ndarray:
    """Return the colours of values 0 to 255: (1, 256, 3) uint8 RGB. colormap: see COLORMAPS."""
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], COLORMAPS[colormap])
    return np.ascontiguousarray(bgr[..., ::-1])


class Overlay:
    """Paint maps over pictures, by tables of colour and opacity for each value of the map.

    colormap: a key of COLORMAPS. alpha: opacity where the map is 255. colour, height: of a video
    in yuv420p; None for RGB pictures. opaque: paint only the map's colours.
    """

    def __init__(
        self, colormap: str, alpha: float, colour: Colour | None, height: int, opaque=False
    ):
        rgb, saliency = colours(colormap), np.arange(256) / 255
        shade = np.full(256, 1.0) if opaque else alpha * saliency * (2 - saliency)
        opacity = np.round(255 * shade)
        channels = colour.from_rgb(rgb, height) if colour else rgb
        self.rest = (255 - opacity).astype(np.uint8)
        self.paint = np.round(channels * opacity[:, None] / 255).astype(np.uint8)  # (1, 256, 3)

    def __call__(self, picture: np.ndarray, saliency: np.ndarray) -> np.ndarray:
        """Return the painted picture, (3·H/2, W) uint8 yuv420p or (H, W, 3) RGB.

        saliency: (H, W) uint8; an odd last row or column, which yuv420p lacks, is ignored.
        """
        if picture.ndim == 3:
            return self._blend(picture, cv2.merge([saliency] * 3), self.paint)
        out, (luma, *chroma) = np.empty_like(picture), planes(picture)
        saliency = saliency[: luma.shape[0], : luma.shape[1]]
        half = cv2.resize(saliency, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        layers = zip((luma, *chroma), (saliency, half, half), cv2.split(self.paint), planes(out))
        for below, value, paint, target in layers:
            self._blend(below, value, paint, target)
        return out

    def _blend(self, below, value, paint, target=None) -> np.ndarray:
        target = cv2.multiply(below, cv2.LUT(value, self.rest), dst=target, scale=1 / 255)
        return cv2.add(target, cv2.LUT(value, paint), dst=target)


def painted_pictures(
    frames: Iterable[FrameWithMap], layout: Layout, colormap: str, alpha: float, side_by_side: bool
) -> Iterator[tuple[np.ndarray, av.VideoFrame]]:
    """Yield painted pictures, (3·H/2, W) yuv420p, side by side 2·W, with their frames."""
    overlay = None
    for frame in frames:
        image, picture = frame.image, to_yuv420p(frame.image)
        if not overlay:
            overlay = Overlay(colormap, alpha, Colour.of(image), image.height, side_by_side)
        saliency = scaled(frame.saliency(), frame.factor)
        painted = overlay(picture, lay_map(saliency, image.height, image.width, layout))
        yield beside(picture, painted) if side_by_side else painted, image


def paint_picture(
    rgb: np.ndarray | Tensor,
    saliency: np.ndarray | Tensor,
    layout: Layout = MONO,
    colormap: str = "turbo",
    alpha: float = 0.7,
    side_by_side: bool = False,
) -> np.ndarray:
    """Return a picture with its map over it, (H, W, 3) RGB, or beside it, (H, 2·W, 3).

    rgb: (H, W, 3) uint8, or a frame's tensor. saliency: (h, w) uint8, or a map of models.predict or
    any other non-negative array or tensor (1, h, w), scaled to its maximum. alpha: opacity at
    maximum saliency.
    """
    rgb, saliency = rgb_array(rgb), np.asarray(saliency).reshape(saliency.shape[-2:])
    if saliency.dtype != np.uint8:
        saliency = np.rint(saliency * (255 / max(saliency.max(), 1e-9))).astype(np.uint8)
    overlay = Overlay(colormap, alpha, None, len(rgb), side_by_side)
    height, width = rgb.shape[:2]
    painted = overlay(rgb, lay_map(saliency, height, width, layout))
    return np.concatenate([rgb, painted], axis=1) if side_by_side else painted


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return two (3·H/2, W) yuv420p pictures side by side, (3·H/2, 2·W)."""
    out = np.empty((left.shape[0], 2 * left.shape[1]), np.uint8)
    for target, *pair in zip(planes(out), planes(left), planes(right), strict=True):
        np.concatenate(pair, axis=1, out=target)
    return out


def scaled(saliency: np.ndarray, factor: float) -> np.ndarray:
    """Return a uint8 map multiplied by a factor and clipped at 255."""
    table = np.clip(np.rint(np.arange(256) * factor), 0, 255).astype(np.uint8)
    return cv2.LUT(saliency, table)


def resize_map(saliency: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a resized equirectangular (h, w) uint8 map, without a seam at ±180°."""
    columns = saliency.shape[1]
    if columns >= width:
        return cv2.resize(saliency, (width, height), interpolation=cv2.INTER_AREA)
    step = columns // gcd(columns, width)  # so many columns become a whole number of pixels
    pad = step * -(-2 // step)  # a cubic kernel reaches two columns
    extra = pad * width // columns
    padded = cv2.copyMakeBorder(saliency, 0, 0, pad, pad, cv2.BORDER_WRAP)
    large = cv2.resize(padded, (width + 2 * extra, height), interpolation=cv2.INTER_CUBIC)
    return large[:, extra : extra + width]


def lay_map(saliency: np.ndarray, height: int, width: int, layout: Layout) -> np.ndarray:
    """Return a map (h, w) uint8 in the layout of pictures, (H, W), repeated for each eye."""
    eyes, laid = layout.eyes(height, width), np.zeros((height, width), np.uint8)
    size = laid[eyes[0]].shape
    if layout.whole:
        part = resize_map(saliency, *size)
    else:
        part = resample(resize_map(saliency, *SMOOTH_MAP_SIZE), SPHERE, layout.coverage, *size)
    for eye in eyes:
        laid[eye] = part
    return laid
