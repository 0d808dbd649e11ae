"""Which models there are: this project's by name, and one's own by "package.module:Class"."""

import importlib
import inspect
import os
import re
import sys

from common.errors import InputError, show_tracebacks
from models.base import SaliencyModel
from models.cube_unet import CubeUNet
from models.equator_prior import EquatorPrior
from models.sst_sal import SSTSal

MODELS: dict[str, type[SaliencyModel]] = {m.name: m for m in (CubeUNet, SSTSal, EquatorPrior)}
PLAIN = (bool, int, float, str, type(None))  # types of a model's arguments in a checkpoint


def find_model(name: str) -> type[SaliencyModel]:
    """Return the model of a name in MODELS, or import "package.module:Class" and add it there.

    The current folder is searched last. From then on scripts show the traceback of an error.
    Raises InputError for anything else than a model that a checkpoint can build again.
    """
    if name in MODELS:
        return MODELS[name]
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        known = ", ".join(MODELS)
        raise InputError(f"no model '{name}'; give {known} or your own as package.module:Class")
    module, _, class_name = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    show_tracebacks()
    try:
        kind = getattr(importlib.import_module(module), class_name, None)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, but not one that it imports
        raise InputError(f"{name}: there is no module '{error.name}'; check the name") from error
    if not isinstance(kind, type) or not issubclass(kind, SaliencyModel):
        raise InputError(f"{name}: not a subclass of models.SaliencyModel; check the name")
    for argument in inspect.signature(kind).parameters.values():
        if not isinstance(argument.default, PLAIN):
            defaults = "a default: a number, a text, True, False or None"
            raise InputError(f"{name}: its constructor takes '{argument}'; give that {defaults}")
    if "name" not in vars(kind):
        kind.name = f"{kind.__module__}:{kind.__qualname__}"
    if MODELS.setdefault(kind.name, kind) is not kind:
        raise InputError(f"{name}: another model has the name '{kind.name}'; give it another one")
    return kind
