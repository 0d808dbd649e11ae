"""The model and loss of a training run, built from --model and other options."""

import inspect
from collections.abc import Callable
from pathlib import Path

from torch import nn

import models
from common.components import LOSSES, MODELS, MOTIONS
from common.errors import InputError, advice
from datasets.video_saliency import SaliencyVideos

BOOLEANS = {"true": True, "false": False}
PARSERS: dict[type, Callable] = {  # for values of --model_args, by the type of the default
    bool: lambda text: BOOLEANS[text.lower()],
    int: int,
    float: float,
    str: str,
    type(None): lambda text: BOOLEANS.get(text.lower()) if text.lower() in BOOLEANS else int(text),
}


def make_model(
    name: str, model_args: list[str], init: Path | None, motion: str | None
) -> models.SaliencyModel:
    """Build a model for training, with random weights or those of a checkpoint.

    Arguments are options of train_video.py; invalid ones raise InputError. Errors in the code of a
    user-defined model are not caught.
    """
    kind = MODELS.find(name)
    defaults = {n: parameter.default for n, parameter in inspect.signature(kind).parameters.items()}
    arguments = parse_arguments(name, model_args, defaults)
    for argument in kind.components.keys() & arguments.keys():
        kind.components[argument].find(arguments[argument])
    if init:
        model = models.load(init, **arguments)
    else:
        variant = kind.arguments_for(MOTIONS[motion].channels) if motion else {}
        arguments = {name: variant[name] for name in variant if name in defaults} | arguments
        try:
            model = kind(**arguments)
        except ValueError as error:
            if ":" in name:
                raise
            raise InputError(f"--model_args {arguments}: {error}; change it") from error
    if model.name != kind.name:
        raise InputError(f"{init}: a {model.name}; give --model {model.name}")
    if differing := defaults.keys() ^ model.arguments.keys():
        both = "its constructor and super().__init__(spec, …), so a checkpoint can't restore it"
        problem = f"'{min(differing)}' is not among the arguments of both {both}"
        raise InputError(f"--model {name}: {problem}; give it to both")
    with advice(f"--motion {motion}"):
        model.use_motion(motion)
    return model.train()


def parse_arguments(model: str, texts: list[str], defaults: dict) -> dict:
    """Return the arguments in texts such as height=120, with the types of the defaults."""
    arguments = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            arguments[name] = PARSERS[type(defaults[name])](value)
        except (KeyError, ValueError) as error:
            takes = " ".join(f"{other}={default}" for other, default in defaults.items())
            message = f"--model_args {text}: {model} takes {takes}; change it"
            raise InputError(message) from error
    return arguments


def make_loss(name: str, data: dict[str, SaliencyVideos], augment: list[str]) -> nn.Module:
    """Build the loss; missing fixations and trainable weights of its own raise InputError."""
    kind, spec, root = LOSSES[name], data["train"].spec, data["train"].root
    if kind.needs_fixations:
        clips = [(clip, part.fixations.of(clip)) for part in data.values() for clip in part.clips]
        problems = [f"{root}: clip {clip} has no" for clip, found in clips if not found]
        if problems or "tilt" in augment:
            problem = [*problems, "--augment tilt: drops the"][0]
            raise InputError(f"{problem} fixations, which --loss {name} needs; give another --loss")
    loss = kind(spec.height, spec.width)
    if learned := [weight for weight, w in loss.named_parameters() if w.requires_grad]:
        problem = f"'{learned[0]}' would not be trained, only the model"
        raise InputError(f"--loss {name}: {problem}; call requires_grad_(False) on it")
    return loss
