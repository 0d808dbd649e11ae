"""What every saliency model is, and what the scripts must know about one."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Spec:
    """How a model wants to be fed and trained; defaults of the scripts' options.

    Flow of a frame: decoded, resized to `height`×`width` by area averaging, sampled at `fps`,
    given the motion image called `motion`, then put in clips of `clip_length` frames. Models
    with a memory need the first `warm_up` frames of a clip to settle; successive clips overlap
    by that much and by `fade` frames more, over which one's maps turn into the next one's.
    """

    height: int = 240
    width: int = 480
    fps: float = 8.0  # samples a second; each frame of a slower video is one sample
    clip_length: int = 1  # frames the model sees together
    warm_up: int = 0  # frames at the start of a clip whose maps are not used
    fade: int = 0  # frames that two clips share after the warm-up, their maps cross-faded
    motion: str = "none"  # a name in video.motion.MOTIONS
    loss: str = "smse"  # a name in losses.LOSSES
    optimizer: str = "sgd"
    schedule: str = "constant"  # of the learning rate
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 2  # clips
    epochs: int = 10
    skip_frames: int = 0  # at the start of each clip that are not trained on


class SaliencyModel(nn.Module):
    """Predicts saliency maps of clips.

    Subclasses set `name` (their key in models.MODELS), call this constructor with their Spec
    and the keyword arguments that build them again, and define

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
        """The keyword arguments of the variant that takes so many channels of motion."""
        return {"in_channels": 3 + motion_channels}

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        raise NotImplementedError
