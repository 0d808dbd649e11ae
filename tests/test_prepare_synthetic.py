"""prepare.synthetic: scenes exact on the sphere, reproducible, with attention by appearance."""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import evaluate_video
from common.errors import InputError
from datasets.gaze import fixation_map
from prepare import synthetic, worlds
from prepare.figures import KINDS, UP, Figure, rotation
from prepare.synthetic import OBSERVERS, Scene, draw_fixations, render, write_dataset
from projection import directions, solid_angles
from projection.sphere import equirectangular_taps
from tests.commands import ROOT, ended, infer, paint, refusal, written
from tests.spherical import read_spherical
from video.decoding import decode, probe

HEIGHT, WIDTH = 60, 120
SIZE = {"height": 24, "width": 48, "attention_height": 16}
COLOURS = np.full((4, 3), 0.9, np.float32)


@pytest.mark.parametrize("columns", [1, 37, 60])
@pytest.mark.parametrize("seed", range(4))
def test_turning_by_whole_columns_rolls_the_picture(seed, columns):
    scene = Scene(seed, HEIGHT, WIDTH)
    camera = scene.camera(0.5)
    turned = camera @ rotation(UP, 2 * math.pi * columns / WIDTH)
    picture, contrast = scene.paint(0.5, camera)
    rolled, contrast_turned = scene.paint(0.5, turned)
    error = abs(rolled - np.roll(picture, -columns, axis=1))
    assert error.mean() < 1e-3 and np.quantile(error, 0.999) < 0.03
    assert contrast_turned == pytest.approx(contrast, abs=2e-3)


@pytest.mark.parametrize("seed", range(12))
def test_seam_is_no_edge(seed):
    scene = Scene(seed, HEIGHT, WIDTH)
    picture, _ = scene.paint(0.0, scene.camera(0.0))
    steps = abs(picture - np.roll(picture, 1, axis=1)).mean(axis=(0, 2))  # the first: the seam
    assert steps[0] <= 1.5 * max(steps[1:9].max(), steps[-8:].max())


@pytest.mark.parametrize("seed", range(6))
def test_camera_lying_on_its_back_sees_the_same_world(seed):
    """The world's poles lie on its equator, and the other way round."""
    scene = Scene(seed, 2 * HEIGHT, 2 * WIDTH)
    camera, tilt = scene.camera(0.0), rotation(np.array([-1.0, 0, 0]), math.pi / 2)
    upright, _ = scene.paint(0.0, camera)
    lying, _ = scene.paint(0.0, camera @ tilt)
    rays = directions(2 * HEIGHT, 2 * WIDTH, torch.float64) @ torch.from_numpy(tilt)
    index, weight = (a.numpy() for a in equirectangular_taps(rays, 2 * HEIGHT, 2 * WIDTH))
    tilted_back = (lying.reshape(-1, 3)[index] * weight[..., None]).sum(axis=0)
    error = abs(tilted_back - upright)
    assert error.mean() < 0.1 * upright.std()
    assert error[[0, -1]].mean() < 0.4 * upright.std()


@pytest.mark.parametrize("seconds", [0.0, 0.5, 0.9, 1.0, 1.1, 1.5, 3.0])
def test_figure_driven_over_the_pole_keeps_its_area(seconds):
    ball = Figure(KINDS["ball"], 0.2, np.eye(3), COLOURS, np.array([-1.0, 0, 0]), math.pi / 2)
    assert ball.at(1.0)[:, 2] == pytest.approx(UP)
    rays = directions(240, 480, torch.float32).reshape(-1, 3).numpy()
    _, coverage = ball.draw(rays @ ball.at(seconds).astype(np.float32), math.pi / 240, seconds)
    area = (coverage.reshape(240, 480) * solid_angles(240, 480).numpy()).sum()
    assert area == pytest.approx(2 * math.pi * (1 - math.cos(0.95 * 0.2)), rel=0.01)


def test_figures_stand_out_where_they_are_seen_and_differ_from_the_background():
    scene = Scene(0, HEIGHT, WIDTH)
    scene.texture[:] = 0.2
    camera = scene.camera(0)
    pose = camera @ rotation(UP, 1.0)
    person = Figure(KINDS["person"], 0.2, pose, COLOURS)
    camouflaged = person._replace(colours=COLOURS * 0 + 0.2)
    screen = Figure(KINDS["ball"], 0.6, pose, COLOURS * 0.2)
    contrasts = []
    for figures in ([person], [camouflaged], [person, screen]):
        scene.figures = figures
        contrasts.append(scene.paint(0.0, camera)[1][0])
    open_view, camouflage, hidden = contrasts
    assert hidden == 0 and camouflage < 0.2 * open_view


@pytest.mark.parametrize("turn", [-2.0, 2.0])
def test_attention_goes_to_the_person_and_not_to_the_tree(turn):
    scene = Scene(0, HEIGHT, WIDTH)
    camera = scene.camera(0)
    person, tree = (Figure(KINDS[name], 0.2, camera @ rotation(UP, angle), COLOURS)
                    for name, angle in (("person", turn), ("tree", -turn)))  # fmt: skip
    scene.figures = [person, tree]
    _, contrast = scene.paint(0.0, camera)
    rays = directions(HEIGHT, WIDTH, torch.float32).numpy()
    column = scene.attention(0.0, camera, contrast, rays).max(axis=0).argmax()
    assert column == pytest.approx((turn / (2 * math.pi) + 0.5) * WIDTH, abs=2)


@pytest.mark.parametrize("seed", range(6))
def test_frames_and_attention_are_valid_and_reproducible(seed):
    first, second = (list(render(seed, 3, HEIGHT, WIDTH, attention_height=32)) for _ in range(2))
    for (frame, target), (frame_again, target_again) in zip(first, second, strict=True):
        assert frame.shape == (HEIGHT, WIDTH, 3) and frame.dtype == np.uint8
        assert target.shape == (32, 64) and target.dtype == np.float32
        assert np.isfinite(target).all() and target.min() >= 0 and target.max() == 1
        assert (frame == frame_again).all() and (target == target_again).all()
    assert (first[0][0] != first[1][0]).any()


def test_noise_is_looked_up_in_double_precision(monkeypatch):
    """In single precision, 47 of the 600 scenes of the shipped checkpoint's recipe were others."""
    points = np.random.default_rng(1).normal(0, 20, (1000, 3)).astype(np.float32)
    seen = []
    look_up = torch.nn.functional.grid_sample
    monkeypatch.setattr(
        worlds.F, "grid_sample", lambda *a, **k: seen.append(a[1]) or look_up(*a, **k)
    )
    worlds.noise(points, 6.0, np.random.default_rng(2))
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] * 6 / 32
    places = (points.astype(float) @ turn + rng.uniform(-1, 1, 3)).astype(np.float32)
    assert (seen[0].reshape(-1, 3).numpy() == places).mean() > 0.999


def test_attention_does_not_depend_on_the_size_of_the_map():
    (_, small), (_, large) = (next(render(5, 1, 120, 240, attention_height=a)) for a in (32, 96))
    pooled = large.reshape(32, 3, 64, 3).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), pooled.ravel())[0, 1] > 0.99


def test_fixations_fall_where_attention_is():
    """Shares of 40 × 20 fixations in the cells of a coarse grid, against the integral over each."""
    attention = np.zeros((12, 24), np.float32)
    attention[0], attention[4:8, 20:], attention[9, 3] = 0.2, 1, 3  # round a pole, a patch, a pixel
    rng, areas = np.random.default_rng(0), solid_angles(12, 24, torch.float64).numpy()
    x, y = np.concatenate([draw_fixations(attention, rng) for _ in range(40)], axis=1)
    counts = fixation_map(x, y, 12, 24).numpy()
    expected = attention * areas * counts.sum() / (attention * areas).sum()
    assert counts.sum() == 40 * OBSERVERS and not counts[attention == 0].any()
    for part in (np.s_[0], np.s_[4:8, 20:22], np.s_[4:8, 22:], np.s_[9, 3]):
        share = expected[part].sum()
        assert abs(counts[part].sum() - share) < 4 * math.sqrt(share)
    inside = (x / (2 * math.pi) * 24) % 1
    assert 0.45 < inside.mean() < 0.55 and 0.24 < inside.std() < 0.34, "anywhere in a pixel"


def test_every_metric_works_on_synthetic_scenes(tmp_path):
    root = tmp_path / "data"
    write_dataset(root, 12, frames=2, **SIZE)
    for name in ("scene_0011", "scene_0012"):
        (tmp_path / "maps" / name).mkdir(parents=True)
        for n in (1, 2):
            truth = root / name / f"{n:04d}_gt.npy"
            shutil.copy(truth, tmp_path / "maps" / name / f"{n:04d}.npy")
    words = "--data_root", root, "--height", 16, "--pred_dir", tmp_path / "maps"
    assert ended(evaluate_video.main, *words, "--output_dir", tmp_path / "out")[0] == 0
    found = json.loads((tmp_path / "out/metrics.json").read_text())["predictors"]["maps"]
    assert set(found) == {"cc", "sim", "kld", "nss", "auc_judd", "sauc", "information_gain"}
    assert found["nss"]["mean"] > 1 and found["information_gain"]["mean"] > 0


def test_data_set_is_the_same_for_any_number_of_workers(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for root, workers in ((one, 1), (two, 2)):
        write_dataset(root, 4, 7, workers, frames=2, **SIZE)
    assert written(one) == written(two)
    names = [f"scene_{n:04d}" for n in range(1, 5)]
    splits = json.loads((one / "splits.json").read_text())
    assert splits == {"train": names[:2], "val": names[2:3], "test": names[3:]}
    target = np.load(one / names[0] / "0002_gt.npy", allow_pickle=False)
    assert target.shape == (16, 32) and target.dtype == np.float32
    assert written(one)[f"{names[0]}/0001.jpg"] != written(one)[f"{names[1]}/0001.jpg"]


def test_complete_clips_are_kept_and_others_written_again(tmp_path):
    write_dataset(tmp_path, 2, frames=3, **SIZE)
    before = written(tmp_path)
    (tmp_path / "scene_0001" / "0002.jpg").unlink()
    record = tmp_path / "scene_0001" / "prepared.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "complete": False}))
    kept = (tmp_path / "scene_0002" / "0001.jpg").stat().st_ino
    write_dataset(tmp_path, 2, frames=3, **SIZE)
    assert written(tmp_path) == before
    assert (tmp_path / "scene_0002" / "0001.jpg").stat().st_ino == kept
    write_dataset(tmp_path, 2, 1, frames=2, **SIZE)
    assert not (tmp_path / "scene_0001" / "0003.jpg").exists()
    assert written(tmp_path)["scene_0002/0001.jpg"] != before["scene_0002/0001.jpg"]


def test_frames_of_another_origin_are_never_overwritten(tmp_path):
    (tmp_path / "scene_0001").mkdir()
    (tmp_path / "scene_0001" / "0001.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="scene_0001"):
        write_dataset(tmp_path, 1, frames=1, **SIZE)
    assert (tmp_path / "scene_0001" / "0001.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["splits.json", "dataset.json", "scene_0001/prepared.json"])
def test_a_file_of_the_user_s_was_replaced(tmp_path, name):
    """It was removed before the first scene was rendered."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"mine": []}')
    with pytest.raises(InputError, match=name.partition("/")[0]):
        write_dataset(tmp_path, 2, frames=1, fps=8, **SIZE)
    assert (tmp_path / name).read_text() == '{"mine": []}'
    (tmp_path / name).unlink()
    write_dataset(tmp_path, 2, frames=1, fps=8, **SIZE)
    before = written(tmp_path)
    write_dataset(tmp_path, 2, frames=1, fps=8, **SIZE)
    assert written(tmp_path) == before
    write_dataset(tmp_path, 1, frames=1, fps=4, **SIZE)
    assert json.loads((tmp_path / "dataset.json").read_text()) == {"fps": 4}


def test_a_scene_as_a_video(checkpoint, tmp_path):
    """What `make demo` starts from, and all the way to its overlay."""
    clip, out = tmp_path / "demo.mp4", tmp_path / "overlay.mp4"
    words = ("--frames", 9, "--height", 40, "--width", 80, "--fps", 24)
    assert ended(synthetic.main, "--video", clip, *words)[0] == 0
    assert read_spherical(clip)["v2"]
    assert infer(clip, checkpoint, tmp_path / "maps")[0] == 0
    assert paint(clip, tmp_path / "maps", out)[0] == 0
    assert len(list(decode(probe(out)))) == 9
    assert read_spherical(out) == read_spherical(clip)


def test_few_clips_leave_splits_empty_and_it_is_said(tmp_path):
    """evaluate then said "no clips for split 'test', only for ['train', 'val', 'test']"."""
    words = ("--clips", 2, "--frames", 1, "--height", 16, "--width", 32, "--workers", 1)
    code, text, _ = ended(synthetic.main, "--output", tmp_path / "data", *words)
    assert code == 0
    assert "splits: train 2, val 0, test 0\nnote: too few clips for val and test" in text
    code, _, text = ended(evaluate_video.main, "--data_root", tmp_path / "data")
    assert code == 2 and "split 'test' has no clips; choose one of: train" in text


def test_interrupted_data_looked_unusable(tmp_path):
    """train said "there is no splits.json …; write splits.json", where the command continues."""
    words = ("--clips", 3, "--frames", 1, "--height", 16, "--width", 32, "--workers", 1)
    assert ended(synthetic.main, "--output", tmp_path, *words)[0] == 0
    (tmp_path / "splits.json").unlink()
    shutil.rmtree(tmp_path / "scene_0003")
    code, _, line = ended(evaluate_video.main, "--data_root", tmp_path)
    assert code == 2 and "not finished; run the command that makes it again to con" in line
    assert ended(synthetic.main, "--output", tmp_path, *words)[0] == 0
    words = "--check", "--data_root", tmp_path, "--output_dir", tmp_path / "out"
    assert ended(evaluate_video.main, *words)[0] == 0


def test_rates_of_television(tmp_path):
    clip = tmp_path / "a.mp4"
    words = ("--video", clip, "--frames", 4, "--height", 24, "--width", 48)
    assert ended(synthetic.main, *words, "--fps", 29.97)[0] == 0
    assert abs(probe(clip).fps - 29.97) < 0.01
    refusal(ended(synthetic.main, "--video", clip, "--height", 25, "--width", 48), "even")


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.05, 0.2])
@pytest.mark.parametrize("phase", ["start-up", "rendering"])
def test_a_second_ctrl_c_does_not_hang(tmp_path, phase, pause):
    """The workers waited for ever, or it ended with InvalidStateError: CANCELLED."""
    output = tmp_path / "scenes"
    words = (sys.executable, "-m", "prepare.synthetic", "--output", output, "--clips", 200,
             "--workers", 2, "--height", 40, "--width", 80, "--attention_height", 20)  # fmt: skip
    process = subprocess.Popen(
        [*map(str, words)], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    line = process.stderr.read(len(str(output)))  # the progress bar's: all have been started
    try:
        while phase == "rendering" and len(list(output.glob("*/prepared.json"))) < 4:
            time.sleep(0.01)
        for _ in range(2):
            time.sleep(pause)
            os.killpg(process.pid, signal.SIGINT)
        line += process.communicate(timeout=60)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130 and "Error" not in line
    assert "interrupted; finished files are kept" in line.splitlines()[-1]
    assert len(list(output.glob("*/prepared.json"))) < 200
