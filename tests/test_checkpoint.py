"""Checkpoints: ours, those of SST-Sal's authors, and damaged or hostile files."""

import os
import pickle
import random
import re
import sys
import time
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

import infer_video
import models
from common.errors import InputError
from common.restricted_pickle import containers, read_pickle
from models import Spec, load
from models.checkpoint import put_weights, read
from recipes import front, pretrained
from tests.checkpoints import changed, small_unet
from tests.clips import write_data_set
from tests.commands import ended, evaluate, infer, refusal, train_one_epoch
from tests.shared import shared

VARIANTS = {"SST_Sal": (6, 36, "dis"), "SST_Sal_wo_OF": (3, 9, "none")}
CHANNELS, HIDDEN = 6, 2


def test_checkpoint_builds_its_model_again(tmp_path):
    model = small_unet().eval()
    model.spec = Spec(height=40, width=80, motion="difference", fps=5.0)
    models.save(tmp_path / "m.pth", model, epoch=3, val_loss=0.5)
    again = models.load(tmp_path / "m.pth")
    assert not again.training
    assert again.spec == model.spec
    frames, motion = torch.rand(1, 1, 3, 40, 80), torch.rand(1, 1, 1, 40, 80)
    torch.testing.assert_close(again(frames, motion), model(frames, motion), rtol=0, atol=0)
    larger = models.load(tmp_path / "m.pth", height=80, width=160)
    assert larger.to_cube.height == larger.spec.height == 80


def test_another_size_does_not_drop_the_rest_of_the_stored_spec(tmp_path):
    """With any override, the rate and the motion of the checkpoint became the defaults."""
    model = small_unet(in_channels=6)
    model.spec = Spec(height=40, width=80, fps=5.0, motion="raft")
    models.save(tmp_path / "m.pth", model)
    again = models.load(tmp_path / "m.pth", height=80, width=160)
    assert again.spec == replace(model.spec, height=80, width=160)
    assert models.load(tmp_path / "m.pth", face_size=24).spec == model.spec


def test_a_stored_spec_that_an_override_makes_impossible_is_refused(tmp_path):
    model = models.SSTSal(3, 2, height=8, width=16)
    model.spec = replace(model.spec, warm_up=17, fade=2)
    models.save(tmp_path / "m.pth", model)
    reference = models.load(tmp_path / "m.pth", sampling="reference")
    assert (reference.spec.warm_up, reference.spec.fade) == (17, 0)  # as this sampling has it
    model = models.SSTSal(3, 2, "reference", height=8, width=16)
    model.spec = replace(model.spec, warm_up=19)
    models.save(tmp_path / "m.pth", model)
    with pytest.raises(InputError, match="warm_up plus fade"):
        models.load(tmp_path / "m.pth", sampling="seamless")


class Attack:
    def __reduce__(self):
        return eval, ("print('executed')",)


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "attack", "other model", "tensor"])
def test_files_that_are_no_checkpoint_are_refused_and_never_executed(kind, tmp_path, capfd):
    path, other = tmp_path / "m.pth", {"model": "resnet", "arguments": {}, "weights": {}}
    contents = {"text": b"not a checkpoint", "empty": b"", "attack": pickle.dumps(Attack())}
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind != "missing":
        torch.save(other if kind == "other model" else torch.zeros(3), path)
    with pytest.raises(InputError, match="m.pth"):
        models.load(path)
    assert "executed" not in capfd.readouterr().out


def test_a_failed_save_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    models.save(tmp_path / "m.pth", small_unet(), epoch=1)
    before = (tmp_path / "m.pth").read_bytes()

    def full_disk(path, content):
        path.write_text("half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        models.save(tmp_path / "m.pth", small_unet(), epoch=2)
    assert (tmp_path / "m.pth").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.pth"]


def test_the_shipped_checkpoint_is_found_from_any_folder(still, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--video_path", still, "--output_dir", tmp_path / "maps")
    assert ended(infer_video.main, *words)[0] == 0


def test_a_flipped_byte_in_a_checkpoint(checkpoint, tmp_path):
    """Wrong weights were loaded in 100 of 100 cases."""
    whole, weights = checkpoint.read_bytes(), models.load(checkpoint).state_dict()
    draw, refused = random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (tmp_path / "flipped.pth").write_bytes(damaged)
        try:
            found = models.load(tmp_path / "flipped.pth").state_dict()
        except InputError:
            refused += 1
        else:  # a byte between the parts of the file
            assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert refused > 75


@pytest.mark.parametrize("change, says", [
    (lambda w: w.update({"head.bias": torch.zeros(())}), "size mismatch for head.bias"),
    (lambda w: w["head.weight"].fill_(float("nan")), "not finite"),
    (lambda w: w["head.weight"].fill_(1e30), "not finite or too large"),
    (lambda w: w.update({"head.bias": torch.zeros(1, dtype=torch.int64)}), "int64"),
    (lambda w: w.update({"head.bias": torch.zeros(1, dtype=torch.bool)}), "torch.bool"),
    (lambda w: w.update({"head.bias": torch.zeros(1, dtype=torch.complex64)}), "complex64"),
    (
        lambda w: w.update({"head.bias": torch.zeros(1).expand(1)[:0]}),
        "size mismatch for head.bias",
    ),
    (
        lambda w: w.update({"latitude_bias": torch.zeros(1, 1, 1)}),
        "size mismatch for latitude_bias",
    ),
    (lambda w: w.pop("head.bias"), 'Missing key(s) in state_dict: "head.bias"'),
])  # fmt: skip
def test_weights_that_are_no_weights(checkpoint, tmp_path, change, says):
    """Weights of other shapes were broadcast; NaN and 1e30 passed through recipes."""
    path = changed(checkpoint, tmp_path / "bad.pth", lambda stored: change(stored["weights"]))
    write_data_set(tmp_path / "data")
    out = tmp_path / "new.pth"
    for main, words in (
        (front.main, (path, out)),
        (infer_video.main, ("--video_path", tmp_path / "data/a", "--ckpt_path", path,
                            "--output_dir", tmp_path / "out")),
    ):  # fmt: skip
        refusal(ended(main, *words), "bad.pth", says)
    assert not out.exists()


def test_a_compressed_checkpoint_is_refused(checkpoint, tmp_path):
    """Its parts could unpack to any size."""
    with (
        zipfile.ZipFile(checkpoint) as old,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(InputError, match="bomb.pth: damaged"):
        models.load(tmp_path / "bomb.pth")


@pytest.mark.slow
def test_checkpoints_cut_anywhere(trained, clip, tmp_path):
    """Errno 22, and torch's advice to set weights_only to False."""
    data, whole = trained[0], trained[1].read_bytes()
    run = tmp_path / "run"
    run.mkdir()
    cut, out = run / "cube_unet_last.pth", tmp_path / "out.pth"
    for size in (1, 100, 3000, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        cut.write_bytes(whole[:size])
        for found in (
            infer(clip, cut, tmp_path / "maps"),
            evaluate(data, tmp_path / "scores", "--split", "val", "--ckpt_path", cut),
            train_one_epoch(data, tmp_path / "other", "--init", cut),
            train_one_epoch(data, run, "--ema", "0.9"),
            ended(front.main, cut, out),
            ended(pretrained.main, cut, out),
        ):
            assert found[0] == 2 and str(cut) in found[2]
            assert "weights_only" not in found[2] and "Errno" not in found[2]
    for size in range(0, len(whole), len(whole) // 60):
        cut.write_bytes(whole[:size])
        with pytest.raises(InputError):
            models.load(cut)


@pytest.mark.parametrize(
    "change",
    [{"fps": 0}, {"fps": float("nan")}, {"fps": -1}, {"fps": "8"}, {"height": 0}, {"height": 10**9},
     {"width": 1.5}, {"motion": "magic"}, {"motion": 3}, {"clip_length": 0}, {"warm_up": 1},
     {"colour": 1}],
)  # fmt: skip
def test_a_spec_of_nonsense(clip, checkpoint, tmp_path, change):
    path = changed(checkpoint, tmp_path / "bad.pth", lambda stored: stored["spec"].update(change))
    refusal(infer(clip, path, tmp_path / "out"), "bad.pth")


def test_a_pickle_whose_names_form_an_exploding_graph(tmp_path):
    """Forty modules that contain each other twice have 2⁴⁰ names."""
    child = None
    for _ in range(40):
        module = nn.MaxPool2d(2)
        module._modules = OrderedDict(a=child, b=child) if child else OrderedDict()
        child = module
    torch.save(child, tmp_path / "graph.pth")
    start = time.monotonic()
    with pytest.raises(InputError, match="graph.pth: damaged"):
        models.load(tmp_path / "graph.pth")
    assert time.monotonic() - start < 10


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


@pytest.mark.parametrize("protocol, message", [(2, "contains posix.mkdir, .* was executed"),
                                               (4, "damaged")])  # fmt: skip
def test_other_globals_are_refused_and_not_executed(tmp_path, protocol, message):
    path, made = tmp_path / "evil.pth", tmp_path / "made"
    torch.save(Bomb(made), path, pickle_protocol=protocol)
    with pytest.raises(InputError, match=f"evil.pth: {message}") as caught:
        load(path)
    assert "weights_only" not in str(caught.value)
    path.write_bytes(pickle.dumps(Bomb(made), protocol))
    with pytest.raises(InputError, match="evil.pth: damaged"):
        load(path)
    assert not made.exists()


def test_a_bomb_inside_an_authors_file_is_refused(authors_file, tmp_path):
    """Their file with one object more, which would run code."""
    made = tmp_path / "made"
    bomb = pickle.dumps(Bomb(made), 2)[2:-1]

    def add_bomb(name, content):  # it drops what the bomb returns, then ends
        return content[:-1] + bomb + b"0." if name == "data.pkl" else content

    with pytest.raises(InputError, match="evil.pth: "):
        load(rewritten(authors_file[0], tmp_path / "evil.pth", add_bomb))
    assert not made.exists()


@pytest.mark.parametrize("change, message", [
    (lambda name, c: c[:40] if name == "data/0" else c, "record size"),
    (  # the bias of four numbers now claims nine, or begins beyond its storage
        lambda name, c: c.replace(b"K\x04\x85q", b"K\x09\x85q") if name == "data.pkl" else c,
        "resize storage",
    ),
    (lambda name, c: c.replace(b"QK\x00K\x04\x85", b"QK\x03K\x04\x85"), "resize storage"),
], ids=["short storage", "larger than its storage", "beyond its storage"])  # fmt: skip
def test_tensors_can_not_read_beyond_their_storage(authors_file, tmp_path, change, message):
    path = rewritten(authors_file[0], tmp_path / "greedy.pth", change)
    with pytest.raises(InputError, match="greedy.pth: damaged") as caught:
        load(path)
    assert re.search(message, str(caught.value.__cause__))


@pytest.mark.slow
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
    with pytest.raises(InputError, match="nested.pth: damaged"):
        load(path)


def test_a_weight_that_repeats_itself_takes_no_memory(checkpoint, tmp_path):
    """Its 16 GB of zeros were made to see whether they are finite."""
    endless = torch.zeros(1).expand(10**9, 2)
    path = changed(checkpoint, tmp_path / "a.pth", lambda c: c["weights"].update(x=endless))
    model, weights = load(checkpoint), {"head.weight": read(path)["weights"]["x"]}
    with (
        pytest.raises(ValueError, match="its weights do not fit"),
        mock.patch.object(torch.Tensor, "double", side_effect=MemoryError),
    ):
        put_weights(model, weights)
