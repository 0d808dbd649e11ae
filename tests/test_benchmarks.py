"""Benchmarks that are more than timings: people near the camera, what moves, and ablations."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

import models
from benchmarks import follow, real_gaze
from benchmarks.ablation import differences, near_edges, score
from benchmarks.moving_object import HEIGHT, WIDTH, render, shares_of
from benchmarks.near_people import areas_in, panels, predicted, save, share
from common.errors import InputError
from metrics import Protocol
from projection import directions, solid_angles
from projection.sphere import direction_of
from tests.clips import write_eccv_clip, write_video
from tests.commands import ended, infer, refusal, success
from video import read_frames
from video.pictures import read_picture


@pytest.mark.parametrize("box", [(-57, -34, -44, -15), (148, 198.3, -65, -26), (-180, 180, -90, 9)])
def test_boxes_have_their_solid_angle_on_any_grid_and_across_the_seam(box):
    left, right, bottom, top = np.radians(box)
    exact = (right - left) * (math.sin(top) - math.sin(bottom))
    for size in ((24, 48), (161, 320)):
        assert areas_in(box, *size).sum() == pytest.approx(exact, rel=1e-12)


def test_the_share_of_a_box_is_that_of_the_pixels_in_it():
    saliency = np.zeros((18, 36))
    saliency[10, [0, 35]] = 1  # latitudes −20° to −10°, at both sides of the seam
    assert share(saliency, (170, 190, -20, -10)) == pytest.approx(1)
    assert share(saliency, (175, 190, -20, -10)) == pytest.approx(3 / 4)
    assert share(saliency, (-170, 170, -90, 90)) == pytest.approx(0, abs=1e-12)


def test_the_map_of_a_moment_is_that_of_the_whole_clip_and_is_painted(tmp_path):
    path = write_video(tmp_path / "clip.mp4", frames=60, fps=30)
    model = models.CubeUNet(base_channels=4, height=40, width=80).eval()
    model.spec = replace(model.spec, smoothing=0.3)
    frame, saliency = predicted(model, path, 1)
    pairs = models.predict(model, read_frames(path, model.spec))
    whole = (pair for pair in pairs if pair[0].number >= frame.number)
    assert frame.seconds == pytest.approx(32 / 30)  # every fourth frame of 30 a second
    np.testing.assert_array_equal(saliency, next(whole)[1][0])
    with pytest.raises(InputError, match="ends before 3 s"):
        predicted(model, path, 3)
    block = panels("clip, 1 s", frame, [[170, 190, -20, -10]], {"tiny": saliency})
    save([block] * 3, tmp_path / "picture.jpg")
    assert read_picture(tmp_path / "picture.jpg").shape[:2] == (2 * (2 * 196 + 8), 2 * (640 + 8))


@pytest.fixture(scope="module")
def clip():
    return render(np.random.default_rng(0))


def test_maps_on_the_figure_that_moves_count_for_it_alone(clip):
    places = direction_of(
        torch.from_numpy(clip.longitudes[:, 0]), torch.tensor(clip.latitude, dtype=torch.float64)
    )
    rays = directions(HEIGHT, WIDTH, torch.float64)
    maps = [(None, (rays @ place > math.cos(clip.radius))[None].double()) for place in places]
    np.testing.assert_allclose(shares_of(clip, maps), [1, 0, 0, 0], atol=0.05)
    assert clip.pictures.shape == (len(maps), HEIGHT, WIDTH, 3)


def test_pixels_near_an_edge_of_the_cube():
    """On the equator that is 45° from the faces' middles; up a middle's meridian likewise."""
    near = near_edges(180, 360)
    degrees = np.arange(360) - 179.5
    apart = np.abs(np.abs(degrees) % 90 - 45)
    assert (near[89].numpy() == (apart < 10)).all()
    upwards = np.abs(89.5 - np.arange(180))
    assert (near[:, 180].numpy() == (np.abs(upwards - 45) < 10)).all()
    corner = direction_of(torch.tensor(math.radians(45)), torch.tensor(math.asin(1 / math.sqrt(3))))
    assert corner.abs().std() < 1e-6 and near[int(90 - 35.3), 225]


def test_scores_of_an_ablation_are_those_of_the_maps(tmp_path):
    """Of a map that does not depend on the picture, which therefore does not turn with it."""
    for name, frames in (("a", (1, 2)), ("b", (1, 2, 3))):
        write_eccv_clip(tmp_path / name, frames)
    (tmp_path / "splits.json").write_text(json.dumps({"test": ["a", "b"]}))
    model = models.EquatorPrior(16, 32)
    found, areas = score(model, tmp_path, "test"), solid_angles(16, 32, torch.float64)
    clip = torch.zeros(1, 1, 3, 16, 32), torch.zeros(1, 1, 0, 16, 32)
    saliency = model(*clip)[0, 0, 0]
    truths = [torch.from_numpy(np.load(path)) for path in sorted(tmp_path.glob("?/*_gt.npy"))]
    truths = [truth / truth.max() for truth in truths]
    cc = [Protocol("sphere", 16, 32)(saliency[None], target=t[None])["cc"][0] for t in truths]
    assert found["cc"] == pytest.approx([np.mean(cc[:2]), np.mean(cc[2:])])
    smse = [((saliency - truth).square() * areas).sum() for truth in truths]
    assert found["smse"] == pytest.approx([np.mean(smse[:2]), np.mean(smse[2:])], rel=1e-5)
    near = areas * near_edges(16, 32)
    near = near * 4 * math.pi / near.sum()
    smse = [((saliency - truth).square() * near).sum() for truth in truths]
    assert found["smse at edges"] == pytest.approx([np.mean(smse[:2]), np.mean(smse[2:])])
    change = ((saliency.roll(-4, -1) - saliency).abs() * areas).sum() / (saliency * areas).sum()
    assert found["turned"] == pytest.approx([change.item()] * 2, rel=1e-5) and change > 0.05
    better = {name: [value + 0.1 for value in values] for name, values in found.items()}
    assert [*differences({"cube": [found] * 2, "zero": [better, found]}, "cc")] == [
        "+0.0500 (p = 0.500)"  # both clips are better: one of two signs
    ]


@pytest.mark.slow
def test_maps_and_heads_that_follow_could_not_read(tmp_path, checkpoint):
    """Tracebacks, of a missing folder as well."""
    clip, maps = write_video(tmp_path / "a.mp4", 9), tmp_path / "maps"
    assert infer(clip, checkpoint, maps)[0] == 0
    assert "maps: " in success(ended(follow.main, maps))
    record = maps / "saliency.json"
    content = record.read_text()
    uneven = json.dumps(json.loads(content) | {"times": [0.5] * 9})
    for damaged in ("", "{", "[]", '{"fps": 0}', content.replace('"fps"', '"f"'), "{}", uneven):
        record.write_text(damaged)
        refusal(ended(follow.main, maps), "maps")
    record.write_text(content)
    (maps / "sal_0002.png").unlink()
    assert "sal_0002.png: no such file" in ended(follow.main, maps)[2]
    os.mkfifo(maps / "sal_0002.png")
    assert "a pipe or a device" in ended(follow.main, maps)[2]
    record.unlink()
    os.mkfifo(record)
    for folder in (maps, tmp_path / "nowhere", tmp_path):
        assert ended(follow.main, folder)[0] == 2
    heads = tmp_path / "heads.npz"
    rays = np.tile(np.eye(3)[:, None], (2, 12, 1))
    np.savez(heads, a=rays, b=rays)
    assert success(ended(follow.main, "--heads", heads)).startswith("1 videos")
    for wrong in (rays[:3], rays[:, :1], rays[..., :2], rays * 0, rays * np.nan, rays * 1j, "x"):
        np.savez(heads, a=rays, b=wrong)
        refusal(ended(follow.main, "--heads", heads), "heads.npz: not head directions")
    heads.write_bytes(b"PK")
    for path in (heads, tmp_path / "nowhere.npz", record):
        assert ended(follow.main, "--heads", path)[0] == 2


def test_panoramas_that_real_gaze_could_not_read(tmp_path, checkpoint):
    """A missing folder was exit 0 and silence; one panorama with observers was a traceback."""
    words, path = (tmp_path, "--ckpt_path", checkpoint, "--height", 16), tmp_path / "a.npz"
    good = {"a_rgb": np.zeros((4, 8, 3), np.uint8), "a_gt": np.eye(4, 8),
            "a_fix": np.zeros((6, 2)), "a_user": np.arange(6)}  # fmt: skip
    np.savez(path, **good)
    assert success(ended(real_gaze.main, *words)).startswith("a.npz: 1 panorama")
    assert "no .npz file in it" in ended(real_gaze.main, tmp_path / "nowhere", *words[1:])[2]
    wrong = {"a_rgb": (np.zeros((4, 8, 3)), np.zeros((4, 8), np.uint8), np.array(["x"], object)),
             "a_gt": (np.zeros((4, 8)), np.full((4, 8), np.nan), np.eye(4, 8) * 1j, np.array("x")),
             "a_fix": (np.zeros((6, 3)), np.full((6, 2), np.inf), np.full((6, 2), "x")),
             "a_user": (np.arange(5), np.zeros(6))}  # fmt: skip
    for name, arrays in wrong.items():
        for array in arrays:
            np.savez(path, **good | {name: array})
            refusal(ended(real_gaze.main, *words), "a.npz: not a set of panoramas with gaze")
    path.write_bytes(b"PK")
    assert ended(real_gaze.main, *words)[0] == 2
    path.unlink()
    os.mkfifo(path)
    assert "a pipe or a device" in ended(real_gaze.main, *words)[2]
