"""Distillation: the mean of logits over sizes, and a network that learns it."""

import json

import numpy as np
import pytest
import torch

import models
from metrics import cc
from models import CubeUNet, EquatorPrior
from models.checkpoint import read, sha256
from recipes.distill import main, no_motion, teacher_map
from tests.clips import write_eccv_clip
from tests.commands import ended, run
from video.pictures import read_picture, resize, to_tensor


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.distill.HEIGHTS", (72, 96))
    torch.manual_seed(0)
    model = CubeUNet(base_channels=2, height=72, width=144, front=0.5).eval()
    with torch.no_grad():
        model.head.weight *= 1000  # so that image logits matter
    models.save(tmp_path / "net.pth", model)
    return tmp_path / "net.pth"


@pytest.fixture
def data(tmp_path):
    for name in ("a", "b"):
        write_eccv_clip(tmp_path / "data" / name, (1, 2))
    (tmp_path / "data" / "splits.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    return tmp_path / "data"


@torch.no_grad()
def test_teacher_is_the_mean_of_logits_without_a_front(checkpoint):
    """A frame of one colour looks the same at every size, so the mean is each of them."""
    same = [models.load(checkpoint, height=h, width=2 * h) for h in (72, 72)]
    frames = torch.rand(1, 1, 3, 72, 144)
    alone = models.load(checkpoint, front=0.0)(frames, no_motion(same[0], frames))
    torch.testing.assert_close(teacher_map(same, frames), alone, atol=1e-5, rtol=0)
    grey = torch.full((1, 1, 3, 72, 144), 0.4)
    sizes = [models.load(checkpoint, height=h, width=2 * h) for h in (48, 72, 96)]
    mean, first = teacher_map(sizes, grey), teacher_map(sizes[1:2], grey)
    assert (mean - first).abs().max() < 0.1 * first.max()
    row = mean[0, 0, 0, 36]
    assert row[72].item() == pytest.approx(row[0].item(), rel=0.05)  # front and back


def test_a_network_learns_the_target(checkpoint, data, tmp_path):
    """With no share of the teacher, it comes nearer to the map of its only training frame."""
    before = {name: tensor.clone() for name, tensor in models.load(checkpoint).state_dict().items()}
    losses = []
    for steps in (1, 60):
        output = tmp_path / f"{steps}.pth"
        words = "--data_root", data, "--steps", steps, "--teacher", 0
        run(main, checkpoint, output, *words)
        model = models.load(output, front=0.0)
        frames = torch.from_numpy(np.load(data / "a" / "0002_gt.npy"))
        losses.append(score(model, data, frames))
    assert losses[1] < losses[0]
    after = model.state_dict()
    fixed = [name for name in after if "running" in name]
    assert fixed and all(torch.equal(after[name], before[name]) for name in fixed)
    content = read(output)
    assert content["distilled"] == {
        "teacher": 0.0, "steps": 60, "seed": 0, "sha256": sha256(checkpoint),
    }  # fmt: skip
    assert model.arguments["front"] == 0.0 and models.load(output).arguments["front"] == 0.5


@torch.no_grad()
def score(model, data, truth):
    """1 − CC of the model's map of the last training frame."""
    frame = to_tensor(resize(read_picture(data / "a" / "0002.jpg"), 72, 144))[None, None]
    maps = model(frame, no_motion(model, frame))[0, 0, 0]
    target = torch.from_numpy(resize(truth.numpy(), 72, 144))
    return 1 - cc(maps, target).item()


def test_other_models_and_data_without_maps_are_refused(checkpoint, data, tmp_path):
    models.save(tmp_path / "equator.pth", EquatorPrior(8, 16))
    words = tmp_path / "out.pth", "--data_root", data
    code, _, line = ended(main, tmp_path / "equator.pth", *words)
    assert (code, "give one of a CubeUNet" in line) == (2, True)
    (data / "a" / "0002_gt.npy").unlink()
    code, _, line = ended(main, checkpoint, *words)
    assert (code, "no training frame with a map" in line) == (2, True)
