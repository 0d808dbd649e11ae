"""How sure a network is: factors that are known are found again."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import models
from cli import InputError
from models import CubeUNet, EquatorPrior
from recipes.calibrate import calibrate
from tests.trainings import write_data


def network() -> CubeUNet:
    torch.manual_seed(0)
    model = CubeUNet(base_channels=2, height=72, width=144).eval()
    with torch.no_grad():
        model.head.weight *= 5000  # so that something is seen
    return model


@torch.no_grad()
def clips_of(model, factors, count=6) -> list[dict]:
    """What it sees in noise, and as truth its maps with its logits changed by the factors."""
    clips = []
    for seed in range(count):
        random = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, 3, 6, 12, generator=random)
        frames = torch.nn.functional.interpolate(coarse, size=(72, 144), mode="bilinear")
        motion = torch.zeros(1, 1, 72, 144)
        seen, latitude = model.logits(frames[None], motion[None])
        truth = (factors[0] * seen + factors[1] * latitude + factors[2]).sigmoid()
        valid = torch.tensor([seed != 1])
        truth = truth if valid else torch.rand(truth.shape)
        clips.append({"frames": frames, "motion": motion, "target": truth, "valid": valid})
    return clips


def test_known_factors_are_found_and_the_model_has_them():
    model, factors = network(), (0.7, 0.8, 0.5)
    clips = clips_of(model, factors)
    found = calibrate(model, clips)
    assert found[:3] == pytest.approx(factors, abs=0.05)
    assert found.after < 0.02 * found.before
    item = clips[0]
    with torch.no_grad():
        maps = model(item["frames"][None], item["motion"][None])[0]
    torch.testing.assert_close(maps, item["target"], atol=0.01, rtol=0)


def test_what_is_right_stays():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = calibrate(model, clips_of(model, (1, 1, 0)))
    assert found[:3] == pytest.approx((1, 1, 0), abs=0.03)
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed <= {"head.weight", "head.bias", "latitude"}


def test_clips_without_truth_tell_nothing():
    model = network()
    clips = clips_of(model, (1, 1, 0), count=2)[1:]
    with pytest.raises(InputError, match="no frame .* has ground truth"):
        calibrate(model, clips)


def test_command(tmp_path):
    """Its loss goes down; what is no network on the sphere is refused."""
    data, model = write_data(tmp_path / "data"), network()
    model.spec = replace(model.spec, loss="density")
    models.save(tmp_path / "in.pth", model)
    models.save(tmp_path / "equator.pth", EquatorPrior())
    flat = CubeUNet(base_channels=2, height=40, width=60, flat=True)
    models.save(tmp_path / "flat.pth", flat)

    def run(name):
        command = [sys.executable, "-m", "recipes.calibrate", str(tmp_path / name)]
        command += [str(tmp_path / "out.pth"), "--data_root", str(data)]
        return subprocess.run(command, capture_output=True, text=True)

    for name in ("equator.pth", "flat.pth"):
        failed = run(name)
        assert failed.returncode == 2 and "not a CubeUNet on the sphere" in failed.stderr
        assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "out.pth").exists()
    done = run("in.pth")
    assert done.returncode == 0 and "density" in done.stdout, done.stderr
    facts = models.checkpoint.read(tmp_path / "out.pth")["calibrated"]
    assert facts["after"] < facts["before"] and len(facts["sha256"]) == 64
    after = models.load(tmp_path / "out.pth")
    assert after.spec == model.spec
    torch.testing.assert_close(after.head.weight, model.head.weight * facts["seen"])
