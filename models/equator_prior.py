"""The equator prior: the distribution of gaze on the sphere over all videos.

Head directions after the first ten seconds of 28 360° videos (30 people each; Nasrabadi et al., "A
taxonomy and dataset for 360° videos", MMSys 2019) follow the density per steradian

    p(φ, λ) = f(sin φ) · g(λ)
    f(y) = 1 / (2 s atan(1/s)) · 1 / (1 + (y/s)²)                     Cauchy, cut off at the poles
    g(λ) = 1 / 2π · (1 − w + w (1 − ρ²) / (1 + ρ² − 2ρ cos λ))        uniform and wrapped Cauchy

with latitude φ and longitude λ. `python -m recipes.head_prior FILE` fits the three numbers.

The density of gaze is that of head directions, blurred along latitude and longitude by a Gaussian
of EYE_SPREAD for the directions of the eyes in the head.
"""

import math

import torch
from torch import Tensor

from models.base import SaliencyModel
from projection.sphere import latitudes, longitudes, solid_angles
from video.spec import Spec

LATITUDE_WIDTH = 0.123  # s, sine of the latitude at which the head's density is half its maximum
FRONT_SHARE = 0.566  # w, share of directions that cluster around straight ahead
CONCENTRATION = 0.626  # ρ, mean cos λ of these: 0 uniform, 1 all straight ahead
EYE_SPREAD = math.radians(11)  # on each axis, not fitted; a mean of 14° between gaze and head


def head_density(latitude: Tensor, longitude: Tensor) -> Tensor:
    """Return the density per steradian of head directions; radians that broadcast."""
    s, w, r = LATITUDE_WIDTH, FRONT_SHARE, CONCENTRATION
    across = 1 / (1 + (latitude.sin() / s).square()) / (2 * s * math.atan(1 / s))
    front = (1 - r**2) / (1 + r**2 - 2 * r * longitude.cos())
    return across * (1 - w + w * front) / (2 * math.pi)


def gaze_density(height: int, width: int) -> Tensor:
    """Return the density per steradian of gaze directions at pixel centres: (H, W) float64.

    Its integral over the sphere is 1. With one column, it is the density over latitude alone.
    """
    areas = solid_angles(height, width, torch.float64)
    steps = torch.linspace(-4, 4, 33, dtype=torch.float64)
    weights = torch.softmax(-steps.square() / 2, 0)
    straight_ahead = torch.zeros((), dtype=torch.float64)
    around_latitude = latitudes(height)[:, None] + EYE_SPREAD * steps
    across = head_density(around_latitude, straight_ahead) @ weights
    density = across[:, None] * longitude_density(width)
    return density / (areas * density).sum()


def longitude_density(width: int) -> Tensor:
    """Return the density of gaze over longitude, in units of its mean: (W,) float64."""
    # The wrapped Cauchy is 1 + 2 Σ ρⁿ cos nλ; a Gaussian blur scales cos nλ by exp(−n²σ²/2).
    n = torch.arange(1, 25, dtype=torch.float64)[:, None]
    scale = CONCENTRATION**n * (-(n * EYE_SPREAD).square() / 2).exp()
    return 1 + 2 * FRONT_SHARE * (scale * (n * longitudes(width)).cos()).sum(0)


def equator_prior(height: int, width: int) -> Tensor:
    """Return the prior as a saliency map: (H, W) float32, positive, maximum 1."""
    density = gaze_density(height, width)
    return (density / density.max()).float()


class EquatorPrior(SaliencyModel):
    """A baseline that every model must beat: the same map for every frame.

    forward: frames (B, T, 3, H, W) of any size; motion is ignored → (B, T, 1, H, W) float32.
    """

    name = "equator"
    prior: Tensor

    def __init__(self, height: int = 240, width: int = 480):
        super().__init__(Spec(height=height, width=width), height=height, width=width)
        self.register_buffer("prior", equator_prior(height, width), persistent=False)

    @classmethod
    def arguments_for(cls, motion_channels: int) -> dict:
        return {}

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        size = frames.shape[-2:]
        prior = self.prior if self.prior.shape == size else equator_prior(*size).to(frames.device)
        return prior.repeat(*frames.shape[:2], 1, 1, 1)
