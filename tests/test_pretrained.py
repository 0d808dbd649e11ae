"""The U-Net whose way down is EfficientNet-Lite0, and the file that it begins with."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import models
from losses import DensityLoss
from models import CubeUNet
from models.efficientnet_lite import STAGES, Conv, EfficientNetLite0
from models.pretrained import from_pretrained


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
    encoder = EfficientNetLite0(4, nn.ZeroPad2d)
    encoder.load_state_dict(from_pretrained(weights, 4))  # strict: no name is left over
    assert torch.equal(encoder.stem.conv.weight[:, :3], weights["_conv_stem.weight"])
    assert encoder.stem.conv.weight[:, 3].abs().max() == 0  # motion says nothing at first
    first, second = encoder.stages[0][0].layers, encoder.stages[2][1].layers  # blocks 0 and 4
    assert torch.equal(first[0].conv.weight, weights["_blocks.0._depthwise_conv.weight"])
    assert torch.equal(first[1].norm.bias, weights["_blocks.0._bn2.bias"])
    assert torch.equal(second[0].norm.running_var, weights["_blocks.4._bn0.running_var"])
    assert torch.equal(second[1].conv.weight, weights["_blocks.4._depthwise_conv.weight"])
    assert torch.equal(second[2].conv.weight, weights["_blocks.4._project_conv.weight"])


@pytest.mark.parametrize(("kernel", "size"), [(3, 8), (3, 7), (5, 8), (5, 7)])
def test_strided_like_tensorflow(kernel, size):
    """'SAME': ceil(n / 2) outputs; of the padding, the odd pixel comes behind.

    With a kernel that is 1 in its middle, output k is input 2k for odd n. For even n one pixel
    less comes before, so that it is input 2k + 1.
    """
    conv = Conv(1, 1, kernel, 2, 1, nn.ZeroPad2d, activate=False).eval()
    nn.init.zeros_(conv.conv.weight)
    with torch.no_grad():
        conv.conv.weight[..., kernel // 2, kernel // 2] = 1
        image = torch.arange(size * size, dtype=torch.float32).view(1, 1, size, size)
        out = conv(image) * (1 + 1e-3) ** 0.5
    first = 1 - size % 2
    torch.testing.assert_close(out, image[..., first::2, first::2])


def test_network_at_half_resolution_and_its_gradient():
    torch.manual_seed(0)
    model = CubeUNet(encoder="efficientnet_lite0", height=132, width=264)
    maps = model(torch.rand(1, 2, 3, 132, 264), torch.rand(1, 2, 1, 132, 264))
    assert maps.shape == (1, 2, 1, 132, 264)
    assert maps.min() >= 0 and maps.max() <= 1
    DensityLoss()(maps, torch.rand_like(maps)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_another_encoder_is_refused():
    with pytest.raises(ValueError, match="encoder"):
        CubeUNet(encoder="resnet")


def test_command_makes_a_checkpoint_to_begin_from(tmp_path):
    weights = package_weights()
    torch.save(weights, tmp_path / "lite.pth")
    command = [sys.executable, "-m", "models.pretrained"]
    paths = [str(tmp_path / "lite.pth"), str(tmp_path / "init.pth")]
    subprocess.run([*command, *paths], check=True)
    model = models.load(tmp_path / "init.pth")
    stem = model.unet.encoder.stem.conv.weight
    assert torch.equal(stem[:, :3], weights["_conv_stem.weight"])
    (tmp_path / "other.pth").write_bytes(b"nothing")
    paths[0] = str(tmp_path / "other.pth")
    failed = subprocess.run([*command, *paths], capture_output=True, text=True)
    assert failed.returncode == 2 and "no weights of EfficientNet-Lite0" in failed.stderr
    assert failed.stderr.count("\n") == 1
