"""Models as ONNX: onnxruntime gives the maps of PyTorch."""

import re
import warnings
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import models
from common import errors
from common.options import CHECKPOINT
from models import export_onnx
from tests.clips import moving_disc
from tests.commands import ROOT, ended, refusal
from tests.seeded_sst_sal import seeded_weights
from tests.shared import shared
from video import read_frames

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/onnx.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def written(model_path, path, *more):
    """Export a checkpoint by the command and open the file, whose opset must be the stated one."""
    with warnings.catch_warnings():
        code, printed, line = ended(export_onnx.main, model_path, path, *more)
    assert code == 0 and str(path) in printed, line
    opsets = {entry.domain: entry.version for entry in onnx.load(path).opset_import}
    assert opsets.pop("", None) == export_onnx.OPSET and not opsets
    assert [p.name for p in path.parent.glob(f"*{path.suffix}*")] == [path.name]  # all in one file
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def clips(model, frames, batch):
    """Smooth random frames and motion images, (B, T, C, H, W)."""
    spec, channels = model.spec, export_onnx.MOTIONS[model.spec.motion].channels
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch * frames, 3 + channels, 6, 12, generator=random)
    clip = torch.nn.functional.interpolate(coarse, (spec.height, spec.width), mode="bilinear")
    return clip.unflatten(0, (batch, frames)).split((3, channels), dim=2)


def largest_error(model, session, frames=1, batch=1):
    """The largest difference of the maps of clips; the network's own maps span more than 0.01."""
    rgb, motion = clips(model, frames, batch)
    with torch.inference_mode():
        wanted = model(rgb, motion).numpy()
    assert np.ptp(wanted) > 0.01
    inputs, worst = [i.name for i in session.get_inputs()], 0.0
    shapes = {i.name: i.shape[1:] for i in session.get_inputs() if i.name in export_onnx.STATE}
    state = {name: np.zeros((batch, *shape), np.float32) for name, shape in shapes.items()}
    for t in range(frames):
        given = {"frames": rgb[:, t].numpy(), "motion": motion[:, t].numpy(), **state}
        found, *after = session.run(None, {name: given[name] for name in inputs})
        state = dict(zip(state, after))
        worst = max(worst, np.abs(found - wanted[:, t]).max())
    return worst


def test_the_u_net_and_the_example_of_the_page(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session, model = written(checkpoint, tmp_path / "model.onnx"), models.load(checkpoint)
    assert [i.shape for i in session.get_inputs()] == [["batch", 3, 40, 80], ["batch", 1, 40, 80]]
    for batch in (1, 3):
        assert largest_error(model, session, batch=batch) < 1e-4
    (tmp_path / "frames").mkdir()
    for n in range(1, 4):
        Image.fromarray(moving_disc(n, 80, 160)).save(tmp_path / f"frames/{n}.png")
    exec(EXAMPLE, {})
    model.use_motion("steady_difference")  # which the shipped network takes
    for frame, saliency in models.predict(model, read_frames(tmp_path / "frames", model.spec)):
        found = np.load(tmp_path / f"frames/{frame.number}.npy")
        np.testing.assert_allclose(found, saliency[0], atol=1e-5)


@pytest.mark.parametrize("kind", [{"backbone": "published"}, {"second_look": 0.5}])
def test_the_published_network_and_one_that_looks_twice(kind, tmp_path):
    torch.manual_seed(0)
    network = {"base_channels": 4, "height": 72, "width": 144, **kind}
    model = models.CubeUNet(**network).eval()
    model.head.weight.data *= 30
    models.save(tmp_path / "m.pth", model)
    assert largest_error(model, written(tmp_path / "m.pth", tmp_path / "m.onnx"), batch=2) < 1e-4


@pytest.mark.parametrize("sampling", ["seamless", "reference"])
def test_sst_sal_with_its_state(sampling, tmp_path):
    model = models.SSTSal(6, 16, height=24, width=32).eval()
    model.load_state_dict(seeded_weights("seeded"))
    models.save(tmp_path / "sst.pth", model)
    model = models.load(tmp_path / "sst.pth", sampling=sampling)
    session = written(tmp_path / "sst.pth", tmp_path / "sst_sal.onnx", "--sampling", sampling)
    names = [f"{place}_{kind}" for place in ("encoder", "decoder") for kind in ("hidden", "cell")]
    assert [i.name for i in session.get_inputs()] == ["frames", "motion", *names]
    assert [o.name for o in session.get_outputs()] == ["saliency", *(f"next_{n}" for n in names)]
    assert largest_error(model, session, frames=20, batch=2) < 1e-4


def test_the_equator_prior(tmp_path):
    models.save(tmp_path / "e.pth", model := models.EquatorPrior(10, 20))
    assert largest_error(model, written(tmp_path / "e.pth", tmp_path / "e.onnx"), batch=3) < 1e-6


OWN = """
import torch
from models import SaliencyModel, Spec

class Own(SaliencyModel):
    def __init__(self, length: int = 1, branch: bool = False):
        super().__init__(Spec(height=8, width=16, clip_length=length), length=length, branch=branch)
    def forward(self, frames, motion):
        if self.arguments["branch"] and frames.mean() > 0.5:
            return frames.mean(2, keepdim=True)
        return frames.amax(2, keepdim=True).flip(-1)
"""


@mock.patch.dict(models.MODELS.known)
def test_a_model_of_ones_own_is_exported_or_refused(tmp_path, monkeypatch):
    (tmp_path / "own_onnx.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(errors, "_own_code", False)
    kind, out = models.find_model("own_onnx:Own"), tmp_path / "own.onnx"
    for name, arguments in (("own", {}), ("clip", {"length": 5}), ("branch", {"branch": True})):
        models.save(tmp_path / f"{name}.pth", kind(**arguments))
    more = "--model", "own_onnx:Own"
    code, _, line = ended(export_onnx.main, tmp_path / "clip.pth", out, *more)
    assert code == 2 and "own_onnx:Own takes clips of 5 frames" in line
    with pytest.raises(RuntimeError):  # of torch.export, which follows no branch
        ended(export_onnx.main, tmp_path / "branch.pth", out, *more)
    assert not out.exists()
    assert largest_error(kind(), written(tmp_path / "own.pth", out, *more), batch=2) < 1e-6


def test_refusals(checkpoint, tmp_path, monkeypatch):
    for words, text in (
        ((checkpoint, tmp_path / "m.pt"), ".onnx"),
        ((tmp_path / "none.pth", tmp_path / "m.onnx"), "no such file"),
        ((checkpoint, tmp_path / "m.onnx", "--sampling", "reference"), "leave out arguments"),
    ):
        refusal(ended(export_onnx.main, *words), text)
    monkeypatch.setattr(export_onnx.importlib.util, "find_spec", lambda name: None)
    refusal(ended(export_onnx.main, checkpoint, tmp_path / "m.onnx"), "pip install onnx onnxscript")
    assert not list(tmp_path.iterdir())


def test_the_shipped_network(tmp_path):
    session = written(CHECKPOINT, tmp_path / "model.onnx")
    assert largest_error(models.load(CHECKPOINT), session) < 1e-4


@pytest.mark.numbers
@pytest.mark.parametrize("sampling", ["seamless", "reference"])
@pytest.mark.parametrize("name", ["SST_Sal.pth", "SST_Sal_wo_OF.pth"])
def test_the_authors_weights(name, sampling, tmp_path):
    path = shared(f"official/{name}")
    session = written(path, tmp_path / "sst.onnx", "--sampling", sampling)
    assert largest_error(models.load(path, sampling=sampling), session, frames=8) < 1e-4
