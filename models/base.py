"""The interface of every saliency model, and what the scripts must know to feed one."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from video.motion import MOTIONS


@dataclass(frozen=True)
class Spec:
    """States what a model must be fed.

    A frame is decoded, resized to `height`×`width` by area averaging, sampled at `fps` and given
    the motion image called `motion`. Frames are put in clips of `clip_length`. A model with a
    memory needs the first `warm_up` frames of a clip to settle; successive clips overlap by that
    many frames and by `fade` more, over which the maps of one clip turn into those of the next.
    """

    height: int = 240
    width: int = 480
    fps: float = 8.0  # samples a second; a slower video is sampled at its own rate
    clip_length: int = 1  # frames that the model sees together
    warm_up: int = 0  # frames at the start of a clip whose maps are not used
    fade: int = 0  # frames after the warm-up over which two clips' maps are cross-faded
    motion: str = "none"  # a name in video.motion.MOTIONS


class SaliencyModel(nn.Module):
    """Predicts saliency maps of clips.

    A subclass sets `name` (its key in models.MODELS), calls this constructor with its Spec and
    the keyword arguments that build it again, and defines

        forward(frames, motion) -> maps
            frames: (B, T, 3, H, W), RGB in [0, 1]
            motion: (B, T, M, H, W), in [0, 1]; M = 0 for none
            maps:   (B, T, 1, H, W), non-negative
    """

    name: str
    # Parts that learn more slowly: factor of the learning rate by prefix of the parameter's name.
    learning_rate_scales: dict[str, float] = {}

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

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        raise NotImplementedError
