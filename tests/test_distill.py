"""Distillation: the maps of a network at several sizes, mixed with those of a data set."""

import json

import numpy as np
import pytest
import torch

import models
from datasets.layouts import read_map
from models import CubeUNet
from projection import solid_angles
from recipes.distill import Teacher, density, main
from tests.clips import write_eccv_clip
from tests.commands import run
from video.pictures import read_picture


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.distill.HEIGHTS", (72, 96))
    torch.manual_seed(0)
    model = CubeUNet(base_channels=2, height=72, width=144, front=0.5).eval()
    with torch.no_grad():
        model.head.weight *= 5000  # so that image logits matter
    models.save(tmp_path / "net.pth", model)
    return tmp_path / "net.pth"


def test_teacher_is_the_mean_of_logits_without_a_front(checkpoint):
    """A picture of one colour looks the same at every size, so the mean is each of them."""
    grey = np.full((40, 80, 3), 90, np.uint8)
    saliency = Teacher(checkpoint)(grey, 18, 36)
    model = models.load(checkpoint, front=0.0)
    frames = torch.full((1, 1, 3, 72, 144), 90 / 255)
    with torch.no_grad():
        alone = model(frames, torch.zeros(1, 1, 1, 72, 144))[0, 0, 0]
    expected = alone.unflatten(0, (18, 4)).unflatten(2, (36, 4)).mean((1, 3)).numpy()
    assert np.abs(saliency / expected - 1).max() < 0.1
    front, behind = saliency[9, 18], saliency[9, 0]
    assert front == pytest.approx(behind, rel=0.05)


def test_training_maps_are_mixed_and_others_kept(checkpoint, tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    for name in ("a", "b"):
        write_eccv_clip(data / name, (1, 2))
    (data / "splits.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    command = checkpoint, "--data_root", data, "--output", output, "--teacher", 0.25
    run(main, *command)
    kept = sorted(path.name for path in (output / "a").iterdir() if path.suffix != ".json")
    assert kept == ["0001.jpg", "0002.jpg", "0002_gt.npy"]
    for path in (data / "b").iterdir():
        assert (output / "b" / path.name).read_bytes() == path.read_bytes()
    assert (output / "splits.json").exists()
    truth = density(read_map(data / "a" / "0002_gt.npy"))
    taught = (density(read_map(output / "a" / "0002_gt.npy")) - 0.75 * truth) / 0.25
    areas = solid_angles(*truth.shape).numpy()
    assert (taught * areas).sum() == pytest.approx(1, abs=0.01)
    expected = density(Teacher(checkpoint)(read_picture(data / "a" / "0002.jpg"), *truth.shape))
    assert np.abs(taught - expected).max() < 0.01 * max(expected.max(), truth.max())
    before = (output / "a" / "0002_gt.npy").stat().st_mtime_ns
    run(main, *command)  # nothing is made twice
    assert (output / "a" / "0002_gt.npy").stat().st_mtime_ns == before
