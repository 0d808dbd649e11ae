"""Resumed training: exact after a kill, an interrupt or a full disk; damaged runs are refused."""

import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import models
from tests.checkpoints import changed
from tests.commands import ROOT, train_one_epoch
from tests.runs import OPTIONS, last, log, same
from tests.trainings import TINY, train, write_long_clips

STATE = ("step", "log", "sums", "seconds", "optimizer", "scaler", "average", "random", "weights",
         "arguments", "spec", "run", "model")  # fmt: skip


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


MOMENTS = (
    ("die_in_step", 2),
    ("die_in_backward", 11),  # between two parts of a batch
    ("die_in_validation", 2),
    *(("die_before_a_rename", n) for n in (4, 5, 6)),  # of the best checkpoint, the log or the last
    ("die_after_logging", 3),  # log and best are of the first epoch, last is not
)


@pytest.fixture(scope="module")
def whole(clips_to_train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(clips_to_train, folder, *OPTIONS)
    return folder


@pytest.mark.parametrize("fault", [
    ("die_in_step", 5),  # in the middle of the second epoch
    ("die_half_way_through_a_save", 4),
    *(pytest.param(fault, marks=pytest.mark.slow) for fault in MOMENTS),
])  # fmt: skip
def test_a_killed_run_ends_as_if_it_had_not_been(clips_to_train, whole, tmp_path, fault):
    train(clips_to_train, tmp_path, *OPTIONS, fault=fault, code=-signal.SIGKILL)
    assert "resumed after step" in train(clips_to_train, tmp_path, *OPTIONS)
    assert_same_run(whole, tmp_path)


def test_a_run_killed_before_its_first_save_starts_again(clips_to_train, tmp_path):
    options = ("--epochs", 2, "--batch_size", 4)
    train(clips_to_train, tmp_path / "whole", *options)
    died = {"fault": ("die_in_step", 2), "code": -signal.SIGKILL}
    train(clips_to_train, tmp_path / "parts", *options, **died)
    assert "resumed after step" not in train(clips_to_train, tmp_path / "parts", *options)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_data_workers_change_nothing(clips_to_train, whole, tmp_path):
    train(clips_to_train, tmp_path, *OPTIONS, "--workers", 1)
    assert_same_run(whole, tmp_path)


@pytest.mark.slow
def test_the_other_model_resumes_as_exactly(clips_to_train, tmp_path):
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
def test_an_interrupted_run_saves_at_once(clips_to_train, whole, tmp_path, fault):
    options = (*OPTIONS, "--save_minutes", 10)
    printed = train(clips_to_train, tmp_path, *options, fault=fault, code=130)
    steps = 4 if fault[0] == "interrupt_a_step" else 6
    assert f"SIGINT: stopped after step {steps} of 9" in printed
    train(clips_to_train, tmp_path, *options)
    assert_same_run(whole, tmp_path, ends_only=True)


def test_an_interrupted_validation_was_logged_twice(clips_to_train, whole, tmp_path):
    options = (*OPTIONS, "--save_minutes", 10)
    train(clips_to_train, tmp_path, *options, fault=("interrupt_validation", 2), code=130)
    train(clips_to_train, tmp_path, *options, fault=("die_after_logging", 1), code=-signal.SIGKILL)
    train(clips_to_train, tmp_path, *options)
    assert_same_run(whole, tmp_path, ends_only=True)


@pytest.mark.slow
def test_a_signal_to_all_processes_saves_and_leaves(clips_to_train, tmp_path):
    """As a batch system sends it: to the data workers, too."""
    options = ("--epochs", 2, "--samples", 24, "--batch_size", 2)
    command = [sys.executable, ROOT / "train_video.py", "--data_root", clips_to_train,
               "--output_dir", tmp_path / "parts", "--workers", 1, "--precision", "fp32",
               *TINY, *options, "--save_minutes", 0]  # fmt: skip
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
    train(clips_to_train, tmp_path / "parts", *options)
    train(clips_to_train, tmp_path / "whole", *options)
    assert_same_run(tmp_path / "whole", tmp_path / "parts", ends_only=True)


LIVE_LOADER = """
import sys
from datasets import SaliencyVideos
from models import Spec
from training.batches import make_loader
import torch
loader = make_loader(SaliencyVideos(sys.argv[1], "train", Spec(24, 48)), [[0]] * 9,
                     torch.device("cpu"), 1)
batches = iter(loader)
next(batches)
print("read", flush=True)
"""


@pytest.mark.slow
def test_a_script_with_a_live_loader_ends(clips_to_train):
    """Its workers ignored SIGTERM, by which the main process ends them, and it waited for ever."""
    command = [sys.executable, "-c", LIVE_LOADER, clips_to_train]
    done = subprocess.run(command, cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr


def test_a_full_disk_leaves_the_checkpoint_before(clips_to_train, tmp_path):
    options = ("--epochs", 2, "--batch_size", 4, "--save_minutes", 0)
    message = train(clips_to_train, tmp_path, *options, fault=("fill_the_disk", 4), code=1)
    assert "cube_unet_" in message.splitlines()[-1]
    assert "File too large; free space there" in message
    state = last(tmp_path)
    assert (state["log"], state["step"]) == ([], 2)
    assert not list(tmp_path.glob(".*"))
    train(clips_to_train, tmp_path, *options)
    train(clips_to_train, tmp_path / "whole", *options)
    assert_same_run(tmp_path / "whole", tmp_path)


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before(clips_to_train, tmp_path):
    options = ("--epochs", 3, "--batch_size", 4)
    message = train(clips_to_train, tmp_path, *options, fault=("lose_the_loss", 5), code=1)
    assert "the loss is nan at frames clip" in message
    assert "the previous checkpoint is kept" in message.replace("\n", " ")
    assert len(last(tmp_path)["log"]) == 1
    for name in ("cube_unet_last.pth", "cube_unet_best.pth"):
        assert all(t.isfinite().all() for t in last(tmp_path, name)["weights"].values())


def test_another_run_is_not_gone_on_with(clips_to_train, tmp_path):
    options = ("--epochs", 1, "--batch_size", 4)
    train(clips_to_train, tmp_path, *options, "--resume", "auto")
    before = (tmp_path / "cube_unet_last.pth").read_bytes()
    for other, named in (
        (("--lr", 0.1), "learning_rate"),
        (("--seed", 1), "seed"),
        (("--augment", "yaw"), "augment"),
        (("--model_args", "height=48", "width=96", "base_channels=4"), "height"),
        (("--recipe", "paper"), "optimizer"),
    ):
        message = train(clips_to_train, tmp_path, *options, *other, code=2).splitlines()[-1]
        assert named in message
        assert "--resume no" in message
    assert (tmp_path / "cube_unet_last.pth").read_bytes() == before
    assert "resumed" not in train(clips_to_train, tmp_path, *options, "--lr", 0.1, "--resume", "no")
    assert len(log(tmp_path)) == 1
    assert len(events(tmp_path)["val_loss"]) == 1


def test_a_checkpoint_without_a_run_is_not_gone_on_with(clips_to_train, tmp_path):
    """The repository comes with a best checkpoint, and older versions wrote others."""
    models.save(tmp_path / "cube_unet_best.pth", models.CubeUNet(base_channels=4))
    assert "resumed" not in train(clips_to_train, tmp_path, "--epochs", 1)
    models.save(tmp_path / "cube_unet_last.pth", models.CubeUNet(base_channels=4))
    assert "older version" in train(clips_to_train, tmp_path, "--epochs", 1, code=2)


def test_a_run_from_before_an_argument_of_the_model_is_gone_on_with(clips_to_train, tmp_path):
    """Each new argument of a model, such as padding, would have ended all interrupted runs."""
    train(clips_to_train, tmp_path, "--epochs", 1)

    def older(stored):
        for name in ("padding", "latitude_bias"):
            del stored["arguments"][name], stored["run"][name]

    changed(tmp_path / "cube_unet_last.pth", tmp_path / "cube_unet_last.pth", older)
    assert "resumed after step" in train(clips_to_train, tmp_path, "--epochs", 2)


def test_a_longer_run_says_that_it_is_another(clips_to_train, tmp_path):
    train(clips_to_train, tmp_path, "--epochs", 1)
    assert "--resume no" in train(clips_to_train, tmp_path, "--epochs", 1)
    assert "epochs 1 instead of 2" in train(clips_to_train, tmp_path, "--epochs", 2)
    assert [line["epoch"] for line in log(tmp_path)] == [1, 2]


def test_a_long_epoch_is_seen_before_it_ends(clips_to_train, whole):
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


def test_looking_does_not_change_the_run(clips_to_train, whole, tmp_path):
    """With no save in an epoch, nothing is shown in it, and the weights are the same."""
    train(clips_to_train, tmp_path, *OPTIONS, "--save_minutes", 10)
    assert [step for step, _ in events(tmp_path)["train_loss"]] == [3, 6, 9]
    assert_same_run(whole, tmp_path, ends_only=True)
    assert same(*(last(folder)["random"] for folder in (whole, tmp_path)))


@pytest.mark.parametrize("name", STATE)
def test_entries_that_are_missing_or_of_another_type_on_resume(trained, tmp_path, name):
    """18 of 20 ended in a traceback."""
    data, whole = trained
    run = tmp_path / "run"
    run.mkdir()
    for value in ("missing", "text", {"a": 1}):

        def change(stored, value=value):
            if value == "missing":
                del stored[name]
            else:
                stored[name] = value

        changed(whole, run / "cube_unet_last.pth", change)
        code, _, line = train_one_epoch(data, run, "--ema", "0.9", "--epochs", 2)
        harmless = name in ("scaler", "arguments", "spec")  # not used, or not missed
        assert harmless or (code == 2 and "cube_unet_last.pth" in line), (value, line)
