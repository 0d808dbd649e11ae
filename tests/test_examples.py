"""The examples in docstrings run, and every public name has one."""

import doctest
import importlib

import pytest
import torch

from tests.shared import REFERENCE

PUBLIC = {
    "projection.cubemap": ("Equi2Cube", "Cube2Equi"),
    "projection.cube_pad": ("CubePadding",),
    "losses.smse": ("SMSE",),
    "models.cube_unet": ("CubeUNet",),
    "models.sst_sal": ("SSTSal",),
    "models.checkpoint": ("load",),
    "models.predict": ("predict",),
}


@pytest.mark.parametrize("home", PUBLIC)
def test_examples_run(home, monkeypatch):
    monkeypatch.chdir(REFERENCE.parents[1])  # some read checkpoints/
    torch.manual_seed(0)
    module = importlib.import_module(home)
    found = doctest.DocTestFinder(recurse=True).find(module, home)
    shown = {test.name.removeprefix(f"{home}.") for test in found if test.examples}
    assert shown >= set(PUBLIC[home]), "a public name has no example"
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0
