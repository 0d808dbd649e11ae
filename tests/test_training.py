"""train_video.py: what a run saves, shows, refuses and computes; schedules and averages."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import models
import train_video
from common.errors import InputError
from datasets import SaliencyVideos
from metrics import cc, nss
from models.ema import WeightAverage
from projection import solid_angles
from tests.commands import ended, infer, map_files, refusal, train_one_epoch
from tests.runs import OPTIONS, last, log
from tests.trainings import TINY, resolve, train, write_data, write_long_clips
from train_video import SCHEDULES
from training.batches import Batches
from training.monitor import PREDICTIONS, Monitor, RunningLoss
from video.layout import rgb_array
from video.pictures import read_picture


def test_a_dry_run_keeps_nothing(clips_to_train, tmp_path):
    printed = train(clips_to_train, tmp_path / "run", "--dry_run", *OPTIONS)
    assert "dry run" in printed
    assert "loss nan" not in printed and "loss 0 " not in printed  # before one is known
    assert json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count, indices", [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3]),
                                            (80, [10, 30, 50, 70])])  # fmt: skip
def test_pictures_are_of_clips_spread_evenly(clips_to_train, tmp_path, count, indices):
    model = models.CubeUNet(base_channels=4, height=40, width=80).train()
    item = SaliencyVideos(clips_to_train, "val", model.spec)[0]
    run = SimpleNamespace(
        step=1, log=[], order=SimpleNamespace(epoch_steps=2, steps=2), result=model,
        data={"val": [item | {"name": str(index)} for index in range(count)]},
        config=SimpleNamespace(device=torch.device("cpu"), precision=torch.float32),
    )  # fmt: skip
    monitor, state = Monitor(tmp_path, run), torch.get_rng_state()
    shown = {}
    monitor.board.add_image = lambda name, image, step: shown.update({name: image})
    monitor.write(run)
    assert [int(name.split("/")[1].split()[0]) for name in shown] == indices
    assert all(image.shape == (3, 40, 240) for image in shown.values())
    rows = torch.cat(list(shown.values()), dim=-2)
    assert np.array_equal(read_picture(tmp_path / PREDICTIONS), rgb_array(rows))
    assert model.training and torch.equal(state, torch.get_rng_state())


@pytest.fixture
def watched(clips_to_train, tmp_path):
    """The same data with fixations, and a validation frame that has none."""
    root = tmp_path / "watched"
    shutil.copytree(clips_to_train, root)
    rows = (f"{n},{10 * n},{5 * o},{o}" for n in (4, 5, 6) for o in range(3))
    table = "\n".join(("frame,longitude,latitude,observer", *rows))
    for n in range(4):
        (root / f"clip{n}/fixations.csv").write_text(table)
    return root


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_scores_are_the_means_of_all_frames(watched, tmp_path, processes):
    """CC and NSS of model and best constant map, however many processes share the frames."""
    words = ("--epochs", 1, "--batch_size", 2, "--loss", "tests.trainings:WatchedSMSE")
    printed = train(watched, tmp_path, *words, processes=processes)
    [line] = log(tmp_path)
    model = models.load(tmp_path / "cube_unet_best.pth")
    items = list(SaliencyVideos(watched, "val", model.spec))
    areas = solid_angles(40, 80, torch.float64)
    truths = torch.cat([item["target"] for item in items])[:, 0]
    fixations = torch.cat([item["fixations"] for item in items])[:, 0]
    with torch.inference_mode():
        maps = torch.cat([model(item["frames"][None], item["motion"][None]) for item in items])
    constants = truths.mean(0), (truths / truths.sum((-2, -1), keepdim=True)).mean(0)
    expected = {}
    for name, metric, truth in (("cc", cc, truths), ("nss", nss, fixations)):
        expected[f"val_{name}"] = metric(maps[:, 0, 0], truth, areas).nanmean().item()
        scores = (metric(c.expand_as(truth), truth, areas).nanmean() for c in constants)
        expected[f"best_constant_{name}"] = max(scores).item()
    assert nss(maps[:, 0, 0], fixations, areas).isnan().tolist() == [False] * 3 + [True]
    assert {name: line[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    for name in ("best_constant", "best_constant_cc", "best_constant_nss"):
        assert f"{name} {line[name]:.4g}" in printed


def test_the_shipped_checkpoint_is_not_replaced(clips_to_train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = tmp_path / "checkpoints/cube_unet_best.pth"
    shipped.parent.mkdir()
    shipped.write_bytes(b"shipped")
    words = ("--data_root", clips_to_train, "--epochs", 1, "--workers", 0, *TINY)
    assert ended(train_video.main, *words)[0] == 0
    assert [*shipped.parent.iterdir()] == [shipped] and shipped.read_bytes() == b"shipped"
    assert (tmp_path / "runs/cube_unet/cube_unet_best.pth").is_file()


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(clips_to_train, tmp_path):
    options = ("--epochs", 1, "--samples", 4)
    train(clips_to_train, tmp_path / "plain", *options)
    train(clips_to_train, tmp_path / "compiled", *options, "--compile", fault=("compile_fast", 1))
    for name in ("train_loss", "val_loss"):
        plain, compiled = (log(tmp_path / run)[0][name] for run in ("plain", "compiled"))
        assert compiled == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("model, published", [
    ("cube_unet", {"optimizer": "sgd", "learning_rate": 1e-3, "momentum": 0.9,
                   "schedule": "constant", "backbone": "published", "latitude_bias": False,
                   "motion": "colour_difference", "base_channels": 4}),
    ("sst_sal", {"optimizer": "sgd", "momentum": 0.0, "schedule": "constant",
                 "loss": "spherical_kl", "batch_size": 1, "learning_rate": 0.8}),
])  # fmt: skip
def test_the_published_recipe(tmp_path, model, published):
    write_long_clips(tmp_path / "long")
    options = ("--model", model, "--recipe", "paper", "--epochs", 1, "--samples", 2,
               "--skip_frames", 0)  # fmt: skip
    if model == "sst_sal":
        options += ("--model_args", "height=24", "width=32", "in_channels=3", "hidden_channels=4")
    train(tmp_path / "long", tmp_path / "run", *options)
    run = last(tmp_path / "run", f"{model}_best.pth")["run"]
    assert {name: run[name] for name in published} == published


def test_checkpoints_keep_what_an_ablation_changed(clips_to_train, tmp_path):
    more = ("--model_args", "height=40", "width=80", "base_channels=4", "padding=zero",
            "latitude_bias=false", "--loss", "mse", "--epochs", 1, "--samples", 2)  # fmt: skip
    train(clips_to_train, tmp_path, *more)
    best = last(tmp_path, "cube_unet_best.pth")
    assert (best["arguments"]["padding"], best["arguments"]["latitude_bias"]) == ("zero", False)
    assert best["run"]["loss"] == "mse" and "latitude_bias" not in best["weights"]
    with pytest.raises(InputError, match="latitude_bias=perhaps"):
        resolve(["--model_args", "latitude_bias=perhaps"])


def test_the_published_recipe_keeps_the_backbone_of_init(clips_to_train, tmp_path):
    models.save(tmp_path / "start.pth", models.CubeUNet(base_channels=4, height=40, width=80))
    options = ("--init", tmp_path / "start.pth", "--recipe", "paper", "--epochs", 1)
    train(clips_to_train, tmp_path / "run", *options, "--samples", 2)
    assert last(tmp_path / "run", "cube_unet_best.pth")["arguments"]["backbone"] == "plain"


def test_init_keeps_the_loss_and_the_spec_of_its_checkpoint(clips_to_train, tmp_path):
    """With --init, the loss changed from density to smse without a word, and the rate to 8."""
    model = models.CubeUNet(base_channels=4, height=48, width=96)
    model.spec = replace(model.spec, fps=5.0)
    models.save(tmp_path / "start.pth", model, run={"loss": "density"})
    options = ("--init", tmp_path / "start.pth", "--epochs", 1, "--samples", 4)
    train(clips_to_train, tmp_path / "run", *options)
    best = last(tmp_path / "run", "cube_unet_best.pth")
    assert (best["run"]["loss"], best["spec"]["fps"], best["spec"]["height"]) == ("density", 5, 40)

    train(clips_to_train, tmp_path / "other", *options, "--loss", "smse")
    assert last(tmp_path / "other", "cube_unet_best.pth")["run"]["loss"] == "smse"
    models.save(tmp_path / "start.pth", model)  # by an older version, which did not note the loss
    train(clips_to_train, tmp_path / "unknown", *options)


def test_too_little_truth_is_told_before_the_first_epoch(tmp_path):
    data = write_data(tmp_path / "scenes")
    for path in sorted((data / "clip3").glob("*_gt.npy"))[1:]:
        path.write_bytes(b"")
    message = train(data, tmp_path / "run", code=2).splitlines()[-1]
    assert "split 'val': 1 of 4 maps are usable" in message
    assert not (tmp_path / "run").exists()
    (data / "splits.json").write_text(json.dumps({"train": ["clip0"], "val": []}))
    assert "split 'val' has no clips" in train(data, tmp_path / "run", code=2)


def test_a_batch_that_can_not_be_divided(clips_to_train, tmp_path):
    message = train(clips_to_train, tmp_path, "--batch_size", 3, "--accumulate", 2, code=2)
    assert "--batch_size 3" in message
    assert "give 4" in message


def test_an_epoch_is_drawn_without_repetition_and_filled_up():
    order = Batches(clips=10, samples=0, batch_size=4, seed=0, epochs=2)
    batches = list(order)
    assert [len(batch) for batch in batches] == [4] * 6 and len(order) == order.steps == 6
    epochs, drawn = zip(*(key for batch in batches for key in batch))
    assert epochs == (1,) * 12 + (2,) * 12
    assert sorted(drawn[:10]) == sorted(drawn[12:22]) == list(range(10))
    assert drawn[:12] != drawn[12:]


def test_a_batch_depends_on_seed_and_step_alone():
    whole = list(Batches(clips=10, samples=7, batch_size=4, seed=3, epochs=3))
    for first in range(7):
        assert list(Batches(10, 7, 4, 3, 3, first)) == whole[first:]
    assert list(Batches(clips=10, samples=7, batch_size=4, seed=4, epochs=3)) != whole


def test_an_average_by_hand():
    """0, then 1 three times with decay 0.5: the rates are 1 − 2/11, 1 − 3/12, 1 − 4/13."""
    model = models.CubeUNet(base_channels=4, height=40, width=80)
    average, expected = WeightAverage(model, 0.5), 0.0
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    for value in (0.0, 1.0, 1.0, 1.0):
        model.head.bias.data.fill_(value), norm.running_var.fill_(value)
        average.update(model)
    for rate in (1 - 2 / 11, 1 - 3 / 12, 1 - 4 / 13):
        expected += rate * (1 - expected)
    assert average.module.head.bias.item() == pytest.approx(expected)
    norm = next(m for m in average.module.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.running_var.tolist() == pytest.approx([expected] * len(norm.running_var))
    assert model.head.bias.item() == 1 and not average.module.training


def test_an_average_leaves_integers_as_they_are():
    model = models.CubeUNet(base_channels=4, height=40, width=80)
    average = WeightAverage(model, 0.9)
    for _ in range(3):
        average.update(model)
    for buffer, averaged in zip(model.buffers(), average.module.buffers(), strict=True):
        assert torch.equal(buffer, averaged)


def test_an_average_decays_as_told_in_the_long_run():
    model = models.CubeUNet(base_channels=4, height=40, width=80)
    average = WeightAverage(model, 0.5)
    average.steps = 1000
    average.module.head.bias.data.fill_(0)
    model.head.bias.data.fill_(1)
    average.update(model)
    average.update(model)
    assert average.module.head.bias.item() == pytest.approx(0.75)


def test_schedules():
    """Cosine: a twentieth of the steps to rise, none of it left at the end."""
    cosine = [SCHEDULES["cosine"](step, 1000) for step in range(1001)]
    assert cosine[0] == pytest.approx(1 / 51)
    assert cosine[500] == pytest.approx(0.5)
    assert cosine[1000] == pytest.approx(0, abs=1e-12)
    assert max(cosine) == pytest.approx(1, abs=0.01)
    assert SCHEDULES["constant"](7, 1000) == 1


def test_the_running_loss_is_the_mean_over_maps():
    losses = RunningLoss()
    losses.add(torch.tensor(6.0), {"valid": torch.tensor([True, True, True, False])})
    losses.add(torch.tensor(4.0), {"valid": torch.tensor([True])})
    assert losses.sums() == (10, 4) and losses.mean() == 2.5


def test_train_then_infer(scenes, clip, tmp_path):
    assert train_one_epoch(scenes, tmp_path / "run", "--epochs", 2)[0] == 0
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert all(entry["val_loss"] > 0 and entry["best_constant"] > 0 for entry in log)
    best = torch.load(tmp_path / "run/cube_unet_best.pth", weights_only=True)
    assert best["val_loss"] == min(entry["val_loss"] for entry in log)
    assert best["spec"]["height"] == 40
    assert list((tmp_path / "run/tensorboard").iterdir())
    assert infer(clip, tmp_path / "run/cube_unet_best.pth", tmp_path / "out")[0] == 0
    assert len(map_files(tmp_path / "out")) == 23


def test_train_without_data_says_how_to_get_some(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, message = ended(train_video.main)
    assert code == 2
    for word in ("360_Saliency_dataset_2018ECCV", "0001_gt.npy", "prepare.synthetic"):
        assert word in message


def test_train_stops_when_the_loss_is_not_finite(scenes, tmp_path):
    code, _, message = train_one_epoch(scenes, tmp_path / "run", "--lr", "1e30", "--epochs", 9)
    assert code == 1 and "scene_0" in message
    assert "learning_rate" in message


@pytest.mark.parametrize("given, says", [
    ("half_pixel=False", None),
    ("half_pixel=0", "half_pixel=0: sst_sal takes"),
    ("height=12.5", "height=12.5: sst_sal takes"),
    ("height=", "height=: sst_sal takes"),
    ("colour=red", "colour=red: sst_sal takes in_channels=6"),
])  # fmt: skip
def test_false_in_the_arguments_of_a_model_is_false(given, says):
    words = ["--model", "sst_sal", "--model_args", given]
    if says is None:
        assert resolve(words)[1].arguments["half_pixel"] is False
    else:
        with pytest.raises(InputError, match=says):
            resolve(words)


@pytest.mark.parametrize("value", [0, -1, 100_000])
@pytest.mark.parametrize("name", ["height", "width", "base_channels", "face_size", "in_channels"])
def test_arguments_of_a_model_beyond_reason(data_root, tmp_path, name, value):
    if (name, value) == ("face_size", 0):
        pytest.skip("0 stands for width // 4")
    words = ("--data_root", data_root, "--output_dir", tmp_path / "run", "--workers", 0)
    refusal(ended(train_video.main, *words, "--model_args", f"{name}={value}"), "--model_args")
    with pytest.raises(ValueError):
        models.CubeUNet(**{name: value})


def test_the_last_line_of_progress_shows_the_last_validation(scenes, tmp_path):
    """It showed the one before, and after a single epoch none."""
    code, _, progress = train_one_epoch(scenes, tmp_path)
    score = json.loads((tmp_path / "log.jsonl").read_text())["val_cc"]
    assert code == 0 and f"CC {score:.3f} (" in progress.strip().splitlines()[-1].split("\r")[-1]
