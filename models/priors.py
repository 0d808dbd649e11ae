"""The floor that every model must beat: where people look when nothing is known of the video.

The density and its source are in projection/gaze_prior.py.
"""

from torch import Tensor

from models.base import SaliencyModel, Spec
from projection.gaze_prior import gaze_density


def equator_prior(height: int, width: int) -> Tensor:
    """The prior as a saliency map: (H, W) float32, positive, maximum 1."""
    density = gaze_density(height, width)
    return (density / density.max()).float()


class EquatorPrior(SaliencyModel):
    """The same map for every frame, whatever it shows. Has no weights; nothing to train."""

    name = "equator"

    def __init__(self, height: int = 240, width: int = 480):
        super().__init__(Spec(height=height, width=width), height=height, width=width)
        self.register_buffer("prior", equator_prior(height, width), persistent=False)

    @classmethod
    def arguments_for(cls, motion_channels: int) -> dict:
        return {}

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        """frames (B, T, 3, H, W) of any size, motion ignored → (B, T, 1, H, W) float32."""
        size, prior = frames.shape[-2:], self.prior
        if prior.shape != size:
            prior = equator_prior(*size).to(frames.device)
        return prior.repeat(*frames.shape[:2], 1, 1, 1)
