"""The authors' pickles: read without running them, or refused by name."""

import os
import pickle
import shutil
import zipfile
from collections import OrderedDict

import pytest
import torch

from cli import InputError
from models.official import is_official, load_official, read_official
from tests.shared import shared

VARIANTS = {"SST_Sal": (6, 36, "dis"), "SST_Sal_wo_OF": (3, 9, "none")}


class Bomb:
    """Creates a folder when it is unpickled by the ordinary means."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("variant", VARIANTS)
def test_reads_the_authors_files(variant):
    import numpy as np

    path = shared(f"official/{variant}.pth")
    expected = np.load(shared(f"golden/sst_{variant}_state_dict.npz"))
    assert is_official(path)
    weights = read_official(path)
    assert set(weights) == set(expected.files)
    for name, tensor in weights.items():
        assert torch.equal(tensor, torch.from_numpy(expected[name]))
    model = load_official(path, height=16, width=32)
    channels, hidden, motion = VARIANTS[variant]
    assert not model.training
    assert model.spec.motion == motion and (model.spec.fps, model.spec.clip_length) == (8, 20)
    assert model.arguments["in_channels"] == channels
    assert model.arguments["hidden_channels"] == hidden
    assert model.arguments["half_pixel"] and model.arguments["sampling"] == "seamless"
    reference = load_official(path, sampling="reference", height=16, width=32)
    clip = torch.rand(1, 2, 3, 16, 32)
    assert reference(clip, clip[:, :, : channels - 3]).shape == (1, 2, 1, 16, 32)


def test_overrides_that_do_not_fit_are_an_input_error():
    path = shared("official/SST_Sal.pth")
    with pytest.raises(InputError, match="SST_Sal.pth: its weights do not fit"):
        load_official(path, hidden_channels=5, height=16, width=32)
    with pytest.raises(InputError, match="colour"):
        load_official(path, colour="red")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("bare", [False, True], ids=["torch", "pickle"])
def test_other_globals_are_refused_by_name_and_not_executed(tmp_path, protocol, bare):
    path, made = tmp_path / "evil.pth", tmp_path / "made"
    if bare:
        path.write_bytes(pickle.dumps(Bomb(made), protocol))
    else:
        torch.save(Bomb(made), path, pickle_protocol=protocol)
    assert is_official(path)
    with pytest.raises(InputError, match=r"evil.pth: asks for posix.mkdir, .* nothing of the file"):
        load_official(path)
    assert not made.exists()


def test_a_bomb_inside_an_authors_file_is_refused(tmp_path):
    """The released file with one attribute more, which would run code."""
    path, made = tmp_path / "evil.pth", tmp_path / "made"
    bomb = pickle.dumps(Bomb(made), 2)[2:-1]
    with zipfile.ZipFile(shared("official/SST_Sal.pth")) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = content[:-1] + bomb + b"0."  # drops what the bomb returns, then ends
            new.writestr(name, content)
    with pytest.raises(InputError, match="posix.mkdir"):
        load_official(path)
    assert not made.exists()


def test_tensors_can_not_read_beyond_their_storage(tmp_path):
    path = tmp_path / "greedy.pth"
    with zipfile.ZipFile(shared("official/SST_Sal.pth")) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[:40] if name.endswith("data/0") else content)
    with pytest.raises(InputError, match="storage 0 has 40 bytes"):
        load_official(path)


def test_our_checkpoints_are_not_official(tmp_path):
    torch.save({"model": "sst_sal", "weights": {}}, tmp_path / "ours.pth")
    (tmp_path / "text.pth").write_text("no pickle")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("ours.pth", "text.pth", "empty.pth", "missing.pth"):
        assert not is_official(tmp_path / name)


def test_damaged_and_foreign_files_are_input_errors(tmp_path):
    torch.save(OrderedDict(a=torch.zeros(2)), tmp_path / "foreign.pth")
    with pytest.raises(InputError, match="foreign.pth: .*OrderedDict"):
        read_official(tmp_path / "foreign.pth")
    whole = shutil.copy(shared("official/SST_Sal_wo_OF.pth"), tmp_path / "cut.pth")
    with open(whole, "r+b") as file:
        file.truncate(3000)
    with pytest.raises(InputError, match="cut.pth: damaged"):
        read_official(whole)
