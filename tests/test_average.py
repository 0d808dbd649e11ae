"""The mean of checkpoints."""

import pytest
import torch

import models
from common.errors import InputError
from models import CubeUNet
from models.checkpoint import read
from recipes.average import main
from tests.commands import run


def test_mean_of_checkpoints(tmp_path):
    """Frames may differ in size; another network is refused."""
    sizes = ((2, 68, 136), (2, 72, 144), (3, 68, 136))
    networks = [CubeUNet(base_channels=c, height=h, width=w) for c, h, w in sizes]
    paths = [tmp_path / name for name in ("1.pth", "2.pth", "other.pth")]
    for path, network, lr in zip(paths, networks, (1, 2, 3), strict=True):
        models.save(path, network, run={"loss": "density", "learning_rate": lr})
    run(main, tmp_path / "mean.pth", *paths[:2])
    first, second = (network.state_dict() for network in networks[:2])
    mean = models.load(tmp_path / "mean.pth")
    assert mean.arguments == networks[0].arguments
    assert read(tmp_path / "mean.pth")["run"] == {"loss": "density"}  # it was lost
    for name, value in mean.state_dict().items():
        expected = (first[name] + second[name]).div(2).to(value.dtype)
        torch.testing.assert_close(value, expected)
    with pytest.raises(InputError, match="other.pth: not the same kind of model"):
        run(main, tmp_path / "mean.pth", *paths)
