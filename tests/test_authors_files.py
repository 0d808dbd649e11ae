"""Weight files of SST-Sal's authors: read without executing anything in them, or refused."""

import os
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import InputError
from common.restricted_pickle import containers, read_pickle
from models import load
from models.checkpoint import read
from tests.shared import shared

VARIANTS = {"SST_Sal": (6, 36, "dis"), "SST_Sal_wo_OF": (3, 9, "none")}
CHANNELS, HIDDEN = 6, 2
SHAPES = {
    "encoder.lstm.conv.weight": (4 * HIDDEN, CHANNELS + HIDDEN, 3, 3),
    "encoder.lstm.conv.bias": (4 * HIDDEN,),
    "decoder.lstm.conv.weight": (4, HIDDEN + 1, 3, 3),
    "decoder.lstm.conv.bias": (4,),
}


class Bomb:
    """Creates a folder when the ordinary reader of pickles reads it."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def authors_file(tmp_path, monkeypatch):
    """A file with the structure of the authors', of classes that nobody can import."""
    classes = {}

    def module(home: str, name: str, **parts) -> nn.Module:
        if name not in classes:
            classes[name] = type(name, (nn.Module,), {"__module__": home})
            for package in (home.partition(".")[0], home):
                patch.setitem(sys.modules, package, sys.modules.get(package, ModuleType(package)))
            patch.setattr(sys.modules[home], name, classes[name], raising=False)
        made = classes[name]()
        for part, value in parts.items():
            setattr(made, part, value)
        return made

    def cell(part: str) -> nn.Module:
        kinds = {k: torch.rand(SHAPES[f"{part}.lstm.conv.{k}"]) for k in ("weight", "bias")}
        parameters = {kind: nn.Parameter(values) for kind, values in kinds.items()}
        conv = module("spherenet.sphere_cnn", "SphereConv2D", **parameters)
        return module("Modules", "SpherConvLSTMCell", conv=conv)

    with monkeypatch.context() as patch:
        encoder = module(
            "Modules",
            "SpherConvLSTM_EncoderCell",
            lstm=cell("encoder"),
            pool=module("spherenet.sphere_cnn", "SphereMaxPool2D", pool=nn.MaxPool2d(3)),
        )
        decoder = module("Modules", "SpherConvLSTM_DecoderCell", lstm=cell("decoder"))
        parts = {"encoder": encoder, "decoder": decoder, "up": nn.Upsample(scale_factor=2)}
        whole = module("models", "SST_Sal", **parts)
        torch.save(whole, tmp_path / "authors.pth")
    return tmp_path / "authors.pth", whole.state_dict()


def rewritten(path, new_path, change):
    """Write a torch file again, each entry as change(its name without the folder, content)."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new_path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name.partition("/")[2], old.read(name)))
    return new_path


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_released_files_are_read(variant):
    path = shared(f"official/{variant}.pth")
    expected = np.load(shared(f"golden/sst_{variant}_state_dict.npz"))
    weights = read(path)["weights"]
    assert set(weights) == set(expected.files)
    for name, tensor in weights.items():
        assert torch.equal(tensor, torch.from_numpy(expected[name]))
    channels, hidden, motion = VARIANTS[variant]
    model = load(path, height=16, width=32)
    assert model.spec.motion == motion
    assert model.arguments["in_channels"] == channels
    assert model.arguments["hidden_channels"] == hidden


def test_a_file_with_their_structure_is_read(authors_file):
    path, weights = authors_file
    model = load(path, height=16, width=32)
    assert not model.training
    assert (model.spec.motion, model.spec.fps, model.spec.clip_length) == ("dis", 8, 20)
    assert model.arguments["in_channels"] == CHANNELS
    assert model.arguments["hidden_channels"] == HIDDEN
    assert model.arguments["half_pixel"] and model.arguments["sampling"] == "seamless"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name])
    reference = load(path, sampling="reference", height=16, width=32)
    clip = torch.rand(1, 2, 3, 16, 32)
    assert reference(clip, clip).shape == (1, 2, 1, 16, 32)


def test_overrides_that_do_not_fit_are_an_input_error(authors_file):
    with pytest.raises(InputError, match="authors.pth: .*its weights do not fit"):
        load(authors_file[0], hidden_channels=5, height=16, width=32)
    with pytest.raises(InputError, match="colour"):
        load(authors_file[0], colour="red")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("bare", [False, True], ids=["torch", "pickle"])
def test_other_globals_are_refused_by_name_and_not_executed(tmp_path, protocol, bare):
    path, made = tmp_path / "evil.pth", tmp_path / "made"
    if bare:
        path.write_bytes(pickle.dumps(Bomb(made), protocol))
    else:
        torch.save(Bomb(made), path, pickle_protocol=protocol)
    with pytest.raises(InputError, match=r"evil.pth: asks for posix.mkdir, .* was executed"):
        load(path)
    assert not made.exists()


def test_a_bomb_inside_an_authors_file_is_refused(authors_file, tmp_path):
    """Their file with one object more, which would run code."""
    made = tmp_path / "made"
    bomb = pickle.dumps(Bomb(made), 2)[2:-1]

    def add_bomb(name, content):  # it drops what the bomb returns, then ends
        return content[:-1] + bomb + b"0." if name == "data.pkl" else content

    with pytest.raises(InputError, match="posix.mkdir"):
        load(rewritten(authors_file[0], tmp_path / "evil.pth", add_bomb))
    assert not made.exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda name, c: c[:40] if name == "data/0" else c, "storage 0 has 40 bytes"),
        (  # the bias of four numbers now claims nine, or begins beyond its storage
            lambda name, c: c.replace(b"K\x04\x85q", b"K\x09\x85q") if name == "data.pkl" else c,
            r"a tensor of \(9,\) in a storage of 4 numbers",
        ),
        (
            lambda name, c: c.replace(b"QK\x00K\x04\x85", b"QK\x03K\x04\x85"),
            "setStorage|out of bounds",
        ),
    ],
    ids=["short storage", "larger than its storage", "beyond its storage"],
)
def test_tensors_can_not_read_beyond_their_storage(authors_file, tmp_path, change, message):
    path = rewritten(authors_file[0], tmp_path / "greedy.pth", change)
    with pytest.raises(InputError, match="greedy.pth: damaged") as caught:
        load(path)
    assert re.search(message, str(caught.value.__cause__))


def test_a_file_that_unpacks_to_too_much_is_refused(authors_file, monkeypatch):
    monkeypatch.setattr("models.checkpoint.LARGEST", 1000)
    with pytest.raises(InputError, match="authors.pth: damaged, or not"):
        load(authors_file[0])


def test_damaged_and_foreign_files_are_input_errors(authors_file, tmp_path):
    torch.save(OrderedDict(a=torch.zeros(2)), tmp_path / "foreign.pth")
    torch.save(nn.MaxPool2d(3), tmp_path / "pool.pth")
    for name in ("foreign", "pool"):
        with pytest.raises(InputError, match=f"{name}.pth: .*not a checkpoint"):
            load(tmp_path / f"{name}.pth")
    path, _ = authors_file
    whole = path.read_bytes()
    for size in range(0, len(whole), 300):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="authors.pth: (damaged|the file is empty)"):
            load(path)
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            load(path, height=16, width=32)
        except InputError as error:
            assert "authors.pth" in str(error)


def test_what_a_pickle_does_to_a_constructor_does_not_last(tmp_path):
    """The first pickle sets an attribute of a constructor itself, not of an object."""

    def taking(name: str, change: bytes = b"") -> bytes:
        return b"\x80\x02c" + name.replace(".", "\n").encode() + b"\n" + change + b"."

    paint = b"N}X\x05\x00\x00\x00colorX\x03\x00\x00\x00reds\x86b"
    changed = read_pickle(taking("collections.defaultdict", paint), "a.pkl", containers())
    assert changed.color == "red"
    again = read_pickle(taking("collections.defaultdict"), "b.pkl", containers())
    assert again is not changed and not hasattr(again, "color")
    for kind in ("list", "dict", "set"):  # these are Python's own, which take no attributes
        with pytest.raises(TypeError, match="immutable"):
            read_pickle(taking(f"builtins.{kind}", paint), "c.pkl", containers())
    path = tmp_path / "class.pth"
    path.write_bytes(taking("models.SST_Sal", paint))
    with pytest.raises(InputError, match="class.pth: damaged"):
        load(path)


def test_modules_that_contain_each_other_are_read_once(authors_file, tmp_path):
    """Each of 60 modules holds the next one twice: 2⁶⁰ paths, the last one leads back."""

    def nest(name, content):  # a stand-in for each, whose state is {"_modules": {a: next, b: next}}
        if name != "data.pkl":
            return content
        new = b"cmodels\nSST_Sal\n)\x81"
        modules = b"".join(new + b"q" + bytes([k]) + b"0" for k in range(61))
        for k in range(61):
            child = b"h" + bytes([(k + 1) % 61])
            pair = b"X\x01\x00\x00\x00a" + child + b"X\x01\x00\x00\x00b" + child
            state = b"}(X\x08\x00\x00\x00_modules}(" + pair + b"uX\x0b\x00\x00\x00_parameters}u"
            modules += b"h" + bytes([k]) + state + b"b0"
        return b"\x80\x02" + modules + b"h\x00."

    path = rewritten(authors_file[0], tmp_path / "nested.pth", nest)
    with pytest.raises(InputError, match="nested.pth: damaged") as caught:
        load(path)
    assert "encoder.lstm.conv.weight" in str(caught.value.__cause__)
