"""Networks in their fastest form give the maps of the networks that were trained."""

import pytest
import torch
from torch import nn

import models
from models import CubeUNet, deploy
from models.deploy import FusedConv

KINDS = {
    "plain": {"base_channels": 4, "height": 80, "width": 160},
    "published": {"backbone": "published", "base_channels": 4, "height": 80, "width": 160},
    "local_prior": {"base_channels": 4, "height": 80, "width": 160, "local_prior": True},
    "no_motion": {"backbone": "efficientnet_lite0", "in_channels": 3, "height": 192, "width": 384},
    "motion": {"backbone": "efficientnet_lite0", "height": 192, "width": 384},
    "two_looks": {
        "backbone": "efficientnet_lite0",
        "height": 384,
        "width": 768,
        "second_look": 0.5,
    },
    "flow": {"backbone": "efficientnet_lite0", "in_channels": 6, "height": 192, "width": 384},
}


def settled(kind):
    """Return a network of random weights whose BatchNorms have seen something."""
    torch.manual_seed(0)
    model = CubeUNet(**KINDS[kind])
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight.data, norm.running_var):
                values.uniform_(0.5, 2)
            for values in (norm.bias.data, norm.running_mean):
                values.normal_(0, 0.3)
    return model.eval()


def clip_for(model, frames=1):
    size, channels = (model.spec.height, model.spec.width), model.arguments["in_channels"]
    generator = torch.Generator().manual_seed(1)
    shapes = ((1, frames, n, *size) for n in (3, channels - 3))
    return [torch.rand(shape, generator=generator) for shape in shapes]


def correlation(one, other):
    return torch.corrcoef(torch.stack([m.flatten().double() for m in (one, other)]))[0, 1]


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_maps_stay_the_same(kind, onednn):
    """With oneDNN's operator and without, for one frame and for two."""
    model = settled(kind)
    clip = clip_for(model, 2)
    before = model(*clip)
    fused = [m for m in deploy(model, torch.float32).modules() if isinstance(m, FusedConv)]
    for conv in fused:
        conv.onednn = conv.onednn and onednn
    assert len(fused) >= 15 and not any(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(model(*clip), before, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("padding", [
    {"padding": 1}, {"padding": (0, 2), "stride": 4}, {"padding": "same", "dilation": 2},
    {"padding": "valid"}, {"padding": 1, "padding_mode": "circular"},
    {"padding": 1, "bias": False}, {"padding": 0, "groups": 2}, {"padding": 0, "bias": False},
])  # fmt: skip
@torch.inference_mode()
def test_a_backbone_keeps_the_padding_of_its_convolutions(padding, onednn):
    """It was dropped: with stride 4, maps changed by 11 %."""
    model = settled("plain")
    norm = nn.BatchNorm2d(6)  # before a convolution; zeros around it are not normalised
    norm.running_mean.normal_()
    norm.bias.data.normal_()
    first = nn.Conv2d(4, 6, 3, **{"padding": 1} | padding | {"groups": 1})
    layers = first, nn.ReLU(), norm, nn.Conv2d(6, 4, 3, **padding), nn.ReLU()
    model.backbone = nn.Sequential(*layers).eval()
    x = torch.rand(6, 4, 20, 20)
    before = model.backbone(x)
    fused = deploy(model, torch.float32).backbone
    for conv in fused.modules():
        if isinstance(conv, FusedConv):
            conv.onednn = conv.onednn and onednn
    torch.testing.assert_close(fused(x), before, atol=2e-5, rtol=1e-4)


def test_the_only_batch_norm_left_is_beside_no_convolution():
    model = deploy(settled("motion"), torch.float32)
    left = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert left == ["backbone.mix.0"]
    assert not any(
        isinstance(m, nn.BatchNorm2d) for m in deploy(settled("plain"), torch.float32).modules()
    )


@torch.inference_mode()
def test_the_shipped_network_in_bfloat16():
    path = "checkpoints/cube_unet_best.pth"
    model, fast = models.load(path), deploy(models.load(path), torch.bfloat16)
    frames = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 32), (512, 1024), mode="bicubic")
    clip = frames.clamp(0, 1)[None], torch.full((1, 1, 1, 512, 1024), 0.5)
    exact = model(*clip)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(*clip)
    assert correlation(fast(*clip), mixed) > 0.9995
    assert correlation(fast(*clip), exact) > 0.9995


@torch.inference_mode()
def test_other_models_stay_as_they_are():
    model = models.SSTSal(height=16, width=32, hidden_channels=2)
    clip = torch.rand(1, 2, 3, 16, 32), torch.rand(1, 2, model.arguments["in_channels"] - 3, 16, 32)
    before = model.eval()(*clip)
    assert torch.equal(deploy(model, torch.bfloat16)(*clip), before)
