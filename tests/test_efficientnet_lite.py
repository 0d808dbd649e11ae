"""The backbone with EfficientNet-Lite0 features."""

import pytest
import torch
from torch import nn

from losses import DensityLoss
from models import CubeUNet
from models.efficientnet_lite import Conv, EfficientNetReadout
from projection import CubePadding, Equi2Cube, directions


def test_enlarged_features_lie_where_they_were():
    """A picture linear in row and column, averaged over squares and enlarged, is itself."""
    ramp = torch.arange(64.0)
    picture = (ramp[:, None] * 2 + ramp)[None, None]
    small = nn.functional.avg_pool2d(picture, 2)
    readout = EfficientNetReadout(3)
    readout.pad = nn.ReplicationPad2d(1)
    large = readout.enlarge(small)
    inside = slice(2, -2)
    torch.testing.assert_close(large[..., inside, inside], picture[..., inside, inside])


def test_enlarged_features_have_no_edge_between_faces():
    """Of a smooth function on the sphere, the step across an edge is as any other."""
    size = torch.Size([64, 64])
    rays = Equi2Cube(256, 512, 64)(directions(256, 512, torch.float32).permute(2, 0, 1)[None])
    values = (rays * torch.tensor([1.0, 2.0, 3.0])[:, None, None]).sum(1, keepdim=True)
    small = nn.functional.avg_pool2d(values, 8)
    readout = EfficientNetReadout(3)

    def step(faces):
        padded = CubePadding(1)(faces)
        return padded[..., 1:-1, :2].diff(dim=-1).abs().max().item()

    whole = small
    for _ in range(3):
        whole = readout.enlarge(whole)
    apart = nn.functional.interpolate(small, size, mode="bilinear")
    assert step(whole) < 1.2 * step(values) and step(apart) > 5 * step(values)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("late", [False, True])
def test_strides_take_every_second_pixel(kernel, late):
    """With a kernel that is 1 at its centre the outputs are every second pixel of the input."""
    conv, pad = Conv(1, 1, kernel, 2, activate=False), CubePadding(kernel // 2, late)
    nn.init.zeros_(conv.conv.weight)
    nn.init.zeros_(conv.conv.bias)
    with torch.no_grad():
        conv.conv.weight[..., kernel // 2, kernel // 2] = 1
        faces = torch.arange(384.0).view(6, 1, 8, 8)
        torch.testing.assert_close(conv(pad(faces)), faces[..., int(late) :: 2, int(late) :: 2])


def test_network_learns_all_but_the_first_stages():
    torch.manual_seed(0)
    model = CubeUNet(backbone="efficientnet_lite0", height=192, width=384)
    maps = model(torch.rand(1, 2, 3, 192, 384), torch.rand(1, 2, 1, 192, 384))
    assert maps.shape == (1, 2, 1, 192, 384)
    assert maps.min() >= 0 and maps.max() <= 1
    DensityLoss()(maps, torch.rand_like(maps)).backward()
    for name, parameter in model.named_parameters():
        if name.startswith(
            ("backbone.encoder.stem", *(f"backbone.encoder.stages.{k}." for k in range(3)))
        ):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("channels", [3, 6])
def test_other_motion(channels):
    model = CubeUNet(channels, backbone="efficientnet_lite0", height=192, width=384).eval()
    assert (
        model(torch.rand(1, 1, 3, 192, 384), torch.rand(1, 1, channels - 3, 192, 384))
        .isfinite()
        .all()
    )


def test_another_backbone_is_refused():
    with pytest.raises(ValueError, match="backbone"):
        CubeUNet(backbone="resnet")


def test_depthwise_convolutions_are_trained_in_float32_on_a_cpu():
    """In bfloat16 their gradients took three times as long, and a step longer than in float32."""
    torch.manual_seed(0)
    conv, x = Conv(8, 8, 3, groups=8), torch.rand(2, 8, 6, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        trained = conv(x)
        with torch.no_grad():
            assert conv(x).dtype == torch.bfloat16
    assert torch.equal(trained, conv(x.float()))
    gradients = [torch.autograd.grad(y.sum(), conv.conv.weight) for y in (trained, conv(x.float()))]
    assert torch.equal(*(gradient for (gradient,) in gradients))
    assert conv.double()(x.double()).dtype == torch.float64  # which was once made float32
