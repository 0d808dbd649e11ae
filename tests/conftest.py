"""Fixtures of the scripts' tests: a tiny network and a tiny clip."""

import pytest
import torch

import models
from tests.clips import write_video


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = models.CubeUNet(height=40, width=80, base_channels=4)
    model.head.weight.data *= 10
    for _ in range(30):  # batch statistics, so that maps depend on frames
        model(torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80))
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    models.save(path, model)
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=23, fps=30)
