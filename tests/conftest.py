"""Fixtures of several files: a tiny network, a tiny clip, pictures and data sets.

Each imports what it needs: with -n auto, the process that hands out the tests reads this file too,
and would first load PyTorch. What it sets for PyTorch's threads, its workers inherit.
"""

from common import startup  # noqa: F401  # isort: skip


import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests in a browser and of the web page's server as slow."""
    for item in items:
        if {"browser", "page"} & {*item.fixturenames}:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    import torch

    import models

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
    from tests.clips import write_video

    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=23, fps=30)


@pytest.fixture
def data_root(tmp_path):
    from tests.clips import write_data_set

    return write_data_set(tmp_path / "data", train=["a"], val=["b"], test=["b"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data set and the checkpoint of a run of one epoch on it."""
    from tests.clips import write_data_set
    from tests.commands import success, train_one_epoch

    root = tmp_path_factory.mktemp("last")
    data = write_data_set(root / "data")
    success(train_one_epoch(data, root / "run", "--ema", "0.9"))
    return data, root / "run/cube_unet_last.pth"


@pytest.fixture
def picture_folder(tmp_path):
    """A folder of 12 frames."""
    from PIL import Image

    from tests.clips import moving_disc

    folder = tmp_path / "frames"
    folder.mkdir()
    for n in range(12):
        Image.fromarray(moving_disc(n, 48, 96)).save(folder / f"{n + 1:04d}.png")
    return folder


@pytest.fixture
def still(tmp_path):
    from PIL import Image

    from tests.clips import moving_disc

    Image.fromarray(moving_disc(3, 49, 97)).save(tmp_path / "still.png")
    return tmp_path / "still.png"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    from prepare.synthetic import write_dataset

    root = tmp_path_factory.mktemp("scenes") / "synthetic"
    write_dataset(root, clips=4, frames=4, height=40, width=80, attention_height=20)
    return root


@pytest.fixture(scope="module")
def clips_to_train(tmp_path_factory):
    from tests.trainings import write_data

    return write_data(tmp_path_factory.mktemp("data") / "scenes")
