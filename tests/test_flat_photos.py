"""Flat photographs as a data set: where the map's peak is, splits, going on, refusals."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import models
import recipes.flat_photos as flat_photos
from cli import InputError, run_script
from datasets import SaliencyVideos
from models import CubeUNet
from recipes.flat_photos import BLUR, MAP_WIDTH, gaze_map, main, photographs_of, write_dataset
from recipes.gaze_sources import Picture, read_sources
from tests.test_gaze_scenes import write_clips, write_photographs
from tests.trainings import train, write_data


def looked_at(x, y, weights):
    return Picture(Path("picture.jpg"), *map(np.array, (x, y, weights)))


def test_one_fixation_is_a_gaussian_around_it():
    """At column 40.5 / 160 and row 60.5 / 120: exp(−d² / 2σ²) at distance d, σ = 3 % of 160."""
    saliency = gaze_map(looked_at([40.5 / 160], [60.5 / 120], [2.0]), 120, 160)
    sigma = BLUR * 160
    assert saliency.shape == (120, 160) and saliency[60, 40] == 1
    for row, column in ((60, 44), (63, 40), (57, 36)):
        d2 = (row - 60) ** 2 + (column - 40) ** 2
        assert math.isclose(saliency[row, column], math.exp(-d2 / 2 / sigma**2), rel_tol=0.02)


def test_fixations_count_by_weight_and_those_on_the_edge_are_inside():
    picture = looked_at([0.0, 0.5, 1.0], [0.0, 0.5, 1.0], [1.0, 4.0, 1.0])
    saliency = gaze_map(picture, 60, 80, blur=0.01)
    assert saliency[30, 40] == 1
    # In a corner the picture's edges cut off what lies beyond, but not the peak.
    assert math.isclose(saliency[0, 0], 0.25, rel_tol=0.02)
    assert math.isclose(saliency[-1, -1], 0.25, rel_tol=0.02)


def test_data_set_is_read_and_made_once(tmp_path, monkeypatch):
    write_photographs(tmp_path / "sources" / "eyecrowd", 45)  # the last 40 validate
    write_dataset(tmp_path / "one", tmp_path / "sources")
    write_dataset(tmp_path / "two", tmp_path / "sources", workers=2)
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            other = tmp_path / "two" / path.relative_to(tmp_path / "one")
            assert path.read_bytes() == other.read_bytes(), path
    spec = CubeUNet(flat=True, height=32, width=48, base_channels=2).spec
    data = {s: SaliencyVideos(tmp_path / "one", s, spec) for s in ("train", "val")}
    assert [len(d) for d in data.values()] == [5, 40]
    photographs = read_sources(tmp_path / "sources")["train"].photographs
    for item, picture in zip(data["train"], photographs, strict=True):
        assert item["valid"].all() and item["motion"].abs().max() == 0 and not item["irregular"]
        expected = gaze_map(picture, 120, MAP_WIDTH)
        row, column = np.unravel_index(expected.argmax(), expected.shape)
        peak = divmod(item["target"].argmax().item(), 48)
        assert abs(peak[0] - row * 32 / 120) <= 1 and abs(peak[1] - column * 48 / 160) <= 1

    made = []
    monkeypatch.setattr(flat_photos, "gaze_map", lambda *a: made.append(a) or gaze_map(*a))
    write_dataset(tmp_path / "one", tmp_path / "sources")
    assert not made  # all is there
    path = tmp_path / "sources" / "eyecrowd" / "fixations.npz"
    columns = dict(np.load(path))
    columns["x"][-1] = 1 - columns["x"][-1]  # on the last photograph
    np.savez(path, **columns)
    photographs_of.cache_clear()
    write_dataset(tmp_path / "one", tmp_path / "sources")
    assert [picture.path.name for picture, *_ in made] == ["044.jpg"]
    about = json.loads((tmp_path / "one" / "scenes.json").read_text())
    assert list(about["sources"]) == ["eyecrowd"]


def test_a_network_learns_from_photographs_and_goes_on_on_the_sphere(tmp_path):
    write_photographs(tmp_path / "sources" / "scene500", 45)
    write_dataset(tmp_path / "flat", tmp_path / "sources")
    flat = ("--model_args", "flat=1", "height=32", "width=48", "base_channels=4", "--epochs", 1)
    train(tmp_path / "flat", tmp_path / "one", *flat)
    learned = models.load(tmp_path / "one" / "cube_unet_best.pth")
    assert learned.flat and learned.spec.loss == "flat_density"
    start = ("--init", tmp_path / "one" / "cube_unet_best.pth", "--epochs", 1, "--lr", 0)
    sphere = ("--model_args", "flat=0", "height=40", "width=80")
    train(write_data(tmp_path / "scenes"), tmp_path / "two", *start, *sphere)
    model = models.load(tmp_path / "two" / "cube_unet_best.pth")
    assert not model.flat and model.spec.loss == "smse" and model.spec.width == 80
    for (name, before), after in zip(learned.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(before, after), name
    message = train(tmp_path / "flat", tmp_path / "no", *flat, "--augment", "yaw", code=2)
    assert "--augment yaw: flat pictures can't follow" in message


def test_clips_alone_are_not_enough(tmp_path):
    write_clips(tmp_path / "hevc33_video")
    with pytest.raises(InputError, match="no photographs"):
        write_dataset(tmp_path / "out", tmp_path)


def test_bad_options_are_refused_in_one_line(tmp_path, monkeypatch, capsys):
    for options, message in (
        (["--sources", str(tmp_path)], "holds none of the folders"),
        (["--sources", str(tmp_path), "--workers", "0"], "--workers must be positive"),
    ):
        monkeypatch.setattr(sys, "argv", ["flat_photos", *options])
        with pytest.raises(SystemExit) as stop:
            run_script(main)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and message in error and error.count("\n") == 1
