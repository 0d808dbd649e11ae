"""The interface of every saliency model, and what the scripts must know to feed one."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from video.motion import MOTIONS

LARGEST = 8192  # pixels along a side of the frames that models take


def check_number(name: str, value: object, least: int, most: int) -> None:
    """Raise ValueError unless a value is a whole number within limits."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} is a whole number from {least} to {most}, got {value!r}")


@dataclass(frozen=True)
class Spec:
    """States what a model must be fed.

    A frame is decoded, resized to `height`×`width` by area averaging, sampled at `fps` and given
    the motion image called `motion`. Frames are put in clips of `clip_length`. A model with a
    memory needs the first `warm_up` frames of a clip to settle; successive clips overlap by that
    many frames and by `fade` more, over which the maps of one clip turn into those of the next.
    The maps of a model of single frames can be made steadier: the map of a frame is then the mean
    over the frames at most `smoothing` seconds before and after it, see models.predict.
    """

    height: int = 240
    width: int = 480
    fps: float = 8.0  # samples a second; a slower video is sampled at its own rate
    clip_length: int = 1  # frames that the model sees together
    warm_up: int = 0  # frames at the start of a clip whose maps are not used
    fade: int = 0  # frames after the warm-up over which two clips' maps are cross-faded
    motion: str = "none"  # a name in video.motion.MOTIONS
    smoothing: float = 0.0  # seconds before and after a frame

    def __post_init__(self):
        for name in ("height", "width", "clip_length", "warm_up", "fade"):
            check_number(name, getattr(self, name), int(name not in ("warm_up", "fade")), LARGEST)
        if not isinstance(self.fps, (int, float)) or not 0 < self.fps <= 1000:
            raise ValueError(f"fps is more than 0 and at most 1000, got {self.fps!r}")
        if self.warm_up + self.fade >= self.clip_length:
            raise ValueError("warm_up and fade together are less than clip_length")
        if not isinstance(self.smoothing, (int, float)) or not 0 <= self.smoothing <= 10:
            raise ValueError(f"smoothing is from 0 to 10 seconds, got {self.smoothing!r}")
        if self.smoothing and self.clip_length > 1:
            raise ValueError("smoothing is for models of single frames: clip_length 1")
        if not isinstance(self.motion, str) or self.motion not in MOTIONS:
            raise ValueError(f"motion is one of {', '.join(MOTIONS)}, got {self.motion!r}")


class SaliencyModel(nn.Module):
    """Predicts saliency maps of clips.

    A subclass sets `name` (its key in models.MODELS), calls this constructor with its Spec and
    the keyword arguments that build it again, and defines (see docs/own_model.md)

        forward(frames, motion) -> maps
            frames: (B, T, 3, H, W), RGB in [0, 1]
            motion: (B, T, M, H, W), in [0, 1]; M = 0 for none
            maps:   (B, T, 1, H, W), non-negative
    """

    name: str
    # Parts that learn more slowly: factor of the learning rate by prefix of the parameter's name.
    learning_rate_scales: dict[str, float] = {}
    # Whether several threads may call the model at once.
    parallel = False

    def __init__(self, spec: Spec, **arguments):
        super().__init__()
        self.spec = spec
        self.arguments = arguments

    @classmethod
    def arguments_for(cls, motion_channels: int) -> dict:
        """Return the keyword arguments of the variant for this number of motion channels."""
        return {"in_channels": 3 + motion_channels}

    def use_motion(self, name: str | None) -> None:
        """Set another motion image for the model; None keeps its own.

        Raises ValueError where that image has another number of channels.
        """
        if name is None:
            return
        new, own = MOTIONS[name].channels, MOTIONS[self.spec.motion].channels
        if new != own:
            fitting = [other for other in MOTIONS if MOTIONS[other].channels == own]
            raise ValueError(
                f"motion '{name}' has {new} channels, but this model takes {own}; choose "
                f"{' or '.join(fitting)}"
            )
        self.spec = replace(self.spec, motion=name)

    def parameter_groups(self) -> list[dict]:
        """Return the trainable parameters as an optimizer takes them, grouped by "scale".

        The scale is the factor of the learning rate in learning_rate_scales.
        """
        groups: dict[float, list] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                scales = self.learning_rate_scales.items()
                scale = next((s for prefix, s in scales if name.startswith(prefix)), 1.0)
                groups.setdefault(scale, []).append(parameter)
        return [{"params": parameters, "scale": scale} for scale, parameters in groups.items()]

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        raise NotImplementedError
