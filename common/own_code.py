"""User-defined models, losses, metrics and motions."""

import importlib
import os
import re
import sys
from typing import Any

from common.errors import InputError, show_tracebacks


def find_own(name: str, known: dict, noun: str, base: type, wanted: str, made=False) -> Any:
    """Return what has a name among the known, or import a user-defined "package.module:NAME".

    The current folder is searched last. Scripts then show tracebacks of errors in its code.
    Raises InputError for what is not wanted: a subclass of base, or an instance if `made`.
    """
    if name in known:
        return known[name]
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        others = f"{', '.join(known)} or your own as package.module:NAME"
        raise InputError(f"no {noun} '{name}'; give {others}")
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    show_tracebacks()
    try:
        own = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        message = f"{name}: there is no module '{error.name}'; check the name, or install it"
        raise InputError(message) from error
    if not (isinstance(own, base) if made else isinstance(own, type) and issubclass(own, base)):
        raise InputError(f"{name}: not {wanted}; check the name")
    return own
