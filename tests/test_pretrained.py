"""Saliency read from EfficientNet-Lite0, and the file that it begins with."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import models
from losses import DensityLoss
from models import CubeUNet
from models.efficientnet_lite import STAGES, Conv, EfficientNetLite0, LiteReadout
from projection import CubePadding, Equi2Cube, directions
from recipes.pretrained import from_pretrained
from training import Trainer


def package_weights() -> dict[str, torch.Tensor]:
    """Random weights under the names and in the shapes of efficientnet_lite_pytorch."""
    weights, channels = {}, 32

    def conv(name, *shape):
        weights[f"{name}.weight"] = torch.randn(*shape) / 10

    def norm(name, size):
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.{part}"] = torch.rand(size)
        weights[f"{name}.num_batches_tracked"] = torch.tensor(0)

    conv("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    number = 0
    for kernel, _, expansion, out, repeats in STAGES:
        for _ in range(repeats):
            block, wide = f"_blocks.{number}", channels * expansion
            if expansion > 1:
                conv(f"{block}._expand_conv", wide, channels, 1, 1)
                norm(f"{block}._bn0", wide)
            conv(f"{block}._depthwise_conv", wide, 1, kernel, kernel)
            norm(f"{block}._bn1", wide)
            conv(f"{block}._project_conv", out, wide, 1, 1)
            norm(f"{block}._bn2", out)
            channels, number = out, number + 1
    conv("_conv_head", 1280, 320, 1, 1)
    norm("_bn1", 1280)
    weights["_fc.weight"], weights["_fc.bias"] = torch.rand(1000, 1280), torch.rand(1000)
    return weights


def test_every_weight_of_the_package_finds_its_place():
    weights = package_weights()
    encoder = EfficientNetLite0(nn.ZeroPad2d)
    encoder.load_state_dict(from_pretrained(weights))  # strict: no name is left over
    first, second = encoder.stages[0][0].layers, encoder.stages[2][1].layers  # blocks 0 and 4
    layers = {
        "_conv_stem _bn0": encoder.stem,
        "_blocks.0._depthwise_conv _blocks.0._bn1": first[0],
        "_blocks.0._project_conv _blocks.0._bn2": first[1],
        "_blocks.4._expand_conv _blocks.4._bn0": second[0],
        "_blocks.4._depthwise_conv _blocks.4._bn1": second[1],
        "_blocks.4._project_conv _blocks.4._bn2": second[2],
    }
    for names, layer in layers.items():
        conv, norm = names.split()
        published = nn.Sequential(
            copy.deepcopy(layer.conv), nn.BatchNorm2d(layer.conv.out_channels)
        )
        published[1].eps = 1e-3
        published[1].load_state_dict({k: weights[f"{norm}.{k}"] for k in published[1].state_dict()})
        published[0].load_state_dict(
            {"weight": weights[f"{conv}.weight"], "bias": torch.zeros_like(layer.conv.bias)}
        )
        image = torch.rand(2, layer.conv.in_channels, 9, 9)
        with torch.no_grad():
            torch.testing.assert_close(layer.conv(image), published.eval()(image))


def test_enlarged_features_lie_where_they_were():
    """A picture linear in row and column, averaged over squares and enlarged, is itself."""
    ramp = torch.arange(64.0)
    picture = (ramp[:, None] * 2 + ramp)[None, None]
    small = nn.functional.avg_pool2d(picture, 2)
    large = LiteReadout(3, nn.ReplicationPad2d).enlarge(small)
    inside = slice(2, -2)
    torch.testing.assert_close(large[..., inside, inside], picture[..., inside, inside])


def test_enlarged_features_have_no_edge_between_faces():
    """Of a smooth function on the sphere, the step across an edge is as any other."""
    size = torch.Size([64, 64])
    rays = Equi2Cube(256, 512, 64)(directions(256, 512, torch.float32).permute(2, 0, 1)[None])
    values = (rays * torch.tensor([1.0, 2.0, 3.0])[:, None, None]).sum(1, keepdim=True)
    small = nn.functional.avg_pool2d(values, 8)
    readout = LiteReadout(3, CubePadding)

    def step(faces):
        padded = CubePadding(1)(faces)
        return padded[..., 1:-1, :2].diff(dim=-1).abs().max().item()

    whole = small
    for _ in range(3):
        whole = readout.enlarge(whole)
    apart = nn.functional.interpolate(small, size, mode="bilinear")
    assert step(whole) < 1.2 * step(values) and step(apart) > 5 * step(values)


@pytest.mark.parametrize(("kernel", "size"), [(3, 8), (3, 7), (5, 8), (5, 7)])
@pytest.mark.parametrize("late", [False, True])
def test_strides_take_every_second_pixel(kernel, size, late):
    """ceil(n / 2) outputs. With a kernel that is 1 in its middle they are the input's pixels."""
    conv = Conv(1, 1, kernel, 2, 1, nn.ZeroPad2d, activate=False, late=late)
    nn.init.zeros_(conv.conv.weight)
    nn.init.zeros_(conv.conv.bias)
    with torch.no_grad():
        conv.conv.weight[..., kernel // 2, kernel // 2] = 1
        image = torch.arange(size * size, dtype=torch.float32).view(1, 1, size, size)
        out = conv(image)
    first = int(late and size % 2 == 0)
    torch.testing.assert_close(out, image[..., first::2, first::2])


def test_network_learns_all_but_the_first_stages():
    torch.manual_seed(0)
    model = CubeUNet(encoder="efficientnet_lite0", height=192, width=384)
    maps = model(torch.rand(1, 2, 3, 192, 384), torch.rand(1, 2, 1, 192, 384))
    assert maps.shape == (1, 2, 1, 192, 384)
    assert maps.min() >= 0 and maps.max() <= 1
    DensityLoss()(maps, torch.rand_like(maps)).backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("unet.encoder.stem", *(f"unet.encoder.stages.{k}." for k in range(3)))):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("channels", [3, 6])
def test_other_motion(channels):
    model = CubeUNet(channels, encoder="efficientnet_lite0", height=192, width=384).eval()
    assert (
        model(torch.rand(1, 1, 3, 192, 384), torch.rand(1, 1, channels - 3, 192, 384))
        .isfinite()
        .all()
    )


def test_the_encoder_learns_slowly():
    model = CubeUNet(encoder="efficientnet_lite0", height=192, width=384)
    trainer = Trainer(model, 10, torch.float32)
    batch = {
        "frames": torch.rand(1, 1, 3, 192, 384),
        "motion": torch.rand(1, 1, 1, 192, 384),
        "target": torch.rand(1, 1, 1, 192, 384),
        "valid": torch.ones(1, 1, dtype=torch.bool),
    }
    highest = trainer.learning_rate
    trainer.step(batch, 1)
    rates = {}
    for group in trainer.optimizer.param_groups:
        rates |= {id(weight): group["lr"] for weight in group["params"]}
    for name, weight in model.named_parameters():
        share = 0.1 if name.startswith("unet.encoder.") else 1.0
        if weight.requires_grad:
            assert rates.pop(id(weight)) == pytest.approx(share * highest), name
    assert not rates


def test_another_encoder_is_refused():
    with pytest.raises(ValueError, match="encoder"):
        CubeUNet(encoder="resnet")


def test_command_makes_a_checkpoint_to_begin_from(tmp_path):
    weights = package_weights()
    torch.save(weights, tmp_path / "lite.pth")
    command = [sys.executable, "-m", "recipes.pretrained"]
    paths = [str(tmp_path / "lite.pth"), str(tmp_path / "init.pth")]
    subprocess.run([*command, *paths], check=True)
    model = models.load(tmp_path / "init.pth")
    for name, value in from_pretrained(weights).items():
        assert torch.equal(model.unet.encoder.state_dict()[name], value), name
    (tmp_path / "other.pth").write_bytes(b"nothing")
    paths[0] = str(tmp_path / "other.pth")
    failed = subprocess.run([*command, *paths], capture_output=True, text=True)
    assert failed.returncode == 2 and "no weights of EfficientNet-Lite0" in failed.stderr
    assert failed.stderr.count("\n") == 1
