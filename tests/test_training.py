"""What train_video.py promises: exact resume, no half files, no nonsense."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import models
import train_video
import training
from datasets import SaliencyVideos
from metrics import cc, nss
from models.ema import WeightAverage
from projection import solid_angles
from tests.trainings import ROOT, TINY, train, write_data, write_long_clips
from training import SCHEDULES, Batches, RunningLoss

# Everything that has a state: Adam, cosine, average of weights, random changes, a batch in parts.
OPTIONS = (
    "--epochs", 3, "--batch_size", 4, "--accumulate", 2, "--ema", 0.9, "--clip_gradient", 1,
    "--augment", "yaw", "mirror", "light", "--save_minutes", 0,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "scenes")


def last(folder, name="cube_unet_last.pth"):
    return torch.load(folder / name, weights_only=True)


def log(folder):
    """log.jsonl without the one thing that may differ between two runs."""
    lines = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def events(folder, ends_only=False):
    """Scalars and pictures in TensorBoard: {tag: [(step, value or PNG), …]}.

    ends_only: only those at the ends of epochs.
    """
    found = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0})
    found.Reload()
    tags, ends = found.Tags(), [line["step"] for line in log(folder)]
    return {
        tag: [
            (event.step, getattr(event, value))
            for event in read(tag)
            if not ends_only or event.step in ends
        ]
        for kind, read, value in (
            ("scalars", found.Scalars, "value"),
            ("images", found.Images, "encoded_image_string"),
        )
        for tag in tags[kind]
    }


def same(one, other) -> bool:
    """To the bit, through dictionaries and lists."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def assert_same_run(one, other, ends_only=False):
    """Weights, averages and optimizer to the bit, and nothing lost or doubled in the logs.

    ends_only: of TensorBoard, as the runs did not save at the same steps within an epoch.
    """
    for name in ("cube_unet_last.pth", "cube_unet_best.pth"):
        states = last(one, name), last(other, name)
        for state in states:
            for line in state.get("log", []):
                line.pop("seconds")
        for key in ("weights", "average", "optimizer", "step", "log", "run"):
            assert same(*(state.get(key) for state in states)), f"{name}: {key}"
    assert log(one) == log(other)
    assert events(one, ends_only) == events(other, ends_only)
    assert not list(other.glob(".*"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(data, folder, *OPTIONS)
    return folder


@pytest.mark.parametrize(
    "fault",
    [
        ("die_in_step", 2),
        ("die_in_step", 5),  # in the middle of the second epoch
        ("die_in_backward", 11),  # between two parts of a batch
        ("die_in_validation", 2),
        ("die_half_way_through_a_save", 4),
        ("die_before_a_rename", 4),  # of the best checkpoint, the log or the last
        ("die_before_a_rename", 5),
        ("die_before_a_rename", 6),
        ("die_after_logging", 4),  # log and best are of the first epoch, last is not
    ],
)
def test_a_killed_run_ends_as_if_it_had_not_been(data, whole, tmp_path, fault):
    train(data, tmp_path, *OPTIONS, fault=fault, code=-signal.SIGKILL)
    assert "resumed after step" in train(data, tmp_path, *OPTIONS)
    assert_same_run(whole, tmp_path)


def test_a_run_killed_before_its_first_save_starts_again(data, tmp_path):
    options = ("--epochs", 2, "--batch_size", 4)
    train(data, tmp_path / "whole", *options)
    train(data, tmp_path / "parts", *options, fault=("die_in_step", 2), code=-signal.SIGKILL)
    assert "resumed after step" not in train(data, tmp_path / "parts", *options)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_killed_again_and_again(data, whole, tmp_path):
    for _ in range(3):
        train(data, tmp_path, *OPTIONS, fault=("die_in_step", 3), code=-signal.SIGKILL)
    train(data, tmp_path, *OPTIONS)
    assert_same_run(whole, tmp_path)


def test_data_workers_change_nothing(data, whole, tmp_path):
    train(data, tmp_path, *OPTIONS, "--workers", 1)
    assert_same_run(whole, tmp_path)


def test_the_other_model_resumes_as_exactly(data, tmp_path):
    options = ("--model", "sst_sal", "--motion", "none", "--epochs", 2, "--skip_frames", 0,
               "--model_args", "height=24", "width=32", "--save_minutes", 0)  # fmt: skip
    write_long_clips(tmp_path / "long")
    train(tmp_path / "long", tmp_path / "whole", *options)
    fault = ("die_in_step", 4)
    train(tmp_path / "long", tmp_path / "parts", *options, fault=fault, code=-signal.SIGKILL)
    train(tmp_path / "long", tmp_path / "parts", *options)
    one, other = (last(tmp_path / name, "sst_sal_last.pth") for name in ("whole", "parts"))
    assert same(one["weights"], other["weights"])


@pytest.mark.parametrize("fault", [("interrupt_a_step", 4), ("interrupt_validation", 2)])
def test_an_interrupted_run_saves_at_once(data, whole, tmp_path, fault):
    options = (*OPTIONS, "--save_minutes", 10)
    printed = train(data, tmp_path, *options, fault=fault, code=130)
    steps = 4 if fault[0] == "interrupt_a_step" else 6
    assert f"SIGINT: stopped after step {steps} of 9" in printed
    train(data, tmp_path, *options)
    assert_same_run(whole, tmp_path, ends_only=True)


def test_an_interrupted_validation_that_is_killed_later_is_not_logged_twice(data, whole, tmp_path):
    options = (*OPTIONS, "--save_minutes", 10)
    train(data, tmp_path, *options, fault=("interrupt_validation", 2), code=130)
    train(data, tmp_path, *options, fault=("die_after_logging", 1), code=-signal.SIGKILL)
    train(data, tmp_path, *options)
    assert_same_run(whole, tmp_path, ends_only=True)


def test_a_signal_to_all_processes_saves_and_leaves(data, tmp_path):
    """As a batch system sends it: to the data workers, too."""
    options = ("--epochs", 2, "--samples", 24, "--batch_size", 2)
    command = [sys.executable, ROOT / "train_video.py", "--data_root", data, "--output_dir",
               tmp_path / "parts", "--workers", 1, "--precision", "fp32", *TINY, *options,
               "--save_minutes", 0]  # fmt: skip
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "parts/cube_unet_last.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 143, printed
    assert "SIGTERM: stopped after " in printed
    assert "Traceback" not in printed
    state = last(tmp_path / "parts")
    assert 0 < state["step"] < 24
    train(data, tmp_path / "parts", *options)
    train(data, tmp_path / "whole", *options)
    assert_same_run(tmp_path / "whole", tmp_path / "parts", ends_only=True)


def test_a_full_disk_leaves_the_checkpoint_before(data, tmp_path):
    options = ("--epochs", 2, "--batch_size", 4, "--save_minutes", 0)
    message = train(data, tmp_path, *options, fault=("fill_the_disk", 4), code=1)
    assert "cube_unet_" in message.splitlines()[-1]
    assert "File too large; make room there" in message
    state = last(tmp_path)
    assert (state["log"], state["step"]) == ([], 2)
    assert not list(tmp_path.glob(".*"))
    train(data, tmp_path, *options)
    train(data, tmp_path / "whole", *options)
    assert_same_run(tmp_path / "whole", tmp_path)


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before(data, tmp_path):
    options = ("--epochs", 3, "--batch_size", 4)
    message = train(data, tmp_path, *options, fault=("lose_the_loss", 5), code=1)
    assert "the loss is nan at frames clip" in message
    assert "cube_unet_last.pth keeps what was good" in message.replace("\n", " ")
    assert len(last(tmp_path)["log"]) == 1
    for name in ("cube_unet_last.pth", "cube_unet_best.pth"):
        assert all(t.isfinite().all() for t in last(tmp_path, name)["weights"].values())


def test_weights_that_are_not_finite_are_not_saved(data, tmp_path):
    options = ("--epochs", 3, "--batch_size", 4, "--save_minutes", 0)
    train(data, tmp_path, *options, fault=("lose_the_loss", 5), code=1)
    assert last(tmp_path)["weights"]["head.bias"].isfinite()


def test_another_run_is_not_gone_on_with(data, tmp_path):
    options = ("--epochs", 1, "--batch_size", 4)
    train(data, tmp_path, *options, "--resume", "auto")
    before = (tmp_path / "cube_unet_last.pth").read_bytes()
    for other, named in (
        (("--lr", 0.1), "learning_rate"),
        (("--seed", 1), "seed"),
        (("--augment", "yaw"), "augment"),
        (("--model_args", "height=48", "width=96", "base_channels=4"), "height"),
        (("--recipe", "paper"), "optimizer"),
    ):
        message = train(data, tmp_path, *options, *other, code=2).splitlines()[-1]
        assert named in message
        assert "--resume no" in message
    assert (tmp_path / "cube_unet_last.pth").read_bytes() == before
    assert "resumed" not in train(data, tmp_path, *options, "--lr", 0.1, "--resume", "no")
    assert len(log(tmp_path)) == 1
    assert len(events(tmp_path)["val_loss"]) == 1


def test_a_checkpoint_without_a_run_is_not_gone_on_with(data, tmp_path):
    """The repository comes with a best checkpoint, and older versions wrote others."""
    models.save(tmp_path / "cube_unet_best.pth", models.CubeUNet(base_channels=4))
    assert "resumed" not in train(data, tmp_path, "--epochs", 1)
    models.save(tmp_path / "cube_unet_last.pth", models.CubeUNet(base_channels=4))
    assert "older version" in train(data, tmp_path, "--epochs", 1, code=2)


def test_resume_yes_needs_a_run(data, tmp_path):
    assert "no such checkpoint" in train(data, tmp_path, "--resume", code=2)


def test_a_longer_run_says_that_it_is_another(data, tmp_path):
    train(data, tmp_path, "--epochs", 1)
    assert "--resume no" in train(data, tmp_path, "--epochs", 1)
    assert "epochs 1 instead of 2" in train(data, tmp_path, "--epochs", 2)
    assert [line["epoch"] for line in log(tmp_path)] == [1, 2]


def test_a_dry_run_keeps_nothing(data, tmp_path):
    printed = train(data, tmp_path / "run", "--dry_run", *OPTIONS)
    assert "dry run" in printed
    assert json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
    assert not (tmp_path / "run").exists()


def test_a_long_epoch_is_seen_before_it_ends(data, whole):
    """TensorBoard had nothing before the first epoch ended, and counted in epochs."""
    found, lines = events(whole), log(whole)
    assert [line["step"] for line in lines] == [3, 6, 9]
    for name in ("train_loss", "learning_rate"):
        assert [step for step, _ in found[name]] == list(range(1, 10))
    for name in ("val_loss", "val_cc", "best_constant", "best_constant_cc", "train_loss"):
        ends = [value for step, value in found[name] if step in (3, 6, 9)]
        assert ends == pytest.approx([line[name] for line in lines])
    pictures = {tag: shown for tag, shown in found.items() if "prediction" in tag}
    names = [f"frame, truth, prediction/clip3 {number}" for number in (4, 5, 6, 7)]
    assert sorted(pictures) == names
    for shown in pictures.values():
        assert [step for step, _ in shown] == list(range(1, 10))
        image = np.asarray(Image.open(io.BytesIO(shown[-1][1])))
        assert image.shape == (40, 240, 3) and image[:, 160:].max() == 255


def test_looking_does_not_change_the_run(data, whole, tmp_path):
    """With no save in an epoch, nothing is shown in it, and the weights are the same."""
    train(data, tmp_path, *OPTIONS, "--save_minutes", 10)
    assert [step for step, _ in events(tmp_path)["train_loss"]] == [3, 6, 9]
    assert_same_run(whole, tmp_path, ends_only=True)
    assert same(*(last(folder)["random"] for folder in (whole, tmp_path)))


class Noisy(models.CubeUNet):
    """Draws random numbers even in eval mode."""

    def forward(self, frames, motion):
        return super().forward(frames + torch.rand_like(frames), motion)


def test_pictures_leave_no_trace_in_a_model(data):
    model = Noisy(base_channels=4, height=40, width=80).train()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    clips, state = SaliencyVideos(data, "val", model.spec), torch.get_rng_state()
    shown = list(training.pictures(model, clips, torch.device("cpu"), torch.float32))
    assert [name for name, _ in shown] == ["clip3 4", "clip3 5", "clip3 6", "clip3 7"]
    assert all(picture.shape == (3, 40, 240) for _, picture in shown)
    assert model.training and same(weights, model.state_dict())
    assert torch.equal(state, torch.get_rng_state())


def test_the_same_few_clips_are_shown():
    for length, indices in ((1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]),
                            (80, [10, 30, 50, 70])):  # fmt: skip
        assert training.clips_to_show(range(length)) == indices


@pytest.fixture
def watched(data, tmp_path):
    """The same data with fixations, and a validation frame that has none."""
    root = tmp_path / "watched"
    shutil.copytree(data, root)
    rows = (f"{n},{10 * n},{5 * o},{o}" for n in (4, 5, 6) for o in range(3))
    table = "\n".join(("frame,longitude,latitude,observer", *rows))
    (root / "clip3/fixations.csv").write_text(table)
    return root


@pytest.mark.parametrize("processes", [1, 2])
def test_scores_are_the_means_of_all_frames(watched, tmp_path, processes):
    """CC and NSS of model and best constant map, however many processes share the frames."""
    printed = train(watched, tmp_path, "--epochs", 1, "--batch_size", 2, processes=processes)
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
    told = f", CC {line['best_constant_cc']:.3f}, NSS {line['best_constant_nss']:.3f}"
    assert told in printed


def test_the_bar_shows_what_the_loss_is_to_beat(data, tmp_path):
    printed = train(data, tmp_path, "--epochs", 2)
    line = log(tmp_path)[0]
    scores = f"{line['val_cc']:.3f} ({line['best_constant_cc']:.3f})"
    assert f"(constant {line['best_constant']:.4g}), val CC – (" in printed
    assert f"(constant {line['best_constant']:.4g}), val CC {scores}" in printed
    assert "val_cc" in log(tmp_path)[0] and "val_nss" not in log(tmp_path)[0]


def test_a_compiled_network_learns_the_same(data, tmp_path):
    options = ("--epochs", 1, "--samples", 4)
    train(data, tmp_path / "plain", *options)
    train(data, tmp_path / "compiled", *options, "--compile", fault=("compile_fast", 1))
    for name in ("train_loss", "val_loss"):
        plain, compiled = (log(tmp_path / run)[0][name] for run in ("plain", "compiled"))
        assert compiled == pytest.approx(plain, rel=1e-4)


def test_the_summary_tells_what_to_do_next(data, tmp_path):
    printed = train(data, tmp_path, "--epochs", 1)
    best = tmp_path / "cube_unet_best.pth"
    assert f"evaluate_video.py --ckpt_path {best} --data_root {data} --split val" in printed


@pytest.mark.parametrize("model, published", [
    ("cube_unet", {"optimizer": "sgd", "learning_rate": 1e-3, "momentum": 0.9,
                   "schedule": "constant"}),
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


def test_init_keeps_the_loss_and_the_spec_of_its_checkpoint(data, tmp_path):
    """With --init, the loss changed from density to smse without a word, and the rate to 8."""
    model = models.CubeUNet(base_channels=4, height=48, width=96)
    model.spec = replace(model.spec, fps=5.0)
    models.save(tmp_path / "start.pth", model, run={"loss": "density"})
    options = ("--init", tmp_path / "start.pth", "--epochs", 1, "--samples", 4)
    printed = train(data, tmp_path / "run", *options)
    assert f"--loss density, with which {tmp_path}/start.pth was trained" in printed
    made = "start.pth was made with height 48, width 96; this run uses height 40, width 80"
    assert made in printed and "was trained with --loss" not in printed
    best = last(tmp_path / "run", "cube_unet_best.pth")
    assert (best["run"]["loss"], best["spec"]["fps"], best["spec"]["height"]) == ("density", 5, 40)

    printed = train(data, tmp_path / "other", *options, "--loss", "smse")
    assert "was trained with --loss density, this run uses smse" in printed
    assert last(tmp_path / "other", "cube_unet_best.pth")["run"]["loss"] == "smse"
    models.save(tmp_path / "start.pth", model)  # by an older version, which did not note the loss
    assert "with --loss" not in train(data, tmp_path / "unknown", *options)


def test_init_with_another_motion_is_told(data, tmp_path):
    models.save(tmp_path / "start.pth", models.CubeUNet(6, base_channels=4, height=40, width=80))
    options = ("--init", tmp_path / "start.pth", "--motion", "raft", "--dry_run")
    args = train_video.parse_args([*map(str, options)])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert train_video.make_model(args).spec.motion == "raft"
    assert "was made with motion dis; this run uses motion raft" in printed.getvalue()


def test_too_little_truth_is_told_before_the_first_epoch(tmp_path):
    data = write_data(tmp_path / "scenes")
    for path in sorted((data / "clip3").glob("*_gt.npy"))[1:]:
        path.write_bytes(b"")
    message = train(data, tmp_path / "run", code=2).splitlines()[-1]
    assert "split 'val': of 4 maps that were tried 1 are usable" in message
    assert not (tmp_path / "run").exists()
    (data / "splits.json").write_text(json.dumps({"train": ["clip0"], "val": []}))
    assert "split 'val' has no clips" in train(data, tmp_path / "run", code=2)


def test_a_batch_that_can_not_be_divided(data, tmp_path):
    message = train(data, tmp_path, "--batch_size", 3, "--accumulate", 2, code=2)
    assert "--batch_size 3" in message
    assert "multiple of 2" in message


def test_an_epoch_is_drawn_without_repetition_and_filled_up():
    order = Batches(clips=10, samples=0, batch_size=4, seed=0, epochs=2)
    batches = list(order)
    assert [len(batch) for batch in batches] == [4] * 6 and len(order) == order.last == 6
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
    """0, then 1 four times with decay 0.5: the rates are 0.9, 1 − 2/11, 1 − 3/12, 1 − 4/13."""
    model = models.CubeUNet(base_channels=4, height=40, width=80)
    average, expected = WeightAverage(model, 0.5), 0.0
    variance, bias = (
        dict(model.named_buffers())["backbone.stem.2.running_var"],
        model.head.bias.data,
    )
    for tensor in (
        variance,
        bias,
        average.model.head.bias,
        average.model.backbone.stem[2].running_var,
    ):
        tensor.fill_(0.0)
    variance.fill_(1.0), bias.fill_(1.0)
    for rate in (1 - 1 / 10, 1 - 2 / 11, 1 - 3 / 12, 1 - 4 / 13):
        average.update(model)
        expected += rate * (1 - expected)
    assert average.model.head.bias.item() == pytest.approx(expected)
    averaged = average.model.backbone.stem[2].running_var
    assert averaged.tolist() == pytest.approx([expected] * 4)
    assert model.head.bias.item() == 1


def test_an_average_decays_as_told_in_the_long_run():
    model = models.CubeUNet(base_channels=4, height=40, width=80)
    average = WeightAverage(model, 0.5)
    average.steps = 1000
    average.model.head.bias.data.fill_(0)
    model.head.bias.data.fill_(1)
    average.update(model)
    average.update(model)
    assert average.model.head.bias.item() == pytest.approx(0.75)


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
    losses.add(torch.tensor(6.0), 3, {})
    losses.add(torch.tensor(4.0), 1, {})
    assert losses.sums(Path("none")) == (10, 4)
    assert losses.recent == pytest.approx(2 + 0.02 * (4 - 2))
