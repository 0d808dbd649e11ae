"""benchmarks.real_gaze and recipes.front on tiny panoramas whose answer is known."""

import numpy as np
import pytest
import torch

import models
from benchmarks import real_gaze
from datasets.gaze import gaussian_map
from recipes import front
from tests.commands import ended

NAMES = "one", "two"


@pytest.fixture
def folder(tmp_path):
    """Two panoramas at which four people look at one point each, five times."""
    content = {}
    for k, name in enumerate(NAMES):
        place = np.array([40.0 - 120 * k, 10.0])
        fixations = np.repeat(place + 3 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]]), 5, axis=0)
        content[f"{name}_rgb"] = np.full((24, 48, 3), 90, np.uint8)
        content[f"{name}_fix"] = fixations.astype(np.float32)
        content[f"{name}_gt"] = gaussian_map(*np.radians(fixations).T, 32, 64, 5).numpy()
        content[f"{name}_user"] = np.repeat(np.arange(4), 5).astype(np.int16)
    (tmp_path / "sets").mkdir()
    np.savez(tmp_path / "sets/a.npz", **content)
    np.savez(tmp_path / "sets/b.npz", heads=np.zeros(3))
    (tmp_path / "perfect").mkdir()
    for name in NAMES:
        np.save(tmp_path / f"perfect/{name}.npy", content[f"{name}_gt"])
    return tmp_path


def score(folder, *more):
    return ended(real_gaze.main, folder / "sets", "--height", 32, *more)


def test_the_table(folder):
    models.save(folder / "prior.pth", models.EquatorPrior(24, 48))
    words = ("--ckpt_path", folder / "prior.pth", "--pred_dir", folder / "perfect")
    code, text, _ = score(folder, *words)
    assert code == 0 and "a.npz: 2 panoramas" in text and "b.npz: gaze without panoramas" in text
    rows = {line[:14].strip(): line[14:].split() for line in text.splitlines() if line[:1].strip()}
    assert rows["perfect"][:3] == ["1.000", "1.000", "0.000"]  # CC, SIM, KLD
    assert rows["uniform"][0] == "0.000" and rows["uniform"][4:] == ["0.500", "0.500"]
    for cell, other in zip(rows["prior"], rows["equator prior"]):  # on another grid
        assert abs(float(cell.replace("−", "-")) - float(other.replace("−", "-"))) < 0.03
    assert float(rows["human"][0]) > 0.5 and float(rows["perfect"][5]) > 0.95


def test_what_can_not_be_scored_is_named(folder):
    code, _, line = score(folder, "--ckpt_path", "--pred_dir", folder)
    assert code == 2 and "no one.npy, .exr or .png" in line
    (folder / "sets/c.npz").write_bytes(b"PK no more")
    code, _, line = score(folder, "--ckpt_path", "--pred_dir", folder / "perfect")
    assert code == 2 and "c.npz: not a set of panoramas with gaze" in line


def test_latitudes_beyond_the_limit_do_not_count(folder):
    for name in NAMES:
        path = folder / f"perfect/{name}.npy"
        saliency = np.load(path)
        saliency[:4] = 9  # above 67°
        np.save(path, saliency)
    words = ("--ckpt_path", "--pred_dir", folder / "perfect", "--latitude")
    for latitude in (60, 90):
        text = score(folder, *words, latitude)[1]
        found = float(text.split("perfect")[1].split()[0].replace("−", "-"))
        assert found > 0.9 if latitude == 60 else found < 0.5


def test_a_checkpoint_gets_a_front_and_smoothing(tmp_path):
    torch.manual_seed(0)
    model = models.CubeUNet(height=40, width=80, base_channels=2)
    models.save(tmp_path / "a.pth", model, run={"loss": "density"})
    words = (tmp_path / "a.pth", tmp_path / "b.pth", "--front", 0.3, "--latitude", 2)
    assert ended(front.main, *words)[0] == 0
    found = models.load(tmp_path / "b.pth")
    assert (found.arguments["front"], found.spec.smoothing) == (0.3, 0.75)
    assert torch.equal(found.latitude_bias, 2 * model.latitude_bias)
    assert torch.equal(found.head.weight, model.head.weight)
    assert models.checkpoint.read(tmp_path / "b.pth")["run"] == {"loss": "density"}
