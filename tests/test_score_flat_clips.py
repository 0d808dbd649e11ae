"""Flat clips on the sphere: where a fixation lands, and what smoothing is compared with."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import models
from datasets.gaze import gaussian_map
from models import CubeUNet, EquatorPrior
from recipes.gaze_sources import Picture
from recipes.score_flat_clips import Clip, forms, main
from tests.commands import ended
from tests.test_gaze_scenes import write_clips


@pytest.fixture
def pictures(tmp_path):
    write_clips(tmp_path / "hevc33_video", ("Clip",))
    where = np.array([0.5, 1.0, 0.5]), np.array([0.5, 0.5, 1.0])
    paths = sorted((tmp_path / "hevc33_video" / "frames").iterdir())
    return [Picture(path, *where, np.ones(3)) for path in paths]


def test_a_fixation_lands_where_the_picture_is(pictures):
    """A picture of 40×30 in a view of 90°: its right edge at 45°, its lower edge at −atan(¾)."""
    clip = Clip(pictures, 60, 120, "difference")
    angles = np.array([0, math.pi / 4, 0]), np.array([0, 0, -math.atan(0.75)])
    expected = gaussian_map(*angles, 60, 120, 3.34)
    torch.testing.assert_close(clip.truth[2], expected, atol=1e-5, rtol=1e-4)
    pyramid = 4 * math.asin(0.75 / math.sqrt(2 * (1 + 0.75**2)))
    assert clip.region.expand(60, 120).sum().item() == pytest.approx(pyramid, rel=0.05)
    assert [frame.seconds for frame in clip.frames] == [n / 4 for n in range(6)]
    brightness = [frame.rgb[:, 30, 60].mean().item() * 255 for frame in clip.frames]
    assert brightness == pytest.approx([30 * n for n in range(6)], abs=3)
    assert clip.frames[1].motion[0, 30, 60].item() == pytest.approx(30 / 255, abs=0.02)
    assert torch.allclose(clip.frames[3].rgb[:, 0], torch.tensor(0.5))  # grey above


def test_a_perfect_map_has_a_cc_of_one(pictures):
    clip = Clip(pictures, 60, 120, "none")
    cc, nss = clip.scores(clip.truth)
    assert cc == pytest.approx(1, abs=1e-5)
    assert nss > 1


def test_forms_of_a_network(pictures):
    torch.manual_seed(0)
    model = CubeUNet(height=40, width=80, base_channels=2).eval()
    model.spec = replace(model.spec, smoothing=0.5)
    clip = Clip(pictures, 40, 80, "difference")
    found = dict(forms(model, clip.frames))
    assert list(found) == ["frames alone", "with motion", "with motion, smoothed"]
    with torch.no_grad():
        third = model(clip.frames[2].rgb[None, None], clip.frames[2].motion[None, None])[0, 0, 0]
    torch.testing.assert_close(found["with motion"][2], third)
    assert not torch.allclose(found["with motion"][2], found["with motion, smoothed"][2])
    assert model.spec.smoothing == 0.5


def test_command(tmp_path):
    write_clips(tmp_path / "hevc33_video", ("Kimono",))
    model = CubeUNet(height=40, width=80, base_channels=2)
    models.save(tmp_path / "net.pth", model)
    code, printed, _ = ended(main, tmp_path, "--ckpt_path", tmp_path / "net.pth")
    assert code == 0
    assert [line.split("|")[1].strip() for line in printed.splitlines()[2:]] == [
        "frames alone", "with motion", "with motion, smoothed", "Gaussian in the middle",
    ]  # fmt: skip
    models.save(tmp_path / "prior.pth", EquatorPrior(8, 16))
    code, _, line = ended(main, tmp_path, "--ckpt_path", tmp_path / "prior.pth")
    assert (code, "give one of a CubeUNet" in line) == (2, True)
    code, _, line = ended(main, tmp_path / "none", "--ckpt_path", tmp_path / "net.pth")
    assert code == 2
