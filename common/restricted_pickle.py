"""A safe reader for pickles from unknown sources: it imports and executes no code for them.

A pickle is a program that can call any function by name. Here, only names listed by the caller are
allowed, and each is replaced by a harmless constructor: a function, a type without settable
attributes, or a type created for this file.
"""

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from common.errors import InputError

Constructors = dict[str, Callable]  # "module.name" in the pickle → its replacement
MEMO_WRITES = "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"
MEMO_READS = "GET", "BINGET", "LONG_BINGET"
UPDATES = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
BUILTINS = "builtins", "__builtin__"  # of Python 3 and 2


def read_pickle(content: bytes, path: str | Path, constructors: Constructors) -> Any:
    """Return the object in the pickle of a file; any other name raises InputError."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Callable:
            if constructor := constructors.get(f"{module}.{name}"):
                return constructor
            problem = f"contains {module}.{name}, and no code in it was executed"
            raise InputError(f"{path}: {problem}; use a file of the data set's authors")

    check_pickle(content, len(content))
    return Unpickler(io.BytesIO(content), encoding="latin1").load()  # keeps Python 2's bytes


def check_pickle(content: bytes | IO[bytes], size: int) -> None:
    """Raise an error of any kind for a pickle that is cut off, or needs endless time or memory.

    A pickle can refer to a part instead of repeating it, so that a few bytes stand for 2⁴⁰ parts of
    a key, which can't be hashed in finite time: the parts are counted without creating them. An
    index into the memo allocates all entries below it, so it may be at most `size`, in bytes.
    """
    stack: list[list[int]] = []  # number of parts of each object, in a list that can be shared
    marks: list[int] = []
    memo: dict[int, list[int]] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name, before = opcode.name, opcode.stack_before
        if name == "MARK":
            marks.append(len(stack))
        elif name in MEMO_WRITES:
            index = len(memo) if argument is None else argument
            if index > size:
                raise ValueError(f"an index of {index} in {size} bytes")
            memo[index] = stack[-1]
        elif name in MEMO_READS or name == "DUP":
            stack.append(memo[int(argument or 0)] if name in MEMO_READS else stack[-1])
        elif not before:
            stack += [[1] for _ in opcode.stack_after]
        else:
            start = len(stack) - len(before)
            if pickletools.markobject in before:
                start = marks.pop() - before.index(pickletools.markobject)
            parts = stack[start:]
            del stack[start:]
            whole = parts[0] if name in UPDATES else [0]
            whole[0] = 1 + sum(part[0] for part in parts)
            if whole[0] > 10 * size + 100_000:
                raise ValueError("its parts repeat without end")
            stack += [whole] * len(opcode.stack_after)


def read_torch(path: str | Path) -> Any:
    """Return the content of a torch.save file on the CPU: tensors in plain containers.

    Raises an error of any kind for any other file.
    """
    if zipfile.is_zipfile(path):
        check_archive(path)
    else:  # torch before 1.6 wrote pickles: magic number, version, system, object, storages
        with open(path, "rb") as file:
            for _ in range(5):
                check_pickle(file, Path(path).stat().st_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # addressed to programmers
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # its text advises running the code in the file
            raise pickle.UnpicklingError("not only tensors in plain containers") from error


def check_archive(path: str | Path) -> None:
    """Raise an error for a torch file that unpacks to more than its size, or has flipped bits."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > Path(path).stat().st_size:
            raise ValueError("it unpacks to more than its size")
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} is wrong")
        for name in archive.namelist():
            if name.endswith(".pkl"):
                content = archive.read(name)
                check_pickle(content, len(content))


def containers() -> Constructors:
    """Return constructors for Python's containers, as written by Python 2 and 3."""
    return {
        "collections.OrderedDict": dict,
        "collections.defaultdict": lambda factory=None, *items: dict(*items),
        **{f"{home}.{k.__name__}": k for home in BUILTINS for k in (list, dict, set)},
    }


def numpy_arrays() -> Constructors:
    """Return constructors for NumPy arrays of real numbers, which become `PickledArray`s."""
    made: Constructors = {
        "multiarray._reconstruct": lambda *_: PickledArray(),
        "multiarray.scalar": lambda kind, raw: kind.numbers(raw)[0].item(),
        "numeric._frombuffer": lambda raw, kind, *form: kind.numbers(raw, *form),
    }
    return {
        "numpy.ndarray": lambda *_: None,
        "numpy.dtype": lambda code, *_: _NumberType(code),
        "_codecs.encode": lambda text, encoding: text.encode("latin1"),
        **{f"{core}.{n}": f for core in ("numpy.core", "numpy._core") for n, f in made.items()},
    }


class PickledArray(list):
    """Replacement for numpy.ndarray in a pickle: a list of the array's rows."""

    def __setstate__(self, state: tuple):
        _, shape, kind, columns_first, raw = state
        self.extend(kind.numbers(raw, shape, "F" if columns_first else "C"))


class _NumberType:
    """Replacement for numpy.dtype in a pickle, for real numbers only."""

    def __init__(self, code: str):
        if not re.fullmatch(r"[iu][1248]|f[248]", code):
            raise ValueError(f"it holds an array of {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple):
        self.order = ">" if state[1] == ">" else "<"

    def numbers(self, raw: bytes | str, shape=-1, order="C") -> np.ndarray:
        """Return the numbers in the bytes of an array; Python 2 wrote them as text."""
        content = raw.encode("latin1") if isinstance(raw, str) else raw
        return np.frombuffer(content, self.order + self.code).reshape(shape, order=order)
