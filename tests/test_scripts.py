"""The scripts as users start them, on a tiny clip and a tiny data set."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prepare.synthetic import write_dataset
from tests.clips import write_video
from tests.spherical import read_spherical
from video.decoding import decode, probe

ROOT = Path(__file__).resolve().parents[1]
TINY = {"height": 40, "width": 80, "base_channels": 4}


def run(script, *arguments, code=0, cwd=ROOT):
    """Runs a script and checks its exit code, and that failures are one line."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert result.returncode == code, result.stderr
    if code in (1, 2):
        assert "Traceback" not in result.stderr
        last = result.stderr.strip().splitlines()[-1].split("\r")[-1]
        assert last.startswith(f"{script}: "), result.stderr
        return last
    return result


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes") / "synthetic"
    write_dataset(root, clips=4, frames=4, height=40, width=80, attention_height=20)
    return root


def infer(clip, checkpoint, output, *more, code=0):
    return run(
        "infer_video.py", "--video_path", clip, "--ckpt_path", checkpoint,
        "--output_dir", output, *more, code=code,
    )  # fmt: skip


def maps(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("sal_*"))}


def test_infer_writes_a_map_for_every_frame(clip, checkpoint, tmp_path):
    infer(clip, checkpoint, tmp_path / "out", "--save_npy")
    names = [f"sal_{n:04d}.png" for n in range(1, 24)]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == names
    for name in names:
        picture = np.asarray(Image.open(tmp_path / "out" / name))
        assert picture.shape == (40, 80)
        assert picture.dtype == np.uint8
        assert picture.max() == 255
        saliency = np.load((tmp_path / "out" / name).with_suffix(".npy"), allow_pickle=False)
        assert saliency.dtype == np.float32
        assert np.abs(saliency / saliency.max() * 255 - picture).max() <= 0.5 + 1e-3
    facts = json.loads((tmp_path / "out" / "saliency.json").read_text())
    assert facts["frame_count"] == 23
    assert facts["complete"] is True
    assert facts["video"] == "clip.mp4"
    assert facts["fps"] == 30
    assert not list((tmp_path / "out").glob(".*"))


def test_a_killed_infer_leaves_only_whole_maps(checkpoint, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", frames=400, fps=8)
    command = [sys.executable, str(ROOT / "infer_video.py"), "--video_path", str(clip),
               "--ckpt_path", str(checkpoint), "--output_dir", str(tmp_path / "out")]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("sal_*.png"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = list((tmp_path / "out").glob("sal_*.png"))
    assert len(written) >= 20
    for path in written:
        assert np.asarray(Image.open(path)).shape == (40, 80)
    infer(clip, checkpoint, tmp_path / "out")
    assert len(maps(tmp_path / "out")) == 400


def test_a_scene_as_a_video(checkpoint, tmp_path):
    """What `make demo` starts from, and all the way to its overlay."""
    clip, out = tmp_path / "demo.mp4", tmp_path / "overlay.mp4"
    command = [sys.executable, "-m", "prepare.synthetic", "--video", str(clip), "--frames", "9",
               "--height", "40", "--width", "80", "--fps", "24"]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    assert read_spherical(clip)["v2"]
    infer(clip, checkpoint, tmp_path / "maps")
    run(
        "make_video.py", "--original_video", clip, "--saliency_dir", tmp_path / "maps",
        "--output_path", out,
    )  # fmt: skip
    assert len(list(decode(probe(out)))) == 9
    assert read_spherical(out) == read_spherical(clip)


def train(scenes, output, *more, code=0):
    return run(
        "train_video.py", "--data_root", scenes, "--output_dir", output, "--workers", 0,
        "--model_args", *(f"{k}={v}" for k, v in TINY.items()), *more, code=code,
    )  # fmt: skip


def test_train_then_infer(scenes, clip, tmp_path):
    train(scenes, tmp_path / "run", "--epochs", 2)
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert all(entry["val_loss"] > 0 and entry["best_constant"] > 0 for entry in log)
    best = torch.load(tmp_path / "run/cube_unet_best.pth", weights_only=True)
    assert best["val_loss"] == min(entry["val_loss"] for entry in log)
    assert best["spec"]["height"] == 40
    assert list((tmp_path / "run/tensorboard").iterdir())
    infer(clip, tmp_path / "run/cube_unet_best.pth", tmp_path / "out")
    assert len(maps(tmp_path / "out")) == 23


def test_train_goes_on_after_the_last_epoch(scenes, tmp_path):
    """Three epochs in one go and one, killed, then two more: the same weights."""
    train(scenes, tmp_path / "whole", "--epochs", 3, "--precision", "fp32")
    command = [sys.executable, str(ROOT / "train_video.py"), "--data_root", str(scenes),
               "--output_dir", str(tmp_path / "parts"), "--workers", "0", "--precision", "fp32",
               "--epochs", "3", "--model_args", *(f"{k}={v}" for k, v in TINY.items())]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "parts/cube_unet_last.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    run("train_video.py", *command[2:], "--resume")
    whole, parts = (
        torch.load(tmp_path / name / "cube_unet_last.pth", weights_only=True)
        for name in ("whole", "parts")
    )
    assert len(whole["log"]) == len(parts["log"]) == 3
    for name, weights in whole["weights"].items():
        assert torch.equal(weights, parts["weights"][name]), name


def test_train_without_data_says_how_to_get_some(tmp_path):
    message = run("train_video.py", code=2, cwd=tmp_path)
    for word in ("360_Saliency_dataset_2018ECCV", "0001_gt.npy", "prepare.synthetic"):
        assert word in message


def test_train_stops_when_the_loss_is_not_finite(scenes, tmp_path):
    message = train(scenes, tmp_path / "run", "--lr", "1e30", "--epochs", 9, code=1)
    assert "scene_0" in message
    assert "learning_rate" in message


def test_train_refuses_arguments_that_the_model_does_not_have(scenes, tmp_path):
    message = run(
        "train_video.py", "--data_root", scenes, "--model_args", "depth=3", code=2, cwd=tmp_path
    )
    assert "depth" in message


SCRIPTS = ["train_video.py", "infer_video.py", "make_video.py", "evaluate_video.py"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_states_defaults(script):
    text = run(script, "--help").stdout
    assert "default:" in text
    for nothing in ("None", "False", "[]"):
        assert f"default: {nothing}" not in text


def test_help_shows_the_column_of_the_model():
    text = run("train_video.py", "--help", "--model", "sst_sal").stdout
    assert "peak learning rate (default: 0.8)" in " ".join(text.split())


def test_help_shows_a_default_of_zero():
    """0 equals False, which once hid it."""
    text = " ".join(run("train_video.py", "--help").stdout.split())
    for shown in ("augmentation (default: 0)", "no average (default: 0.0)", "clips (default: 0)"):
        assert shown in text


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "PASSIVE 2000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        ({"GOMP_SPINCOUNT": "9"}, "None 9"),
    ],
)
def test_threads_soon_sleep_unless_the_user_says_otherwise(given, found):
    """Active waiting made the network four times slower beside another busy program."""
    names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    environment = {name: v for name, v in os.environ.items() if name not in names} | given
    program = f"import startup, os; print(*map(os.environ.get, {names}))"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.stdout.strip() == found
