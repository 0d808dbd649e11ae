"""Recipes for flat photographs and clips: ground truth, network, loss, training, scores."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import models
from common.errors import InputError
from datasets.gaze import gaussian_map
from models import CubeUNet, EquatorPrior
from projection import CubePadding
from recipes.flat import BLUR, FlatDensityLoss, FlatUNet, gaze_map, motion_levels, read_item
from recipes.flat_photos import main as flat_photos_main
from recipes.flat_photos import train
from recipes.gaze_sources import Picture, read_sources
from recipes.motion import divergence, motion_weights
from recipes.motion import main as motion_main
from recipes.score_flat_clips import Clip
from recipes.score_flat_clips import main as score_flat_clips_main
from tests.commands import ended, run, success
from tests.scenes import write_clips, write_photographs


def fixated_at(x, y, weights, path="picture.jpg"):
    return Picture(Path(path), *map(np.array, (x, y, weights)))


def test_one_fixation_is_a_gaussian_around_it():
    """At column 40.5 / 160 and row 60.5 / 120: exp(−d² / 2σ²) at distance d, σ = 3 % of 160."""
    saliency = gaze_map(fixated_at([40.5 / 160], [60.5 / 120], [2.0]), 120, 160)
    sigma = BLUR * 160
    assert saliency.shape == (120, 160) and saliency[60, 40] == 1
    for row, column in ((60, 44), (63, 40), (57, 36)):
        d2 = (row - 60) ** 2 + (column - 40) ** 2
        assert math.isclose(saliency[row, column], math.exp(-d2 / 2 / sigma**2), rel_tol=0.02)


def test_photograph_and_map_fit_each_other(tmp_path):
    """A white spot where people look, in a photograph whose aspect ratio changes."""
    image = np.zeros((90, 160, 3), np.uint8)
    image[27:33, 117:123] = 255
    Image.fromarray(image).save(tmp_path / "spot.png")
    picture = fixated_at([120 / 160], [30 / 90], [1.0], tmp_path / "spot.png")
    item = read_item(picture, 64, 80)
    assert [item[name].shape for name in ("frames", "motion", "target")] == [
        (1, 3, 64, 80), (1, 0, 64, 80), (1, 1, 64, 80)
    ]  # fmt: skip
    places = [divmod(item[name].mean(1).argmax().item(), 80) for name in ("frames", "target")]
    for row, column in places:
        assert abs(row - 64 / 3) <= 1.5 and abs(column - 60) <= 1.5
    assert item["target"].max() == 1


def test_late_paddings_stay_late():
    """They once padded both sides, so that strides of 2 took the pixels before the right ones."""
    cube = CubeUNet(backbone="efficientnet_lite0", height=384, width=768).eval()
    flat = FlatUNet(copy.deepcopy(cube)).eval()
    replaced = [(n, part) for n, part in cube.named_modules() if isinstance(part, CubePadding)]
    assert {(0, 1), (1, 1)} <= {padding.sides for _, padding in replaced}  # late ones and others
    faces = torch.rand(6, 2, 8, 8)
    for name, padding in replaced:
        expected, padded = padding(faces), flat.cube.get_submodule(name)(faces)
        assert padded.shape == expected.shape, name
        inside = slice(padding.sides[0], padding.sides[0] + 8)
        assert torch.equal(padded[..., inside, inside], faces), name
        assert torch.equal(expected[..., inside, inside], faces), name


def test_flat_density_loss_counts_every_pixel_the_same():
    """Three rows of two pixels. Truth (3, 0, 0, 0, 0, 0), prediction (3, 0, 0, 0, 3, 0)."""
    target = torch.tensor([[[[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]])
    pred = torch.tensor([[[[3.0, 0.0], [0.0, 0.0], [3.0, 0.0]]]])
    # Densities 6 and 3, 3; KLD = ln 2. Deviations (5, −1 …) and (2, −1, −1, −1, 2, −1):
    # CC = 12 / √(30 · 12). One error of 3 on a sixth of 4π.
    expected = math.log(2) + (1 - 12 / 360**0.5) / 2 + 9 * 4 * math.pi / 6
    for loss_of in (FlatDensityLoss(), FlatDensityLoss(3, 2)):
        for flipped in ((pred, target), (pred.flip(-2), target.flip(-2))):
            assert math.isclose(loss_of(*flipped).item(), expected, rel_tol=1e-5)


def test_the_encoder_learns_at_a_tenth_of_the_rate():
    cube = CubeUNet(backbone="efficientnet_lite0", height=192, width=384)
    groups = {group["scale"]: group["params"] for group in cube.parameter_groups()}
    slow = {id(weight) for weight in groups.pop(0.1)}
    trained = {id(weight) for weight in cube.parameters() if weight.requires_grad}
    encoder = {id(weight) for weight in cube.backbone.encoder.parameters()}
    assert slow == encoder & trained
    assert {id(weight) for group in groups.values() for weight in group} == trained - encoder


@pytest.mark.slow
def test_a_network_that_learned_from_photographs_works_on_the_sphere(tmp_path, capsys):
    write_photographs(tmp_path / "sources" / "scene500", 45)  # the last 40 validate
    torch.manual_seed(0)
    start = CubeUNet(base_channels=2, height=40, width=80)
    models.save(tmp_path / "init.pth", start)
    paths = ["--init", tmp_path / "init.pth", "--output", tmp_path / "flat.pth"]
    run(flat_photos_main, "--sources", tmp_path / "sources", *paths, "--epochs", 2)
    assert "epoch 2: training loss" in capsys.readouterr().out
    model = models.load(tmp_path / "flat.pth")
    assert model.arguments == start.arguments
    changed = {n for n, w in model.named_parameters() if not torch.equal(w, start.get_parameter(n))}
    assert changed == {name for name, _ in model.named_parameters()} - {"latitude_bias"}
    maps = model(torch.rand(1, 2, 3, 40, 80), torch.rand(1, 2, 1, 40, 80))
    assert maps.shape == (1, 2, 1, 40, 80) and maps.isfinite().all()


@pytest.mark.slow
def test_the_normalisation_of_motion_does_not_learn_from_photographs(tmp_path):
    """They do not move: its variance became 1e-9, and then motion counted 300 times as much."""
    write_photographs(tmp_path / "osie")
    pictures = read_sources(tmp_path)["train"].photographs
    model = CubeUNet(height=192, width=384, face_size=96, backbone="efficientnet_lite0")
    learned, *_ = next(train(model, pictures, pictures[:1], epochs=1, batch_size=2))
    assert [norm.running_var.item() for norm, _ in motion_levels(learned)] == [1, 1]
    others = [norm for norm, *_ in learned.backbone.levels if norm.num_features > 1]
    assert all((norm.running_var != 1).any() for norm in others)


def test_bad_input_is_refused(tmp_path):
    write_clips(tmp_path / "clips" / "hevc33_video")
    write_photographs(tmp_path / "photographs" / "scene500", 45)
    models.save(tmp_path / "equator.pth", EquatorPrior())
    for sources, message in (
        ("none", "none: holds none of the folders"),
        ("clips", "clips: holds no photographs"),
        ("photographs", "equator.pth: holds the model 'equator'"),
    ):
        with pytest.raises(InputError, match=message):
            words = "--sources", tmp_path / sources, "--init", tmp_path / "equator.pth"
            run(flat_photos_main, *words)


@pytest.fixture
def pictures(tmp_path):
    write_clips(tmp_path / "hevc33_video", ("Clip",))
    where = np.array([0.5, 1.0, 0.5]), np.array([0.5, 0.5, 1.0])
    paths = sorted((tmp_path / "hevc33_video" / "frames").iterdir())
    return [Picture(path, *where, np.ones(3)) for path in paths]


def test_a_fixation_lands_where_the_picture_is(pictures):
    """A picture of 40×30 in a view of 90°: its right edge at 45°, its lower edge at −atan(¾)."""
    clip = Clip(pictures, 60, 120, "difference")
    angles = np.array([0, math.pi / 4, 0]), np.array([0, 0, -math.atan(0.75)])
    expected = gaussian_map(*angles, 60, 120, 3.34)
    torch.testing.assert_close(clip.truth[2], expected, atol=1e-5, rtol=1e-4)
    pyramid = 4 * math.asin(0.75 / math.sqrt(2 * (1 + 0.75**2)))
    assert clip.region.expand(60, 120).sum().item() == pytest.approx(pyramid, rel=0.05)
    assert [frame.seconds for frame in clip.frames] == [n / 4 for n in range(6)]
    brightness = [frame.rgb[:, 30, 60].mean().item() * 255 for frame in clip.frames]
    assert brightness == pytest.approx([30 * n for n in range(6)], abs=3)
    assert clip.frames[1].motion[0, 30, 60].item() == pytest.approx(30 / 255, abs=0.02)
    assert torch.allclose(clip.frames[3].rgb[:, 0], torch.tensor(0.5))  # grey above


def test_scores_of_clips_have_a_row_for_each_form_of_the_network(tmp_path):
    write_clips(tmp_path / "hevc33_video", ("Kimono",))
    model = CubeUNet(height=40, width=80, base_channels=2)
    models.save(tmp_path / "net.pth", model)
    code, printed, _ = ended(score_flat_clips_main, tmp_path, "--ckpt_path", tmp_path / "net.pth")
    assert code == 0
    assert [line.split("|")[1].strip() for line in printed.splitlines()[2:]] == [
        "frames alone", "with motion", "with motion, smoothed", "Gaussian in the middle",
    ]  # fmt: skip
    models.save(tmp_path / "prior.pth", EquatorPrior(8, 16))
    code, _, line = ended(score_flat_clips_main, tmp_path, "--ckpt_path", tmp_path / "prior.pth")
    assert (code, "give one of a CubeUNet" in line) == (2, True)
    words = tmp_path / "none", "--ckpt_path", tmp_path / "net.pth"
    code, _, line = ended(score_flat_clips_main, *words)
    assert code == 2


@pytest.mark.slow
def test_only_what_reads_the_motion_learns_from_clips(tmp_path):
    """Frames without motion keep their maps; the gaze in moving clips is found better."""
    write_clips(tmp_path / "hevc33_video", ("Clip", "Kimono", "ParkScene"))
    torch.manual_seed(0)
    model = CubeUNet(height=192, width=384, face_size=96, backbone="efficientnet_lite0")
    for norm, _, _ in model.backbone.levels:
        torch.nn.init.uniform_(norm.running_mean, -1, 1)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
        torch.nn.init.uniform_(norm.bias, -1, 1)
    models.save(tmp_path / "net.pth", model.eval())
    words = "--sources", tmp_path, "--steps", 6, "--rate", 0.5
    success(ended(motion_main, tmp_path / "net.pth", tmp_path / "new.pth", *words))
    learned = models.load(tmp_path / "new.pth")
    success(ended(motion_main, tmp_path / "net.pth", tmp_path / "far.pth", *words, "--far", 3))
    motion_weights(model)  # as they are before they learn
    for weights in zip(*map(motion_levels, (model, learned, models.load(tmp_path / "far.pth")))):
        start, once, thrice = (conv.weight for _, conv in weights)
        torch.testing.assert_close(thrice - start, 3 * (once - start), atol=1e-5, rtol=1e-4)
    assert learned.spec.motion == "steady_difference"
    rgb, still = torch.rand(1, 1, 3, 192, 384), torch.zeros(1, 1, 1, 192, 384)
    with torch.no_grad():
        torch.testing.assert_close(learned(rgb, still), model(rgb, still), atol=1e-5, rtol=0)
        moving = torch.rand(1, 1, 1, 192, 384)
        assert (learned(rgb, moving) - model(rgb, moving)).abs().max() > 1e-3
    changed = [
        name
        for (name, new), old in zip(learned.named_parameters(), model.parameters(), strict=True)
        if not torch.equal(new, old)
    ]
    assert {name.rsplit(".", 2)[0] for name in changed} == {
        "backbone.levels.0",
        "backbone.levels.3",
    }


def test_the_divergence_of_clips_is_that_of_densities_by_hand():
    truth, maps = torch.tensor([[[3.0, 1, 9]]]), torch.tensor([[[1.0, 1, 5]]])
    region = torch.tensor([[1.0, 1, 0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert divergence(maps, truth, region).item() == pytest.approx(expected, abs=1e-5)
