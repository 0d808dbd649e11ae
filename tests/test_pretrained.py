"""The checkpoint that a training begins with: EfficientNet-Lite0 in a CubeUNet."""

import copy

import pytest
import torch
from torch import nn

import models
from common.errors import InputError
from models.efficientnet_lite import STAGES, EfficientNetLite0
from recipes.pretrained import from_pretrained, main
from tests.commands import run


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
    encoder = EfficientNetLite0()
    encoder.load_state_dict(from_pretrained(weights))  # strict: no name is left over
    first, second = encoder.stages[0][0], encoder.stages[2][1]  # blocks 0 and 4
    layers = {
        "_conv_stem _bn0": encoder.stem,
        "_blocks.0._depthwise_conv _blocks.0._bn1": first.depthwise,
        "_blocks.0._project_conv _blocks.0._bn2": first.project,
        "_blocks.4._expand_conv _blocks.4._bn0": second.expand,
        "_blocks.4._depthwise_conv _blocks.4._bn1": second.depthwise,
        "_blocks.4._project_conv _blocks.4._bn2": second.project,
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


def test_command_makes_a_checkpoint_to_begin_from(tmp_path):
    weights = package_weights()
    torch.save(weights, tmp_path / "lite.pth")
    run(main, tmp_path / "lite.pth", tmp_path / "init.pth")
    model = models.load(tmp_path / "init.pth")
    for name, value in from_pretrained(weights).items():
        assert torch.equal(model.backbone.encoder.state_dict()[name], value), name
    (tmp_path / "other.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="other.pth: not the weights of EfficientNet-Lite0"):
        run(main, tmp_path / "other.pth", tmp_path / "init.pth")
