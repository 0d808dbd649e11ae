"""The backbones of CubeUNet: networks from cube faces to features, chosen by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Head:
    """Output layer from features to a map: one convolution and a sigmoid."""

    bias: float | None = -3.0  # initial bias of the convolution, for dark maps; None: PyTorch's
    projects_probabilities: bool = False  # from the faces to the sphere, instead of logits
    latitude_bias: bool = True  # default of CubeUNet's argument


@dataclass(frozen=True)
class Backbone:
    """A network from cube faces to features, with the properties that CubeUNet needs to know.

    build: function of in_channels, base_channels and padding that returns a module (B·6,
        in_channels, S, S) → (B·6, channels, S/stride, S/stride). padding(p) makes the layer that
        pads faces by p pixels: CubePadding, or another one for comparison.
    """

    build: Callable[[int, int, Callable[..., nn.Module]], nn.Module]
    channels: int | None = None  # of the features; None: base_channels
    stride: int = 1
    faces: tuple[int, int] = (1, 1)  # smallest face size, and step between sizes, in pixels
    learning_rate_scales: Mapping[str, float] = field(default_factory=dict)  # by parameter prefix
    motion: str = "difference"  # default motion image for four input channels
    head: Head = Head()
