"""The model that a run trains, and its loss, as --model and other options describe them."""

import argparse
import inspect
from collections.abc import Callable
from dataclasses import replace

from torch import nn

import models
from common.errors import InputError, advice
from datasets.video_saliency import SaliencyVideos
from losses import LOSSES, find_loss
from models.checkpoint import read
from models.registry import find_model
from video.motion import MOTIONS, find_motion

BOOLEANS = {"true": True, "false": False}
PARSERS: dict[type, Callable] = {  # of values of --model_args, by the type of the default
    bool: lambda text: BOOLEANS[text.lower()],
    int: int,
    float: float,
    str: str,
    type(None): lambda text: BOOLEANS.get(text.lower()) if text.lower() in BOOLEANS else int(text),
}


def make_model(args: argparse.Namespace) -> models.SaliencyModel:
    """Build the model, with random weights or those of --init; sets args.loss if it is not given.

    Raises InputError for arguments that the model does not take. An error in the code of a
    user-defined model is not caught.
    """
    kind = find_model(args.model)
    find_motion(args.motion or "none")
    find_loss(args.loss or args.defaults["loss"])
    defaults = {n: parameter.default for n, parameter in inspect.signature(kind).parameters.items()}
    arguments = parse_arguments(args, defaults)
    if args.init:
        model = models.load(args.init, **arguments)
    else:
        variant = kind.arguments_for(MOTIONS[args.motion].channels) if args.motion else {}
        arguments = {name: variant[name] for name in variant if name in defaults} | arguments
        try:
            model = kind(**arguments)
        except ValueError as error:
            if ":" in args.model:
                raise
            raise InputError(f"--model_args {arguments}: {error}; change it") from error
    if model.name != kind.name:
        raise InputError(f"{args.init}: a {model.name}; give --model {model.name}")
    if differing := defaults.keys() ^ model.arguments.keys():
        both = "its constructor and super().__init__(spec, …), by which a checkpoint builds it"
        problem = f"'{min(differing)}' is not among the arguments of both {both}"
        raise InputError(f"--model {args.model}: {problem}; give it to both")
    with advice(f"--motion {args.motion}"):
        model.use_motion(args.motion)
    fps = args.model_fps or args.defaults["model_fps"] or model.spec.fps
    model.spec = replace(model.spec, fps=fps)
    stored = read(args.init)["run"].get("loss") if args.init and not args.loss else None
    if ":" in str(stored) and stored not in LOSSES:
        raise InputError(f"{args.init}: its loss is {str(stored)[:100]!r}; give --loss again")
    args.loss = args.loss or (stored if stored in LOSSES else args.defaults["loss"])
    return model.train()


def make_loss(args: argparse.Namespace, data: dict[str, SaliencyVideos]) -> nn.Module:
    """Build the loss of a run, which has no weights of its own to learn.

    Raises InputError where it has some, and where it needs fixations that are not there.
    """
    kind, spec = find_loss(args.loss), data["train"].spec
    if kind.needs_fixations:
        clips = [(clip, part.fixations.of(clip)) for part in data.values() for clip in part.clips]
        problems = [f"{args.data_root}: clip {clip} has no" for clip, found in clips if not found]
        if problems or "tilt" in args.augment:
            problem = [*problems, "--augment tilt: drops the"][0]
            raise InputError(
                f"{problem} fixations, which --loss {args.loss} needs; give another --loss"
            )
    loss = kind(spec.height, spec.width)
    if learned := [name for name, weight in loss.named_parameters() if weight.requires_grad]:
        problem = f"'{learned[0]}' would not be trained, only the model is"
        raise InputError(f"--loss {args.loss}: {problem}; call requires_grad_(False) on it")
    return loss


def parse_arguments(args: argparse.Namespace, defaults: dict) -> dict:
    """Return what --model_args and, without --init, the recipe give, for names in `defaults`."""
    arguments = {}
    for text in ([] if args.init else args.defaults["model_args"]) + args.model_args:
        name, _, value = text.partition("=")
        try:
            arguments[name] = PARSERS[type(defaults[name])](value)
        except (KeyError, ValueError) as error:
            takes = " ".join(f"{other}={default}" for other, default in defaults.items())
            message = f"--model_args {text}: {args.model} takes {takes}; change it"
            raise InputError(message) from error
    return arguments
