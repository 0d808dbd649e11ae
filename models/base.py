"""The interface of every saliency model."""

import inspect
from dataclasses import replace

from torch import Tensor, nn

from common.components import MOTIONS, Components
from video.spec import Spec

PLAIN = (bool, int, float, str, type(None))  # types of model arguments in a checkpoint


class SaliencyModel(nn.Module):
    """Predict saliency maps of clips.

    A subclass sets `name` (its key in models.MODELS, or "module:Class"), calls this constructor
    with its Spec and all its own arguments, and defines (docs/own_model.md)

        forward(frames, motion) -> maps
            frames: (B, T, 3, H, W), RGB in [0, 1]
            motion: (B, T, M, H, W), in [0, 1]; M = 0 for none
            maps:   (B, T, 1, H, W), non-negative
    """

    name: str
    # Learning-rate scale by prefix of the parameter's name.
    learning_rate_scales: dict[str, float] = {}
    # Whether several threads may call the model at the same time.
    parallel = False
    # Scale of the frames' height and width by name of the quality; see models.load.
    qualities: dict[str, float] = {}
    # Arguments that name components.
    components: dict[str, Components] = {}

    def __init_subclass__(cls, **arguments) -> None:
        super().__init_subclass__(**arguments)
        if "name" not in vars(cls):
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

    def __init__(self, spec: Spec, **arguments):
        super().__init__()
        self.spec = spec
        self.arguments = arguments

    @classmethod
    def problem(cls) -> str:
        """Return the problem of a user-defined model, "" if a checkpoint can restore it."""
        for argument in inspect.signature(cls).parameters.values():
            if not isinstance(argument.default, PLAIN):
                defaults = "a default: a number, a string, True, False or None"
                return f"its constructor takes '{argument}'; give it {defaults}"
        return ""

    @classmethod
    def arguments_for(cls, motion_channels: int) -> dict:
        """Return the keyword arguments for this number of motion channels."""
        return {"in_channels": 3 + motion_channels}

    def use_motion(self, name: str | None) -> None:
        """Use another motion image with the same number of channels; None: no change."""
        if name is None:
            return
        new, own = MOTIONS[name].channels, MOTIONS[self.spec.motion].channels
        if new != own:
            choice = " or ".join(other for other in MOTIONS if MOTIONS[other].channels == own)
            takes = f"{new} channels, but this model takes {own}"
            raise ValueError(f"motion '{name}' has {takes}; choose {choice}")
        self.spec = replace(self.spec, motion=name)

    def parameter_groups(self) -> list[dict]:
        """Return the trainable parameters, grouped by "scale", their learning-rate scale."""
        groups: dict[float, list] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                scales = self.learning_rate_scales.items()
                scale = next((s for prefix, s in scales if name.startswith(prefix)), 1.0)
                groups.setdefault(scale, []).append(parameter)
        return [{"params": parameters, "scale": scale} for scale, parameters in groups.items()]

    def forward(self, frames: Tensor, motion: Tensor) -> Tensor:
        raise NotImplementedError
