"""Components chosen by name: built-in ones, and user-defined ones as "package.module:NAME".

A component is a class that declares what it needs, or an instance of such a class. To add one to
this project, add a line here.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from common.errors import InputError, show_tracebacks

PACKAGE = __name__.removesuffix("common.components")  # prefix of the installed packages


class Components(Mapping[str, Any]):
    """Components of one kind by name, in the order in which they were added.

    noun: the kind, for messages. base: "module:Class"; each component is a subclass of it or, if
    it is a dataclass, an instance. known: "module:NAME" by name, imported at first use.
    """

    def __init__(self, noun: str, base: str, **known: str):
        self.noun, self.base, self.known = noun, base, dict[str, Any](known)

    def __getitem__(self, name: str) -> Any:
        if isinstance(place := self.known[name], str):
            self.known[name] = _imported(PACKAGE + place)
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)

    def find(self, name: str) -> Any:
        """Return the component of a name, or import and register a user-defined module:NAME.

        The current folder is searched last. From then on, scripts show tracebacks of unexpected
        errors. Raises InputError if it is not a valid component of this kind.
        """
        if name in self:
            return self[name]
        if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
            others = f"{', '.join(self)} or your own as package.module:NAME"
            raise InputError(f"no {self.noun} '{name}'; give {others}")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        show_tracebacks()
        try:
            own = _imported(name)
        except ModuleNotFoundError as error:
            message = f"{name}: there is no module '{error.name}'; check the name or install it"
            raise InputError(message) from error
        base = _imported(PACKAGE + self.base)
        made, is_type = is_dataclass(base), isinstance(own, type)
        if not (isinstance(own, base) if made else is_type and issubclass(own, base)):
            wanted = f"{'an instance' if made else 'a subclass'} of {self.base}"
            raise InputError(f"{name}: not {wanted.replace(':', '.')}; check the name")
        if problem := own.problem() if hasattr(own, "problem") else "":
            raise InputError(f"{name}: {problem}")
        own_name = getattr(own, "name", name)
        self.known.setdefault(own_name, own)
        if self[own_name] is not own:
            raise InputError(f"{name}: another {self.noun} is named '{own_name}'; rename this one")
        return own


def _imported(place: str) -> Any:
    """Return the object "module:NAME", None if the module has no such name."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name, None)


MODELS = Components(
    "model",
    "models:SaliencyModel",
    cube_unet="models.cube_unet:CubeUNet",
    sst_sal="models.sst_sal:SSTSal",
    equator="models.equator_prior:EquatorPrior",
)
BACKBONES = Components(  # of cube_unet
    "backbone",
    "models.backbone:Backbone",
    plain="models.unet:PLAIN",
    published="models.unet:PUBLISHED",
    efficientnet_lite0="models.efficientnet_lite:EFFICIENTNET_LITE0",
)
LOSSES = Components(
    "loss",
    "losses:MapLoss",
    smse="losses.smse:SMSE",
    mse="losses.smse:MSE",
    density="losses.density:DensityLoss",
    spherical_kl="losses.spherical_kl:ScaledSphericalKLDivergence",
)
MOTIONS = Components(
    "motion",
    "video.motion:Motion",
    none="video.motion:NoMotion",
    difference="video.motion:Difference",
    steady_difference="video.motion:SteadyDifference",
    colour_difference="video.motion:ColourDifference",
    dis="video.motion:DISFlow",
    raft="video.motion:RAFTFlow",
)
LAYOUTS = Components(  # of data sets; the last match is used
    "layout",
    "datasets.layouts:ECCV2018Layout",
    eccv2018="datasets.layouts:ECCV2018Layout",
    packed="datasets.layouts:PackedLayout",
    sst_sal="datasets.layouts:SSTSalLayout",
)
AUGMENTATIONS = Components(  # in the order of application
    "augmentation",
    "datasets.augment:Augmentation",
    yaw="datasets.augment:yaw",
    mirror="datasets.augment:mirror",
    tilt="datasets.augment:tilt",
    light="datasets.augment:light",
)
METRICS = Components(
    "metric",
    "metrics:Metric",
    cc="metrics.saliency:CC",
    sim="metrics.saliency:SIM",
    kld="metrics.saliency:KLD",
    nss="metrics.saliency:NSS",
    auc_judd="metrics.saliency:AUC_JUDD",
    sauc="metrics.saliency:SAUC",
    information_gain="metrics.saliency:INFORMATION_GAIN",
)


def find_all(args: argparse.Namespace) -> None:
    """Import the user-defined components that are named by --model, --backbone and so on."""
    for known in (MODELS, BACKBONES, LAYOUTS, MOTIONS, LOSSES, METRICS):
        names = getattr(args, known.noun, None) or []
        for name in [names] if isinstance(names, str) else names:
            known.find(name)
