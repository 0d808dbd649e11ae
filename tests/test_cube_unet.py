"""The cube U-Net: sizes, learning, edges, priors, backbones, and its fastest form."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import models
from common.errors import InputError
from losses import SMSE, DensityLoss
from models import CubeUNet, deploy
from models.deploy import FusedConv
from models.efficientnet_lite import Block, Conv, EfficientNetReadout, enlarge
from models.equator_prior import gaze_density
from projection import CubePadding, Equi2Cube, directions, solid_angles
from projection.cube_pad import PADDINGS
from tests.checkpoints import small_unet


@pytest.mark.parametrize("size", [(80, 160, None), (68, 140, 35), (61, 123, 31), (60, 120, 17)])
def test_unet_at_any_size(size):
    """Among them faces that do not halve evenly."""
    height, width, face_size = size
    model = small_unet(height=height, width=width, face_size=face_size)
    maps = model(torch.rand(2, 3, 3, height, width), torch.rand(2, 3, 1, height, width))
    assert maps.shape == (2, 3, 1, height, width)
    assert maps.min() >= 0
    assert maps.max() <= 1


@pytest.mark.parametrize("backbone", ["plain", "published"])
def test_gradient_reaches_every_weight_through_the_projection(backbone):
    """Regression: the published script detaches the map before its loss, so backward() fails."""
    model = small_unet(backbone=backbone)
    maps = model(torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80))
    SMSE()(maps, torch.rand_like(maps)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_latitude_prior_is_where_the_rows_are_and_the_network_can_outvote_it():
    """With a network that says nothing, rows follow the prior; with a logit of 9, it wins."""
    model = CubeUNet(base_channels=4, height=48, width=96).eval()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    torch.nn.init.zeros_(model.latitude_bias)
    with torch.no_grad():
        model.latitude_bias[..., 16] = 3.0  # the equator
        row = model(torch.rand(1, 1, 3, 48, 96), torch.zeros(1, 1, 1, 48, 96))[0, 0, 0]
        assert torch.allclose(row, row[:, :1].expand_as(row), atol=1e-6)
        assert torch.allclose(row[:23], row[25:].flip(0), atol=1e-6)
        assert row[23, 0] > 0.85 and row[0, 0] == 0.5
        model.head.bias.fill_(9.0)
        assert model(torch.rand(1, 1, 3, 48, 96), torch.zeros(1, 1, 1, 48, 96)).min() > 0.99


def test_faces_that_do_not_halve_evenly_are_refused():
    for width in (240, 256, 480):
        with pytest.raises(ValueError, match="96, 128"):
            CubeUNet(backbone="efficientnet_lite0", height=width // 2, width=width)
    with pytest.raises(ValueError, match="one of plain, published, efficientnet_lite0"):
        CubeUNet(backbone="resnet")


def test_frames_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"images \(B, C, 40, 80\), got \(1, 4, 72, 144\)"):
        small_unet()(torch.rand(1, 1, 3, 72, 144), torch.rand(1, 1, 1, 72, 144))


def test_another_motion_image_must_have_as_many_channels():
    model = CubeUNet(in_channels=6, base_channels=4, height=68, width=136)
    model.use_motion("raft")
    assert model.spec.motion == "raft"
    with pytest.raises(ValueError, match="1 channels, but this model takes 3"):
        model.use_motion("difference")


def test_wrong_channels_are_refused():
    with pytest.raises(ValueError, match="3 \\+ 0"):
        small_unet()(torch.rand(1, 1, 3, 40, 80), torch.rand(1, 1, 0, 40, 80))
    with pytest.raises(ValueError, match="in_channels"):
        CubeUNet(in_channels=7)


def test_the_front_is_favoured_by_the_density_over_longitude():
    """With power f, log odds gain f times the logarithm of the prior's density over longitude."""
    torch.manual_seed(0)
    model = models.CubeUNet(height=40, width=80, base_channels=2, front=0.5).eval()
    frames, motion = torch.rand(1, 1, 3, 40, 80), torch.rand(1, 1, 1, 40, 80)
    plain = models.CubeUNet(height=40, width=80, base_channels=2).eval()
    plain.load_state_dict(model.state_dict())
    gained = (model(frames, motion).logit() - plain(frames, motion).logit())[0, 0, 0]
    density = gaze_density(40, 80)[20]
    expected = 0.5 * (density / density.mean()).log().float()
    torch.testing.assert_close(gained, expected.expand(40, 80), atol=1e-4, rtol=0)
    assert expected[39] == expected.max() and torch.allclose(expected, expected.flip(0))
    # Clips are turned to any side in training, where there is no front.
    assert torch.equal(model.train()(frames, motion), plain.train()(frames, motion))
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="front must be from 0 to 1"):
            models.CubeUNet(height=40, width=80, base_channels=2, front=wrong)


@pytest.mark.parametrize("front", [0.0, 0.5])
def test_the_share_of_the_prior_is_a_share_of_the_maps_integral(front):
    torch.manual_seed(0)
    size = {"height": 40, "width": 80, "base_channels": 2, "front": front}
    model, plain = (models.CubeUNet(**size, prior_share=share).eval() for share in (0.25, 0.0))
    plain.load_state_dict(model.state_dict())
    frames, motion = torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80)
    mixed, own, areas = model(frames, motion), plain(frames, motion), solid_angles(40, 80)
    integral = (own * areas).sum((-2, -1), keepdim=True)
    density = gaze_density(40, 80 if front else 1).float()  # its integral over the sphere is 1
    torch.testing.assert_close(mixed, 0.75 * own + 0.25 * integral * density)
    torch.testing.assert_close((mixed * areas).sum((-2, -1), keepdim=True), integral)
    torch.nn.init.constant_(model.head.bias, 30.0)  # 1 everywhere, the prior's maximum is higher
    assert model(frames, motion).max() <= 1
    plain.load_state_dict(model.state_dict())  # in training, clips are turned to any side
    assert torch.equal(model.train()(frames, motion), plain.train()(frames, motion))
    with pytest.raises(ValueError, match="prior_share must be from 0 to 1"):
        models.CubeUNet(**size, prior_share=1.5)


def test_the_fast_quality_takes_smaller_frames(tmp_path):
    path = tmp_path / "m.pth"
    model = CubeUNet(base_channels=4, height=80, width=160)
    model.spec = replace(model.spec, fps=5.0)
    models.save(path, model)
    fast = models.load(path, quality="fast")
    assert fast.spec == replace(model.spec, height=60, width=120)
    assert models.load(path).spec == model.spec
    with pytest.raises(InputError, match="no quality 'good'"):
        models.load(path, quality="good")
    models.save(path, models.EquatorPrior(8, 16))
    with pytest.raises(InputError, match="no quality 'fast'"):
        models.load(path, quality="fast")


def test_enlarged_features_lie_where_they_were():
    """A picture linear in row and column, averaged over squares and enlarged, is itself."""
    ramp = torch.arange(64.0)
    picture = (ramp[:, None] * 2 + ramp)[None, None]
    small = nn.functional.avg_pool2d(picture, 2)
    readout = EfficientNetReadout(3)
    readout.pad = nn.ReplicationPad2d(1)
    large = enlarge(small, readout.pad)
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
        whole = enlarge(whole, readout.pad)
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


@pytest.mark.parametrize("padding", ["cube", "zero", "replicate"])
@pytest.mark.parametrize("stride", [1, 2])
def test_maps_are_the_same_with_gradients_and_without(stride, padding):
    """Without them, large faces are padded before the expansion."""
    block = Block(4, 4, 3, stride, 6, stride == 2, PADDINGS[padding])
    x = torch.rand(6, 4, 20, 20)
    with torch.no_grad():
        maps = block(x)
    torch.testing.assert_close(maps, block(x))


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


# What each part of the network brings: other paddings, and no latitude bias


@torch.no_grad()
@pytest.mark.parametrize("backbone, size", [("plain", 20), ("published", 20),
                                            ("efficientnet_lite0", 96)])  # fmt: skip
def test_faces_padded_by_themselves_do_not_see_each_other(backbone, size):
    arguments = {"height": 2 * size, "width": 4 * size, "backbone": backbone}
    faces = torch.rand(6, 4, size, size)
    changed = faces.clone()
    changed[4] = torch.rand(4, size, size)
    for padding in ("cube", "zero", "replicate"):
        model = small_unet(padding=padding, **arguments).eval()
        differ = (model.read(changed) != model.read(faces)).flatten(1).any(1)
        assert differ.tolist() == [padding == "cube" or face == 4 for face in range(6)]
        assert model.arguments["padding"] == padding
    with pytest.raises(ValueError, match="padding must be one of cube, published, zero, replicate"):
        small_unet(padding="same")


def test_faces_padded_by_themselves_by_hand():
    face = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(6, 1, 2, 2)
    late = PADDINGS["zero"](1, late=True)
    assert late(face)[0, 0].tolist() == [[1, 2, 0], [3, 4, 0], [0, 0, 0]]
    edges = PADDINGS["replicate"](1)(face)[0, 0]
    assert edges.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


@torch.no_grad()
def test_without_a_latitude_bias_maps_are_the_image_logits(tmp_path):
    model = small_unet(latitude_bias=False, front=0.5)
    assert not {name for name, _ in model.named_parameters()} & {"latitude_bias"}
    models.save(tmp_path / "m.pth", model)
    again = models.load(tmp_path / "m.pth", front=0.0)
    clip = torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80)
    logits, bias = again.logits(*clip)
    assert torch.equal(again(*clip)[0], logits.sigmoid()) and not bias.any()
    published = small_unet(backbone="published", latitude_bias=True)
    assert torch.equal(published.latitude_bias, small_unet().latitude_bias)


# A latitude bias that the network weighs


@torch.no_grad()
def test_a_local_prior_begins_as_the_latitude_bias_and_can_take_it_away():
    clip = torch.rand(1, 1, 3, 40, 80), torch.zeros(1, 1, 1, 40, 80)
    torch.manual_seed(0)
    plain = models.CubeUNet(height=40, width=80, base_channels=2).eval()
    model = models.CubeUNet(height=40, width=80, base_channels=2, local_prior=True).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(model(*clip), plain(*clip), atol=1e-6, rtol=0)
    for logit, factor in ((-50.0, 0.0), (50.0, 2.0), (math.log(3), 1.5)):
        model.prior_head.bias.fill_(logit)
        image_logits, bias = model.logits(*clip)
        expected = plain.logits(*clip)
        torch.testing.assert_close(image_logits, expected[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(bias, factor * expected[1].expand_as(bias), atol=1e-5, rtol=0)


# Two looks


@torch.no_grad()
@pytest.mark.parametrize("more", [{}, {"local_prior": True}, {"padding": "zero"}])
def test_two_looks_are_the_mean_of_the_logits_of_each_by_hand(more, tmp_path):
    """The second sees each face averaged over 2×2 pixels; its logits are enlarged.

    Of the two gates of the latitude bias, the lower one counts.
    """
    torch.manual_seed(0)
    size = {"height": 80, "width": 160, "base_channels": 4, **more}
    whole, both = CubeUNet(**size).eval(), CubeUNet(**size, second_look=0.3).eval()
    whole.head.weight.data *= 100
    if whole.prior_head:
        torch.nn.init.normal_(whole.prior_head.weight, std=20)
    both.load_state_dict(whole.state_dict())  # no weight is added
    clip = torch.rand(2, 1, 3, 80, 160), torch.rand(2, 1, 1, 80, 160)
    faces = whole.to_cube(torch.cat(clip, dim=2).flatten(0, 1))
    small = faces.unflatten(3, (20, 2)).unflatten(2, (20, 2)).mean((3, 5))
    looks = whole.read(faces), enlarge(whole.read(small), both.pad)
    image_logits, bias = both.logits(*clip)
    mean = whole.to_equi(0.7 * looks[0] + 0.3 * looks[1])
    torch.testing.assert_close(image_logits, mean[:, :1], atol=1e-4, rtol=0)
    assert (looks[0] - looks[1]).abs().max() > 0.1
    gate = 2 * whole.to_equi(torch.minimum(*looks))[:, 1:].sigmoid()
    if whole.prior_head:
        bias_of_rows = whole.logits(*clip)[1] / (2 * whole.to_equi(looks[0])[:, 1:].sigmoid())
        torch.testing.assert_close(bias, gate * bias_of_rows, atol=1e-4, rtol=1e-4)
        assert (looks[0] - looks[1])[:, 1].abs().max() > 0.1
    torch.testing.assert_close(both(*clip)[:, 0], (image_logits + bias).sigmoid())
    models.save(tmp_path / "m.pth", both)
    assert torch.equal(models.load(tmp_path / "m.pth")(*clip), both(*clip))
    once = models.load(tmp_path / "m.pth", second_look=0.0)
    assert torch.equal(once(*clip), whole(*clip))


def test_faces_that_do_not_halve_are_refused_for_two_looks():
    CubeUNet(height=80, width=160, face_size=41)
    with pytest.raises(ValueError, match="faces of 41 pixels; this backbone takes 34, 36, 38"):
        CubeUNet(height=80, width=160, face_size=41, second_look=0.5)
    with pytest.raises(ValueError, match="faces of 160 pixels; this backbone takes 192, 256, 320"):
        CubeUNet(height=320, width=640, backbone="efficientnet_lite0", second_look=0.5)
    with pytest.raises(ValueError, match="second_look must be from 0 to 1"):
        CubeUNet(second_look=1.5)


LITE = {"backbone": "efficientnet_lite0"}
KINDS = {
    "plain": {"base_channels": 4, "height": 80, "width": 160},
    "published": {"backbone": "published", "base_channels": 4, "height": 80, "width": 160},
    "local_prior": {"base_channels": 4, "height": 80, "width": 160, "local_prior": True},
    "no_motion": {**LITE, "in_channels": 3, "height": 192, "width": 384},
    "motion": {**LITE, "height": 192, "width": 384},
    "two_looks": {**LITE, "height": 384, "width": 768, "second_look": 0.5},
    "flow": {**LITE, "in_channels": 6, "height": 192, "width": 384},
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
