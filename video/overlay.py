"""Paints saliency maps over pictures in their own YUV, without a conversion to RGB and back."""

from math import gcd

import cv2
import numpy as np

from video.yuv import Colour, planes

COLORMAPS = {
    name.removeprefix("COLORMAP_").lower(): number
    for name, number in sorted(vars(cv2).items())
    if name.startswith("COLORMAP_")
}


class Overlay:
    """Paints maps over pictures in yuv420p.

    colormap: a key of COLORMAPS. alpha: opacity where the map is 255; it falls linearly to 0 where
    the map is 0. colour, height: those of the video. opaque: paint the colours of the map alone.

    Colour and opacity depend on the map's value only, so they are looked up in tables; each plane
    then takes one 8-bit multiplication and addition.
    """

    def __init__(self, colormap: str, alpha: float, colour: Colour, height: int, opaque=False):
        values = np.arange(256, dtype=np.uint8)[:, None]
        bgr = cv2.applyColorMap(values, COLORMAPS[colormap])[:, 0]
        yuv = colour.from_rgb(bgr[:, ::-1] / 255, height)
        opacity = np.round(np.linspace(0, 255 * alpha, 256)) if not opaque else np.full(256, 255)
        self.rest = (255 - opacity).astype(np.uint8)
        self.paint = [np.round(c * opacity / 255).astype(np.uint8) for c in yuv.T]

    def __call__(self, picture: np.ndarray, saliency: np.ndarray) -> np.ndarray:
        """Return the painted picture.

        picture: (3·H/2, W) uint8 yuv420p. saliency: (H, W) uint8; an odd last row or column,
        which yuv420p does not have, is ignored.
        """
        saliency = saliency[: len(picture) * 2 // 3, : picture.shape[1]]
        half = cv2.resize(saliency, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        out = np.empty_like(picture)
        layers = zip(planes(picture), planes(out), self.paint, (saliency, half, half), strict=True)
        for below, target, paint, value in layers:
            cv2.multiply(below, cv2.LUT(value, self.rest), dst=target, scale=1 / 255)
            cv2.add(target, cv2.LUT(value, paint), dst=target)
        return out


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return two (3·H/2, W) yuv420p pictures as one, (3·H/2, 2·W)."""
    out = np.empty((left.shape[0], 2 * left.shape[1]), np.uint8)
    for target, *pair in zip(planes(out), planes(left), planes(right), strict=True):
        np.concatenate(pair, axis=1, out=target)
    return out


def resize_map(saliency: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an equirectangular (h, w) uint8 map at another size, without a seam at ±180°."""
    columns = saliency.shape[1]
    if columns >= width:
        return cv2.resize(saliency, (width, height), interpolation=cv2.INTER_AREA)
    step = columns // gcd(columns, width)  # this many columns become a whole number of pixels
    pad = step * -(-2 // step)  # a cubic kernel reaches two columns
    extra = pad * width // columns
    padded = cv2.copyMakeBorder(saliency, 0, 0, pad, pad, cv2.BORDER_WRAP)
    large = cv2.resize(padded, (width + 2 * extra, height), interpolation=cv2.INTER_CUBIC)
    return large[:, extra : extra + width]
