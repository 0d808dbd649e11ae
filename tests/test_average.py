"""The mean of checkpoints."""

import pytest
import torch

import models
from cli import InputError
from models import CubeUNet
from recipes.average import main
from tests.commands import run


def test_mean_of_checkpoints(tmp_path):
    """Frames may differ in size; another network is refused."""
    sizes = ((2, 68, 136), (2, 72, 144), (3, 68, 136))
    networks = [CubeUNet(base_channels=c, height=h, width=w) for c, h, w in sizes]
    paths = [tmp_path / name for name in ("1.pth", "2.pth", "other.pth")]
    for path, network in zip(paths, networks, strict=True):
        models.save(path, network)
    run(main, tmp_path / "mean.pth", *paths[:2])
    first, second = (network.state_dict() for network in networks[:2])
    mean = models.load(tmp_path / "mean.pth")
    assert mean.arguments == networks[0].arguments
    for name, value in mean.state_dict().items():
        expected = (first[name] + second[name]).div(2).to(value.dtype)
        torch.testing.assert_close(value, expected)
    with pytest.raises(InputError, match="other.pth: not the same kind of model"):
        run(main, tmp_path / "mean.pth", *paths)
