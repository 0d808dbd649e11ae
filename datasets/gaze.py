"""Ground truth from fixations: counts in each pixel, and sums of Gaussians on the sphere.

Longitude and latitude are in radians, to the right of straight ahead and upwards, as in
projection/__init__.py. The standard deviation of the Gaussian differs between data sets and tools.
In degrees:

    9      360_Saliency_dataset_2018ECCV: π/20, cut off at π/7
           (data.py of its authors, xuyanyu-shh/Saliency-detection-in-360-video)
    7      PVS-HMEM (suppor_lib.py of YuhangSong/DHP)
    5      SST-Sal (issue 2 of edurnebernal/SST-Sal) and F.-Y. Chao et al.
           (code/saliency_estimate.py of cozcinar/360_Audio_Visual_ICMEW2020)
    3.34   panoramas of H. Duan et al. 2022 (calPanoSalMap.m of DuanHuiyu/ARSaliency), in the flat
           image, and to be chosen by application
    2      the Salient360! toolbox (--sal-gauss of David-Ef/salient360Toolbox)
"""

import math

import numpy as np
import torch
from torch import Tensor

from projection import sphere

SIGMAS = 0.5, 30.0  # degrees; a wider Gaussian has a cusp at the antipode
CUTOFF = 5.5  # sigmas beyond which the Gaussian is negligible: exp(−15) = 3e-7


def fixation_map(longitudes, latitudes, height: int, width: int) -> Tensor:
    """Return the number of fixations in each pixel: (H, W) float32.

    longitudes, latitudes: (N,) radians, N may be 0. Longitudes wrap. A direction on the border of
    two pixels belongs to the right or lower one, a pole to the adjacent row.
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
    """Return Σ weight · exp(−d² / 2σ²), where d is the great-circle distance to a fixation.

    longitudes, latitudes: (N,) radians, N may be 0.
    sigma: degrees, 0.5 to 30. weights: (N,), not negative; 1 if None.
    Returns (H, W) float32, not normalised, accurate to 2e-5 of its maximum.
    Raises ValueError for invalid directions, sizes, sigma or weights.
    """
    sphere.check_size(height, width)
    if not SIGMAS[0] <= sigma <= SIGMAS[1]:
        raise ValueError(f"sigma must be from {SIGMAS[0]} to {SIGMAS[1]} degrees, got {sigma}")
    longitude, latitude = _directions(longitudes, latitudes)
    weight = torch.ones_like(latitude) if weights is None else torch.as_tensor(weights).double()
    if weight.shape != latitude.shape or not ((weight >= 0) & weight.isfinite()).all():
        raise ValueError("weights must be one finite, non-negative number for each fixation")
    rows, columns = sphere.latitudes(height).numpy(), sphere.longitudes(width).numpy()
    sigma = math.radians(sigma)
    cutoff = min(CUTOFF * sigma, math.pi)
    total = np.zeros((height, width))
    for x, y, w in zip(longitude.tolist(), latitude.tolist(), weight.tolist()):
        # The haversine of the distance, for rows and columns that may be within the cutoff.
        nearby = np.flatnonzero(abs(rows - y) <= cutoff)
        along = np.sin((columns - x) / 2) ** 2
        scale = np.cos(rows[nearby]) * math.cos(y)
        beside = np.flatnonzero(scale.min(initial=1) * along <= math.sin(cutoff / 2) ** 2)
        up = np.sin((rows[nearby] - y) / 2) ** 2
        up, scale, along = (a.astype(np.float32) for a in (up, scale, along[beside]))
        haversine = up[:, None] + scale[:, None] * along
        angle = 2 * np.arcsin(np.sqrt(haversine.clip(max=1)))
        total[nearby[:, None], beside] += w * np.exp(angle**2 / (-2 * sigma**2))
    return torch.from_numpy(total).float()


def _directions(longitude, latitude) -> tuple[Tensor, Tensor]:
    """Return both as float64 (N,), the latitude clamped to ±π/2 against rounding."""
    longitude = torch.as_tensor(longitude, dtype=torch.float64)
    latitude = torch.as_tensor(latitude, dtype=torch.float64)
    if longitude.ndim != 1 or longitude.shape != latitude.shape:
        shapes = f"{tuple(longitude.shape)} and {tuple(latitude.shape)}"
        raise ValueError(f"longitudes and latitudes must be lists of equal length, got {shapes}")
    if not (longitude.isfinite().all() and (latitude.abs() <= math.pi / 2 + 1e-6).all()):
        raise ValueError("a longitude is not finite or a latitude is outside ±π/2 radians")
    return longitude, latitude.clamp(-math.pi / 2, math.pi / 2)
