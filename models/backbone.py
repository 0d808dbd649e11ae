"""The backbones of CubeUNet: networks from cube faces to features, chosen by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Head:
    """From features to a map: one convolution and a sigmoid."""

    bias: float | None = -3.0  # of the convolution at first: maps are dark; None: PyTorch's own
    projects_probabilities: bool = False  # from the faces to the sphere; otherwise their logits
    latitude_bias: bool = True  # whether it is added to the logits, unless the model says so


@dataclass(frozen=True)
class Backbone:
    """A network from cube faces to features, and all that CubeUNet knows of it.

    build: called with in_channels, base_channels and padding, a function of the number of pixels
        that returns the layer to pad faces with: CubePadding or what it is compared to. Returns a
        module (B·6, in_channels, S, S) → (B·6, channels, S/stride, S/stride).
    """

    build: Callable[[int, int, Callable[..., nn.Module]], nn.Module]
    channels: int | None = None  # of the features; None: base_channels
    stride: int = 1
    faces: tuple[int, int] = (1, 1)  # pixels: smallest face, and step to the next that it takes
    learning_rate_scales: Mapping[str, float] = field(default_factory=dict)  # by parameters' prefix
    motion: str = "difference"  # that makes the fourth of four input channels
    head: Head = Head()
