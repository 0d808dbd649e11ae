"""Fixations as ground truth: counts in each pixel, and a Gaussian on the sphere around each.

Directions are longitude and latitude in radians as in projection/__init__.py: to the right of
straight ahead, and upwards. The standard deviation of the Gaussian differs between data sets and
tools. In degrees:

    9      360_Saliency_dataset_2018ECCV: π/20, cut off at π/7
           (data.py of its authors, xuyanyu-shh/Saliency-detection-in-360-video)
    5      SST-Sal (issue 2 of edurnebernal/SST-Sal) and F.-Y. Chao et al.
           (code/saliency_estimate.py of cozcinar/360_Audio_Visual_ICMEW2020)
    3.34   panoramas of H. Duan et al. 2022 (calPanoSalMap.m of DuanHuiyu/ARSaliency), there on
           the flat image and with the advice to choose it by application
    2      the Salient360! toolbox (--sal-gauss of David-Ef/salient360Toolbox)
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from projection import sphere

SIGMAS = 0.5, 30.0  # degrees; a wider Gaussian has a cusp at the antipode
# Accuracy of gaussian_map:
STEPS = 3  # tabulated latitudes within one sigma
ORDER = 10  # tabulated latitudes that carry one fixation: error 5e-6 of the Gaussian's height
CUTOFF = 5.5  # sigmas of latitude beyond which the Gaussian is 0: exp(−15) = 3e-7
BANDWIDTH = 5.0  # highest frequency in longitude times sigma: the rest sums to 6e-7
CHUNK = 8192  # fixations summed at once, which bounds the memory


def fixation_map(longitudes, latitudes, height: int, width: int) -> Tensor:
    """Return the number of fixations in each pixel: (H, W) float32.

    longitudes, latitudes: (N,) radians, N may be 0. Longitudes wrap. A direction on the border
    of two pixels belongs to the one to its right or below, a pole to the row that touches it.
    Raises ValueError for invalid directions or sizes.
    """
    sphere.check_size(height, width)
    longitude, latitude = _directions(longitudes, latitudes)
    column = ((longitude + math.pi) * width / (2 * math.pi)).floor().long() % width
    row = ((math.pi / 2 - latitude) * height / math.pi).floor().long().clamp(0, height - 1)
    counts = torch.bincount(row * width + column, minlength=height * width)
    return counts.view(height, width).float()


def gaussian_map(
    longitudes, latitudes, height: int, width: int, sigma: float, weights=None
) -> Tensor:
    """Return Σ weight · exp(−d² / 2σ²), d the great-circle distance of a pixel and a fixation.

    longitudes, latitudes: (N,) radians, N may be 0.
    sigma: degrees, 0.5 to 30. weights: (N,), not negative; 1 if None.
    Returns (H, W) float32, not normalised, accurate to 2e-5 of its maximum.
    Raises ValueError for invalid directions, sizes, sigma or weights.

    Much faster than a loop over fixations (benchmarks/gaze.py), see `_Gaussian`.
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
    return _gaussian(height, width, float(sigma)).sum(longitude, latitude, weight)


class _Gaussian:
    """Sums of Gaussians of one sigma on one image grid, by series in longitude.

    A fixation at (λ', φ') adds to row i an even function of the difference of longitudes,
    Σ_m K[i, φ', m] cos m(λ − λ'). The coefficients K are tabulated for a grid of latitudes φ'.
    Lagrange interpolation spreads each fixation over the nearest of these latitudes, its longitude
    being exact. The sum over m is a product with the cosines and sines of the columns.

    The grid continues beyond the poles, where latitude π/2 + x at longitude λ means π/2 − x at
    λ + π, as the formulas for a direction have it.
    """

    def __init__(self, height: int, width: int, sigma_degrees: float):
        sigma = math.radians(sigma_degrees)
        intervals = math.ceil(math.pi * STEPS / sigma)  # the poles are on the grid
        nearest = math.ceil(CUTOFF * STEPS)  # latitudes on each side of a row that count
        self.step = math.pi / intervals
        self.margin = nearest + ORDER  # latitudes beyond each pole
        self.size = intervals + 1 + 2 * self.margin
        self.frequencies = math.ceil(BANDWIDTH / sigma) + 1
        # The cosine series of an even function from its values in the middle of equal intervals.
        frequency = torch.arange(self.frequencies, dtype=torch.float64)
        middle = (frequency + 0.5) * math.pi / self.frequencies
        analysis = torch.cos(middle[:, None] * frequency) * 2 / self.frequencies
        analysis[:, 0] /= 2
        row = sphere.latitudes(height)
        self.first = self.position(row).floor().long() - nearest + 1  # first latitude of each row
        self.coefficients = torch.empty(2 * nearest, height, 1, self.frequencies)
        for offset in range(2 * nearest):
            source = (self.first + offset - self.margin).double() * self.step - math.pi / 2
            cosine = (row.cos() * source.cos())[:, None] * middle.cos()
            cosine += (row.sin() * source.sin())[:, None]
            angle = cosine.clamp(-1, 1).acos()
            self.coefficients[offset, :, 0] = torch.exp(-(angle**2) / (2 * sigma**2)) @ analysis
        self.columns = self.waves(sphere.longitudes(width)).T.contiguous()

    def sum(self, longitude: Tensor, latitude: Tensor, weight: Tensor) -> Tensor:
        """Return the weighted sum of N Gaussians: (H, W) float32."""
        chunks = (values.split(CHUNK) for values in (longitude, latitude, weight))
        sources = sum(
            (self.spread(lat, w) @ self.waves(lon) for lon, lat, w in zip(*chunks, strict=True)),
            torch.zeros(()),
        ).unflatten(1, (2, -1))  # (latitudes, cosine and sine, frequencies)
        rows = sources.new_zeros(len(self.first), *sources.shape[1:])
        for offset, coefficients in enumerate(self.coefficients):
            rows.addcmul_(coefficients, sources[self.first + offset])
        return (rows.flatten(1) @ self.columns).clamp_(min=0)

    def position(self, latitude: Tensor) -> Tensor:
        """Return the position of latitudes on the grid, with its fraction."""
        return (latitude + math.pi / 2) / self.step + self.margin

    def spread(self, latitude: Tensor, weight: Tensor) -> Tensor:
        """Return the Lagrange weights of N latitudes times `weight`: (latitudes, N) float32."""
        position = self.position(latitude)
        below = position.floor()
        nodes = torch.arange(ORDER, dtype=torch.float64) - (ORDER // 2 - 1)
        powers = torch.arange(ORDER)
        polynomials = torch.linalg.inv(nodes[:, None] ** powers)  # one column for each node
        lagrange = (position - below)[:, None] ** powers @ polynomials * weight[:, None]
        index = (below[:, None] + nodes).long()
        spread = torch.zeros(self.size, len(latitude), dtype=torch.float32)
        return spread.scatter_(0, index.T, lagrange.T.float())

    def waves(self, longitude: Tensor) -> Tensor:
        """Return cos mλ and sin mλ for all frequencies m: (N, 2 · frequencies) float32."""
        turns = longitude[:, None] / (2 * math.pi) * torch.arange(self.frequencies)
        phase = ((turns - turns.round()) * (2 * math.pi)).float()  # small enough for float32
        return torch.cat([phase.cos(), phase.sin()], dim=1)


_gaussian = lru_cache(maxsize=4)(_Gaussian)


def _directions(longitude, latitude) -> tuple[Tensor, Tensor]:
    """Return both as float64 (N,), the latitude clamped to ±π/2 against rounding."""
    longitude = torch.as_tensor(longitude, dtype=torch.float64)
    latitude = torch.as_tensor(latitude, dtype=torch.float64)
    if longitude.ndim != 1 or longitude.shape != latitude.shape:
        shapes = f"{tuple(longitude.shape)} and {tuple(latitude.shape)}"
        raise ValueError(f"longitudes and latitudes must be lists of one length, got {shapes}")
    if not (longitude.isfinite().all() and (latitude.abs() <= math.pi / 2 + 1e-6).all()):
        raise ValueError("a longitude is not finite or a latitude is outside ±π/2 radians")
    return longitude, latitude.clamp(-math.pi / 2, math.pi / 2)
