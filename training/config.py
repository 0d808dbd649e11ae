"""Configuration of a training run, resolved once from options, recipe and checkpoint."""

import argparse
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from common.components import LOSSES, find_all
from common.devices import choose_device, choose_precision
from common.errors import InputError
from datasets.augment import possible
from models import SaliencyModel
from models.checkpoint import read
from training.model import make_model


@dataclass(frozen=True)
class Training:
    """Options that determine the weights, apart from model and data."""

    epochs: int
    samples: int
    batch_size: int
    skip_frames: int
    loss: str
    optimizer: str
    learning_rate: float
    schedule: str
    momentum: float
    weight_decay: float
    clip_gradient: float
    ema: float
    augment: list[str]
    seed: int
    accumulate: int


@dataclass(frozen=True)
class Config(Training):
    """Configuration of a training run, apart from its model."""

    model: str
    init: Path | None
    data_root: Path
    fps: Fraction | None
    resume: str
    save_minutes: float
    dry_run: bool
    device: torch.device
    precision: torch.dtype
    workers: int | None
    compile: bool

    def identity(self) -> dict[str, Any]:
        """Return the options that determine the weights."""
        return {field.name: getattr(self, field.name) for field in fields(Training)}


def resolve(args: argparse.Namespace, recipe: dict[str, Any]) -> tuple[Config, SaliencyModel]:
    """Return a run's configuration and initial model. recipe: defaults of the options."""
    find_all(args)
    device = choose_device(args.device)
    torch.manual_seed(args.seed)
    model_args = ([] if args.init else recipe["model_args"]) + args.model_args
    model = make_model(args.model, model_args, args.init, args.motion)
    fps = args.model_fps or recipe["model_fps"] or model.spec.fps
    model.spec = replace(model.spec, fps=fps)
    stored = read(args.init)["run"].get("loss") if args.init and not args.loss else None
    if ":" in str(stored) and stored not in LOSSES:
        raise InputError(f"{args.init}: its loss is {str(stored)[:100]!r}; give --loss again")
    resolved = vars(args) | {
        "loss": args.loss or (stored if stored in LOSSES else recipe["loss"]),
        "augment": args.augment,
        "device": device,
        "precision": choose_precision(args.precision, device),
    }
    if args.augment is None:
        resolved["augment"] = possible(recipe["augment"], model.spec.motion)
    if args.dry_run:
        resolved |= {"epochs": 1, "samples": args.batch_size, "resume": "no"}
    return Config(**{field.name: resolved[field.name] for field in fields(Config)}), model
