"""Which models there are: this project's by name, and one's own by "package.module:Class"."""

import inspect

from common.errors import InputError
from common.own_code import find_own
from models.base import SaliencyModel
from models.cube_unet import CubeUNet
from models.equator_prior import EquatorPrior
from models.sst_sal import SSTSal

MODELS: dict[str, type[SaliencyModel]] = {m.name: m for m in (CubeUNet, SSTSal, EquatorPrior)}
PLAIN = (bool, int, float, str, type(None))  # types of a model's arguments in a checkpoint


def find_model(name: str) -> type[SaliencyModel]:
    """Return the model of a name in MODELS, or import "package.module:Class" and add it there.

    A nameless class is called after its module. Raises InputError for what can't be built again.
    """
    kind = find_own(name, MODELS, "model", SaliencyModel, "a subclass of models.SaliencyModel")
    for argument in inspect.signature(kind).parameters.values():
        if not isinstance(argument.default, PLAIN):
            defaults = "a default: a number, a text, True, False or None"
            raise InputError(f"{name}: its constructor takes '{argument}'; give that {defaults}")
    if "name" not in vars(kind):
        kind.name = f"{kind.__module__}:{kind.__qualname__}"
    if MODELS.setdefault(kind.name, kind) is not kind:
        raise InputError(f"{name}: another model has the name '{kind.name}'; give it another one")
    return kind
