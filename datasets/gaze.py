"""Fixations → ground truth: counts a pixel, and a Gaussian on the sphere.

Directions are longitude and latitude in radians, as projection/__init__.py has them: to the right
of straight ahead, and upwards. How wide the Gaussian is, is a choice; in degrees:

    9      π/20, the ground truth of 360_Saliency_dataset_2018ECCV, cut off at π/7
           (data.py of its authors, xuyanyu-shh/Saliency-detection-in-360-video)
    5      SST-Sal (issue 2 of edurnebernal/SST-Sal) and F.-Y. Chao et al.
           (code/saliency_estimate.py of cozcinar/360_Audio_Visual_ICMEW2020)
    3.34   panoramas of H. Duan et al. 2022 (calPanoSalMap.m of DuanHuiyu/ARSaliency), there
           on the flat image and with the advice to change it with the application
    2      the Salient360! toolbox (--sal-gauss of David-Ef/salient360Toolbox)
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.gaze_files import (
    Fixations,
    Gaze,
    read_fixations_csv,
    read_gaze_csv,
    read_vinfo,
    write_fixations_csv,
)
from projection import sphere

__all__ = [
    "Fixations",
    "Gaze",
    "active_fixations",
    "fixation_map",
    "gaussian_map",
    "read_fixations_csv",
    "read_gaze_csv",
    "read_vinfo",
    "write_fixations_csv",
]

SIGMAS = 0.5, 30.0  # degrees; wider Gaussians have a cusp at the antipode
STEPS = 3  # latitudes of the source grid within one sigma
ORDER = 10  # of them, that carry one fixation: an error of 5e-6 of the Gaussian's height
REACH = 5.5  # sigmas between a row and the farthest latitude that still counts: exp(−15) = 3e-7
BANDWIDTH = 5.0  # highest frequency in longitude times sigma: what is beyond sums up to 6e-7
PART = 8192  # fixations at a time, so that memory does not grow with their number
ROUNDING = 1e-6  # seconds: a time is written as a decimal, the start of a frame rarely is one


def fixation_map(longitudes, latitudes, height: int, width: int) -> Tensor:
    """Fixations in each pixel: (H, W) float32 counts.

    longitudes, latitudes: (N,) radians, N may be 0; longitudes wrap, and a
    pole belongs to the row that touches it. A direction on the border of two pixels is of the
    one to its right or below.
    Raises ValueError for directions that are none.
    """
    sphere.check_size(height, width)
    longitude, latitude = _directions(longitudes, latitudes)
    column = ((longitude + math.pi) * width / (2 * math.pi)).floor().long() % width
    row = ((math.pi / 2 - latitude) * height / math.pi).floor().long().clamp(0, height - 1)
    counts = torch.bincount(row * width + column, minlength=height * width)
    return counts.view(height, width).float()


def gaussian_map(
    longitudes,
    latitudes,
    height: int,
    width: int,
    sigma: float,
    weights=None,
) -> Tensor:
    """Σ weight · exp(−d² / 2σ²), d the angle between a pixel's centre and a fixation.

    longitudes, latitudes: (N,) radians, N may be 0.
    sigma: degrees, 0.5 to 30. weights: (N,), not negative; 1 if None.
    Returns: (H, W) float32, not normalised; within 2e-5 of its maximum of the sum above.

    In row i, a source at latitude φ' is an even function of the difference of longitudes,
    Σ_m K[i, φ', m] cos m(λ − λ'). The coefficients K are kept for a grid of latitudes φ';
    each fixation is spread over the nearest of them by Lagrange interpolation, its longitude
    being exact, and the sum over m is a product with the cosines and sines of the columns.

    Raises ValueError for directions that are none, another sigma, or negative weights.
    """
    sphere.check_size(height, width)
    if not SIGMAS[0] <= sigma <= SIGMAS[1]:
        raise ValueError(f"sigma must be within {SIGMAS[0]} and {SIGMAS[1]} degrees, got {sigma}")
    longitude, latitude = _directions(longitudes, latitudes)
    weight = torch.ones_like(latitude)
    if weights is not None:
        weight = torch.as_tensor(weights, dtype=torch.float64)
        if weight.shape != latitude.shape or not (weight >= 0).all() or weight.isinf().any():
            raise ValueError("weights must be one finite number of at least 0 for each fixation")
    kernel = _kernel(height, width, float(sigma))
    parts = (values.split(PART) for values in (longitude, latitude, weight))
    sources = sum(
        kernel.grid.spread(lat, w) @ _waves(lon, kernel.coefficients.shape[-1])
        for lon, lat, w in zip(*parts, strict=True)
    ).unflatten(1, (2, -1))  # (latitudes, cosine and sine, M)
    rows = sources.new_zeros(height, *sources.shape[1:])
    for offset, coefficients in enumerate(kernel.coefficients):
        rows.addcmul_(coefficients, sources[kernel.first + offset])
    return (rows.flatten(1) @ kernel.columns).clamp_(min=0)


class _Grid(NamedTuple):
    """Latitudes −π/2 + (k − margin) · step, k = 0 … size − 1. It goes on beyond the poles:
    latitude π/2 + x at longitude λ is π/2 − x at λ + π, as the formulas of a direction have it.
    """

    step: float
    margin: int
    size: int

    def position(self, latitude: Tensor) -> Tensor:
        """Index on the grid of any latitude, with its fraction."""
        return (latitude + math.pi / 2) / self.step + self.margin

    def spread(self, latitude: Tensor, weight: Tensor) -> Tensor:
        """Lagrange weights of N latitudes, times `weight`: (size, N) float32."""
        position = self.position(latitude)
        below = position.floor()
        nodes = torch.arange(ORDER, dtype=torch.float64) - (ORDER // 2 - 1)
        powers = torch.arange(ORDER)
        polynomials = torch.linalg.inv(nodes[:, None] ** powers)  # a column for each node
        lagrange = (position - below)[:, None] ** powers @ polynomials * weight[:, None]
        index = (below[:, None] + nodes).long()
        spread = torch.zeros(self.size, len(latitude), dtype=torch.float32)
        return spread.scatter_(0, index.T, lagrange.T.float())


class _Kernel(NamedTuple):
    """The Gaussian between H rows and the latitudes of a grid, as cosines in longitude.

    coefficients: (B, H, 1, M); the b-th is for latitude first[i] + b of the grid.
    columns: (2 M, W): cosines and sines of the columns' longitudes.
    """

    grid: _Grid
    first: Tensor
    coefficients: Tensor
    columns: Tensor


@lru_cache(maxsize=4)
def _kernel(height: int, width: int, sigma_degrees: float) -> _Kernel:
    sigma = math.radians(sigma_degrees)
    intervals = math.ceil(math.pi * STEPS / sigma)  # the poles are on the grid
    half = math.ceil(REACH * STEPS)
    margin = half + ORDER
    grid = _Grid(math.pi / intervals, margin, intervals + 1 + 2 * margin)
    frequencies = math.ceil(BANDWIDTH / sigma) + 1
    # The cosine series of an even function from its values in the middle of equal intervals.
    middle = (torch.arange(frequencies, dtype=torch.float64) + 0.5) * math.pi / frequencies
    analysis = torch.cos(middle[:, None] * torch.arange(frequencies)) * 2 / frequencies
    analysis[:, 0] /= 2
    row = sphere.latitudes(height)
    first = grid.position(row).floor().long() - half + 1
    coefficients = torch.empty(2 * half, height, 1, frequencies, dtype=torch.float32)
    for offset in range(2 * half):
        source = (first + offset - margin).double() * grid.step - math.pi / 2
        cosine = (row.cos() * source.cos())[:, None] * middle.cos()
        cosine += (row.sin() * source.sin())[:, None]
        angle = cosine.clamp(-1, 1).acos()
        coefficients[offset, :, 0] = torch.exp(-(angle**2) / (2 * sigma**2)) @ analysis
    columns = _waves(sphere.longitudes(width), frequencies).T.contiguous()
    return _Kernel(grid, first, coefficients, columns)


def _waves(longitude: Tensor, frequencies: int) -> Tensor:
    """cos mλ and sin mλ for m = 0 … M − 1: (N, 2 M) float32."""
    turns = longitude[:, None] / (2 * math.pi) * torch.arange(frequencies)
    phase = ((turns - turns.round()) * (2 * math.pi)).float()  # short enough for float32
    return torch.cat([phase.cos(), phase.sin()], dim=1)


def _directions(longitude, latitude) -> tuple[Tensor, Tensor]:
    """Both as float64 (N,), the latitude in [−π/2, π/2] to the last bit."""
    longitude = torch.as_tensor(longitude, dtype=torch.float64)
    latitude = torch.as_tensor(latitude, dtype=torch.float64)
    if longitude.ndim != 1 or longitude.shape != latitude.shape:
        raise ValueError(
            "longitudes and latitudes must be two lists of one length, "
            f"got {tuple(longitude.shape)} and {tuple(latitude.shape)}"
        )
    if not (longitude.isfinite().all() and (latitude.abs() <= math.pi / 2 + 1e-6).all()):
        raise ValueError("a longitude is not finite or a latitude is outside ±π/2 radians")
    return longitude, latitude.clamp(-math.pi / 2, math.pi / 2)


def active_fixations(
    gaze: Gaze, starts: np.ndarray, end: float, window: float | None = None
) -> Fixations:
    """Gaze samples as fixations of frames 1 … F, in the order of the frames.

    starts: (F,) seconds at which the frames begin, growing; end: when the last one ends.
    window: seconds of gaze for each frame, half of them before it begins. If None, a sample
    belongs to the frame shown at its time, so to one frame at most.
    """
    starts = np.asarray(starts, dtype=np.float64)
    times = gaze.seconds + ROUNDING
    if window is None:
        last = np.searchsorted(starts, times, side="right")
        first = np.where(times < end, last - 1, last).clip(0)
    else:
        first = np.searchsorted(starts, times - window / 2, side="right")
        last = np.searchsorted(starts, times + window / 2, side="right")
    counts = np.maximum(last - first, 0)
    sample = np.repeat(np.arange(len(times)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    frames = first[sample] + np.arange(len(sample)) - before + 1
    order = np.argsort(frames, kind="stable")
    sample, frames = sample[order], frames[order]
    return Fixations(
        frames, gaze.longitudes[sample], gaze.latitudes[sample], gaze.observers[sample]
    )
