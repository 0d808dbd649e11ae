"""Maps of clips, folders and pictures as infer_video.py writes them, in one process."""

import contextlib
import io
import json
import os
import sys

import numpy as np
import pytest
import torch

import infer_video
import models
from common.errors import run_script
from tests.clips import write_eccv_clip, write_video


def infer(clip, checkpoint, output, *more, code=0):
    """Run the script; return the one line with which it refuses."""
    arguments = ["--video_path", clip, "--ckpt_path", checkpoint, "--output_dir", output, *more]
    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["infer_video.py", *map(str, arguments)])
        if not code:
            return run_script(infer_video.main)
        with pytest.raises(SystemExit) as stop:
            run_script(infer_video.main)
    assert stop.value.code == code
    last = stderr.getvalue().strip().splitlines()[-1].split("\r")[-1]
    assert last.startswith("infer_video.py: ") and ";" in last
    return last


def maps(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("sal_*"))}


def test_maps_between_samples_are_interpolated(clip, checkpoint, tmp_path):
    infer(clip, checkpoint, tmp_path / "out", "--save_npy")
    first, second, third = (np.load(tmp_path / "out" / f"sal_{n:04d}.npy") for n in (1, 3, 5))
    assert np.abs(first - third).max() > 1e-4
    np.testing.assert_allclose(second, (first + third) / 2, atol=1e-6)
    last = [np.load(tmp_path / "out" / f"sal_{n:04d}.npy") for n in (21, 22, 23)]
    assert np.array_equal(last[0], last[1])
    assert np.array_equal(last[0], last[2])


@pytest.mark.parametrize("lost", [range(20, 24), range(8, 24), [1], [15]])
def test_an_interrupted_run_continues_to_the_same_maps(clip, checkpoint, tmp_path, lost):
    infer(clip, checkpoint, tmp_path / "out", "--save_npy")
    before = maps(tmp_path / "out")
    for n in lost:
        (tmp_path / "out" / f"sal_{n:04d}.png").unlink()
    (tmp_path / "out" / ".sal_0009.123.partial.png").write_bytes(b"half")
    infer(clip, checkpoint, tmp_path / "out", "--save_npy")
    assert maps(tmp_path / "out") == before
    assert not list((tmp_path / "out").glob(".*"))


def test_folders_and_pictures_are_taken(checkpoint, tmp_path):
    folder = write_eccv_clip(tmp_path / "217")
    infer(folder, checkpoint, tmp_path / "folder")
    assert len(maps(tmp_path / "folder")) == 4
    infer(folder / "0001.jpg", checkpoint, tmp_path / "picture")
    assert len(maps(tmp_path / "picture")) == 1


def test_bad_input_is_named(clip, checkpoint, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "none.pth").write_text("no checkpoint")
    torch.save({"model": "resnet"}, tmp_path / "other.pth")
    out = tmp_path / "out"
    for video in ("missing.mp4", "empty.mp4", "text.mp4", "nothing"):
        assert video in infer(tmp_path / video, checkpoint, out, code=2)
    for weights in ("missing.pth", "none.pth", "other.pth"):
        assert weights in infer(clip, tmp_path / weights, out, code=2)
    assert "--device" in infer(clip, checkpoint, out, "--device", "cuda:9", code=2)
    (tmp_path / "file").touch()
    assert "file" in infer(clip, checkpoint, tmp_path / "file", code=2)
    assert not maps(out) if out.exists() else True


def test_the_maps_of_what_a_truncated_video_holds_are_kept(checkpoint, tmp_path):
    whole = write_video(tmp_path / "whole.mkv", frames=400, fps=8).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in infer(tmp_path / "cut.mkv", checkpoint, tmp_path / "out", code=2)
    assert len(maps(tmp_path / "out")) > 50
    facts = json.loads((tmp_path / "out" / "saliency.json").read_text())
    assert facts["complete"] is False


def test_a_folder_of_another_run_is_refused(clip, checkpoint, tmp_path):
    out = tmp_path / "out"
    infer(clip, checkpoint, out)
    before = maps(out)
    other = write_video(tmp_path / "other.mp4", frames=3)
    assert "--overwrite" in infer(other, checkpoint, out, code=2)
    assert maps(out) == before
    infer(other, checkpoint, out, "--overwrite")
    assert len(maps(out)) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(clip, checkpoint, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission" in infer(clip, checkpoint, tmp_path / "locked/out", code=2)


def test_a_full_disk_is_one_line(clip, checkpoint, tmp_path, monkeypatch):
    def full(path, *_):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(infer_video, "write_map", full)
    assert "sal_0001.png: No space left on device" in infer(
        clip, checkpoint, tmp_path / "out", code=1
    )


def test_a_map_that_is_not_finite_is_refused(clip, tmp_path):
    model = models.CubeUNet(height=40, width=80, base_channels=4)
    model.head.weight.data[:] = float("nan")
    models.save(tmp_path / "nan.pth", model)
    assert "not finite" in infer(clip, tmp_path / "nan.pth", tmp_path / "out", code=2)


def test_motion_may_be_replaced_by_one_of_as_many_channels(clip, checkpoint, tmp_path):
    infer(clip, checkpoint, tmp_path / "out", "--motion", "difference")
    assert len(maps(tmp_path / "out")) == 23
    assert "--motion dis" in infer(clip, checkpoint, tmp_path / "dis", "--motion", "dis", code=2)
