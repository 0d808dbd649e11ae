"""Calibration: known factors are found again and become part of the weights."""

import json

import pytest
import torch

import models
from common.errors import InputError
from models import CubeUNet, EquatorPrior
from recipes.calibrate import calibrate, main
from tests.clips import write_eccv_clip
from tests.commands import run


def network() -> CubeUNet:
    torch.manual_seed(0)
    model = CubeUNet(base_channels=2, height=72, width=144).eval()
    with torch.no_grad():
        model.head.weight *= 5000  # so that image logits matter
    return model


@torch.no_grad()
def clips_of(model, factors, count=6) -> list[dict]:
    """Frames of noise; their ground truth is the model's map with factors and offset applied."""
    clips = []
    for seed in range(count):
        random = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, 3, 6, 12, generator=random)
        frames = torch.nn.functional.interpolate(coarse, size=(72, 144), mode="bilinear")
        motion = torch.zeros(1, 1, 72, 144)
        image_logits, latitude_bias = model.logits(frames[None], motion[None])
        truth = (factors[0] * image_logits + factors[1] * latitude_bias + factors[2]).sigmoid()
        valid = torch.tensor([seed != 1])
        truth = truth if valid else torch.rand(truth.shape)
        clips.append({"frames": frames, "motion": motion, "target": truth, "valid": valid})
    return clips


def test_known_factors_are_found_and_become_part_of_the_weights():
    model, factors = network(), (0.7, 0.8, 0.5)
    clips = clips_of(model, factors)
    fitted = calibrate(model, clips)
    assert fitted[:3] == pytest.approx(factors, abs=0.05)
    assert fitted.after < 0.02 * fitted.before
    item = clips[0]
    with torch.no_grad():
        maps = model(item["frames"][None], item["motion"][None])[0]
    torch.testing.assert_close(maps, item["target"], atol=0.01, rtol=0)


def test_a_calibrated_model_stays_as_it_is():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fitted = calibrate(model, clips_of(model, (1, 1, 0)))
    assert fitted[:3] == pytest.approx((1, 1, 0), abs=0.03)
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed <= {"head.weight", "head.bias", "latitude_bias"}


def test_clips_without_ground_truth_are_refused():
    model = network()
    clips = clips_of(model, (1, 1, 0), count=2)[1:]
    with pytest.raises(ValueError, match="no frame .* has ground truth"):
        calibrate(model, clips)


def test_command_lowers_the_loss_and_refuses_other_models(tmp_path, capsys):
    write_eccv_clip(tmp_path / "data" / "clip", range(1, 5), 20, 40)
    (tmp_path / "data" / "splits.json").write_text(json.dumps({"train": [], "val": ["clip"]}))
    model = network()
    models.save(tmp_path / "in.pth", model, mean_of=["a", "b"], run={"loss": "density"})
    models.save(tmp_path / "equator.pth", EquatorPrior())

    rest = tmp_path / "out.pth", "--data_root", tmp_path / "data"
    with pytest.raises(InputError, match="give one of a CubeUNet"):
        run(main, tmp_path / "equator.pth", *rest)
    assert not (tmp_path / "out.pth").exists()
    run(main, tmp_path / "in.pth", *rest)
    assert "image factor" in capsys.readouterr().out
    facts = models.checkpoint.read(tmp_path / "out.pth")
    fitted = facts["calibrated"]
    assert fitted["after"] < fitted["before"] and len(fitted["sha256"]) == 64
    assert facts["mean_of"] == ["a", "b"] and facts["run"] == {"loss": "density"}
    after = models.load(tmp_path / "out.pth")
    assert after.spec == model.spec
    torch.testing.assert_close(after.head.weight, model.head.weight * fitted["image"])
