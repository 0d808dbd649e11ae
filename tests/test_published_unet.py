"""The published cube-padded U-Net against its layers written plainly: weights, files, motion."""

from collections import OrderedDict

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import models
from common.errors import InputError
from models import CubeUNet
from models.authors_files import from_state_dict
from projection import Cube2Equi, CubePadding, Equi2Cube
from projection.cube_pad import MIRRORED, PublishedPadding
from tests.clips import write_video
from video import read_frames
from video.motion import ColourDifference

BLOCKS = {  # input and output channels in units of the base, in the order of their code
    "enc1": (None, 1),
    "enc2": (1, 2),
    "enc3": (2, 4),
    "enc4": (4, 8),
    "dec1": (12, 4),
    "dec2": (6, 2),
    "dec3": (3, 1),
}


def plain_layers(base: int = 32, channels: int = 4) -> dict[str, nn.Module]:
    """Return the layers by the names in their state_dict, each as PyTorch makes it."""
    layers = {}
    for name, (c_in, c_out) in BLOCKS.items():
        c = c_in * base if c_in else channels
        for part in ("c1", "c2"):
            layers[f"{name}.{part}.conv"] = nn.Conv2d(c, c_out * base, 3, bias=False)
            layers[f"{name}.{part}.bn"] = nn.BatchNorm2d(c_out * base)
            c = c_out * base
    return layers | {"head": nn.Conv2d(base, 1, 1)}


class PlainPublishedPadding(nn.Module):
    """Their padding strip by strip: what lies beyond each edge, eight strips of it reversed."""

    FACES = (  # directions of (u, v), in the order of the faces
        lambda u, v: (-u, -v, -1), lambda u, v: (u, -1, -v), lambda u, v: (u, -v, 1),
        lambda u, v: (-1, -v, u), lambda u, v: (1, -v, -u), lambda u, v: (u, 1, v),
    )  # fmt: skip
    REVERSED = "back upper", "back lower", "bottom lower", "bottom left", "left lower"
    REVERSED = {*REVERSED, "right upper", "top upper", "top right"}

    def __init__(self, pad):
        super().__init__()

    def nearest(self, direction, size):
        """The face, row and column of the pixel that a direction meets."""
        x, y, z = direction
        largest = max(abs(x), abs(y), abs(z))
        x, y, z = x / largest, y / largest, z / largest
        face = next(k for k, e in enumerate((-z, -y, z, -x, x, y)) if e > 1 - 1e-9)
        u = (-x, x, x, z, -z, x)[face]
        v = (-y, -z, -y, -y, -y, z)[face]
        return face, *(min(size - 1, max(0, int((a + 1) / 2 * size))) for a in (v, u))

    def forward(self, faces):
        size = faces.shape[-1]
        cubes = faces.unflatten(0, (-1, 6))
        padded = faces.new_zeros(*cubes.shape[:-2], size + 2, size + 2)
        padded[..., 1:-1, 1:-1] = cubes
        along, beyond = [(2 * k + 1) / size - 1 for k in range(size)], 1 + 1 / size
        names = ("back", "bottom", "front", "left", "right", "top")
        for face, (name, direction) in enumerate(zip(names, self.FACES)):
            for edge, places in {
                "upper": [(a, -beyond) for a in along], "lower": [(a, beyond) for a in along],
                "left": [(-beyond, a) for a in along], "right": [(beyond, a) for a in along],
            }.items():  # fmt: skip
                taken = [self.nearest(direction(*place), size) for place in places]
                strip = torch.stack([cubes[:, f, :, i, j] for f, i, j in taken], -1)
                strip = strip.flip(-1) if f"{name} {edge}" in self.REVERSED else strip
                if edge in ("upper", "lower"):  # with its ends repeated at the corners
                    row = 0 if edge == "upper" else -1
                    ends = strip[..., :1], strip, strip[..., -1:]
                    padded[:, face, :, row] = torch.cat(ends, -1)
                else:
                    padded[:, face, :, 1:-1, 0 if edge == "left" else -1] = strip
        return padded.flatten(0, 1)


PADDINGS = {
    "published": PlainPublishedPadding,
    "cube": CubePadding,
    "zero": nn.ZeroPad2d,
    "replicate": nn.ReplicationPad2d,
}


def plain_faces(
    layers: dict[str, nn.Module], faces: torch.Tensor, padding: str = "cube"
) -> torch.Tensor:
    """Return the sigmoid maps of faces: (B·6, C, S, S) → (B·6, 1, S, S)."""
    pad, pool = PADDINGS[padding](1), nn.MaxPool2d(2)
    up = nn.Upsample(None, 2, "bilinear", align_corners=False)

    def block(name, x):
        for part in ("c1", "c2"):
            conv, norm = (layers[f"{name}.{part}.{kind}"] for kind in ("conv", "bn"))
            x = norm(conv(pad(x))).relu()
        return x

    e1 = block("enc1", faces)
    e2 = block("enc2", pool(e1))
    e3 = block("enc3", pool(e2))
    d1 = block("dec1", torch.cat([up(block("enc4", pool(e3))), e3], 1))
    d2 = block("dec2", torch.cat([up(d1), e2], 1))
    d3 = block("dec3", torch.cat([up(d2), e1], 1))
    return layers["head"](d3).sigmoid()


@torch.no_grad()
def settled(base: int = 32, channels: int = 4) -> dict[str, nn.Module]:
    """Return plain layers whose BatchNorms have seen something, in eval mode."""
    torch.manual_seed(1)
    layers = plain_layers(base, channels)
    for layer in layers.values():
        if isinstance(layer.eval(), nn.BatchNorm2d):
            layer.weight.data.uniform_(0.7, 1.5)
            layer.bias.data.uniform_(-0.3, 0.3)
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.1, 0.5)
    layers["head"].weight.data *= 10  # so that maps have contrast, around one half
    layers["head"].bias.data -= plain_faces(layers, torch.rand(6, channels, 32, 32)).logit().mean()
    return layers


def state_dict(layers: dict[str, nn.Module]) -> OrderedDict:
    return OrderedDict(
        (f"{name}.{key}", value)
        for name, layer in layers.items()
        for key, value in layer.state_dict().items()
    )


def test_weights_are_as_many_as_published():
    model = CubeUNet(backbone="published")
    assert sum(weight.numel() for weight in model.parameters()) == 1_948_577
    assert "latitude_bias" not in model.state_dict()
    assert (model.spec.height, model.spec.width, model.to_cube.face_size) == (240, 480, 120)
    assert model.spec.motion == "colour_difference"
    assert CubeUNet(3, backbone="published").spec.motion == "none"


def test_weights_begin_as_pytorch_makes_them():
    torch.manual_seed(0)
    model = CubeUNet(backbone="published", base_channels=4)
    torch.manual_seed(0)
    expected = from_state_dict(state_dict(plain_layers(4)))["weights"]
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@torch.no_grad()
@pytest.mark.parametrize("channels, padding", [
    (4, "published"), (3, "published"), (4, "cube"), (4, "zero"), (4, "replicate"),
])  # fmt: skip
def test_a_file_of_theirs_gives_the_maps_of_their_layers(tmp_path, channels, padding):
    """Without options; and with another padding, as the layers with that padding."""
    options = {} if padding == "published" else {"padding": padding}
    layers = settled(4, channels)
    torch.save(state_dict(layers), tmp_path / "theirs.pth")
    model = models.load(tmp_path / "theirs.pth", height=80, width=160, **options)
    clip = nn.functional.interpolate(torch.rand(2, channels, 12, 24), (80, 160), mode="bilinear")
    faces = Equi2Cube(80, 160, 40)(clip)
    expected = Cube2Equi(40, 80, 160)(plain_faces(layers, faces, padding))
    assert expected.std() > 0.02
    maps = model(clip[None, :, :3], clip[None, :, 3:])[0]
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [2, 5, 8])
def test_their_padding_is_theirs_strip_by_strip(size):
    """Of the 24 strips, 16 are those of cube padding, and 8 their mirror images."""
    faces = torch.rand(12, 3, size, size, requires_grad=True)
    padded, exact = PublishedPadding(1)(faces), CubePadding(1)(faces)
    assert torch.equal(padded, PlainPublishedPadding(1)(faces))
    padded.sum().backward()  # trained further
    strips = [(f, p) for f in range(6) for p in MIRRORED.get(f, ())]
    assert len(strips) == 8
    padded = padded.detach().clone()
    for face, (rows, columns) in strips:
        padded[face::6, :, rows, columns] = padded[face::6, :, rows, columns].flip(-1)
    assert torch.equal(padded[..., 1:-1, :], exact[..., 1:-1, :])
    assert torch.equal(padded[..., 1:-1], exact[..., 1:-1])
    with pytest.raises(ValueError, match="published padding has one pixel"):
        PublishedPadding(2)


@torch.no_grad()
def test_their_weights_gave_other_maps_than_theirs_at_edges(tmp_path):
    torch.save(state_dict(settled(4)), tmp_path / "theirs.pth")
    published, cube = (
        models.load(tmp_path / "theirs.pth", height=80, width=160, **options)
        for options in ({}, {"padding": "cube"})
    )
    assert published.arguments["padding"] == "published"
    clip = nn.functional.interpolate(torch.rand(2, 4, 12, 24), (80, 160), mode="bilinear")
    clip = clip[None, :, :3], clip[None, :, 3:]
    maps = [model(*clip)[0] for model in (published, cube)]
    assert (maps[0] - maps[1]).abs().max() > 0.02
    models.save(tmp_path / "again.pth", published)
    again = models.deploy(models.load(tmp_path / "again.pth"), torch.float32)
    torch.testing.assert_close(again(*clip)[0], maps[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_their_sigmoid_is_taken_on_the_faces(tmp_path):
    """Where an edge between black and white is interpolated, the order makes a difference."""
    model = CubeUNet(backbone="published", base_channels=2, height=40, width=80).eval()
    logits = torch.where(torch.rand(6, 1, 20, 20) < 0.5, -9.0, 9.0)
    model.read = lambda faces: logits
    maps = model(torch.rand(1, 1, 3, 40, 80), torch.rand(1, 1, 1, 40, 80))[0]
    expected = model.to_equi(logits.sigmoid())
    torch.testing.assert_close(maps, expected, atol=1e-6, rtol=0)
    assert (model.to_equi(logits).sigmoid() - expected).abs().max() > 0.2


def test_saturated_maps_have_a_gradient_that_is_finite():
    model = CubeUNet(backbone="published", base_channels=2, height=40, width=80)
    for bias in (-100.0, 0.0, 100.0):
        model.head.bias.data.fill_(bias)
        maps = model(torch.rand(1, 1, 3, 40, 80), torch.rand(1, 1, 1, 40, 80))
        maps.sum().backward()
        assert maps.isfinite().all() and all(w.grad.isfinite().all() for w in model.parameters())


def test_a_file_of_theirs_sees_all_frames_of_a_video(tmp_path):
    """Their motion is between consecutive frames; ours between those of 8 frames a second."""
    torch.save(state_dict(settled(2)), tmp_path / "theirs.pth")
    model = models.load(tmp_path / "theirs.pth")
    write_video(tmp_path / "clip.mp4", frames=7, fps=30)
    frames = list(read_frames(tmp_path / "clip.mp4", model.spec))
    assert [frame.number for frame in frames] == list(range(1, 8))
    models.save(tmp_path / "ours.pth", model)
    assert models.load(tmp_path / "ours.pth").spec == model.spec


@pytest.mark.parametrize("change", [
    lambda weights: weights.pop("dec3.c2.bn.running_var"),
    lambda weights: weights.update({"enc5.c1.conv.weight": torch.zeros(2)}),
    lambda weights: weights.update({"enc1.c1.conv.weight": torch.zeros(2)}),
    lambda weights: weights.update({"enc1.c1.conv.weight": torch.zeros(2, 5, 3, 3)}),
    lambda weights: weights.update({"enc1.c1.conv.weight": torch.zeros(1).expand(9999, 4, 3, 3)}),
    lambda weights: weights.update({"enc1.c1.conv.weight": "zeros"}),
    lambda weights: weights.update({"head.bias": [0.0]}),
    lambda weights: weights.update({"head.bias": torch.tensor([float("nan")])}),
    lambda weights: weights.update({3: torch.zeros(2)}),
], ids=range(9))  # fmt: skip
def test_files_that_are_only_nearly_theirs_are_refused(tmp_path, change):
    weights = state_dict(settled(2))
    change(weights)
    torch.save(weights, tmp_path / "nearly.pth")
    with pytest.raises(InputError, match="nearly.pth"):
        models.load(tmp_path / "nearly.pth")


def test_motion_is_the_grey_value_of_the_difference_of_colours():
    """Of 255: (10, 0, 0) is 2.99, (0, 0, −100) is 11.4, (3, −6, 9) is 5.4 as (3, 6, 9)."""
    before = torch.full((3, 1, 3), 100.0)
    change = torch.tensor([[10.0, 0, 0], [0, 0, -100], [3, -6, 9]]).T[:, None]
    motion = ColourDifference()(before / 255, (before + change) / 255)
    assert torch.equal((255 * motion).round(), torch.tensor([[[3.0, 11.0, 5.0]]]))
    assert torch.equal(ColourDifference()(None, before), torch.zeros(1, 1, 3))


def test_motion_is_that_of_opencv_on_8_bits():
    one, other = np.random.default_rng(0).integers(0, 256, (2, 24, 48, 3), np.uint8)
    expected = cv2.cvtColor(cv2.absdiff(one, other), cv2.COLOR_RGB2GRAY)
    tensors = (torch.from_numpy(rgb).permute(2, 0, 1).float() / 255 for rgb in (one, other))
    motion = ColourDifference()(*tensors)
    assert torch.equal(motion[0], torch.from_numpy(expected) / 255)
