"""Data sets that state their frame rate are seen as a video of that rate is."""

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

import models
from common.errors import InputError
from datasets import SaliencyVideos
from datasets.layouts import list_clips
from datasets.rates import ClipRates, rate_of_folder
from evaluation.sources import Network
from maps.interpolate import interpolate
from models import Spec
from tests.clips import moving_disc, write_eccv_clip
from tests.commands import evaluate, infer, read_record, refusal, train_one_epoch
from tests.runs import last
from video.reader import read_frames, sampling_step

SPEC = Spec(height=24, width=48, motion="difference")


def write_data(root, frames=14, clips=("a",), **facts):
    """Clips without loss, as a folder of pictures is read too."""
    for name in clips:
        write_eccv_clip(root / name, range(1, frames + 1))
        for path in (root / name).glob("*.jpg"):
            Image.fromarray(moving_disc(int(path.stem), 32, 64)).save(path.with_suffix(".png"))
            path.unlink()
    (root / "splits.json").write_text(json.dumps({"train": list(clips), "val": list(clips)}))
    if facts:
        (root / "dataset.json").write_text(json.dumps(facts))
    return root


@pytest.mark.parametrize("fps", [30, 25, "30000/1001", 12, 8, 5])
def test_frames_are_those_of_inference(tmp_path, fps):
    data = SaliencyVideos(write_data(tmp_path, fps=fps), "train", SPEC)
    seen = list(read_frames(tmp_path / "a", SPEC, Fraction(fps)))
    assert [int(item["numbers"]) for item in data] == [frame.number for frame in seen]
    for item, frame in zip(data, seen, strict=True):
        assert torch.equal(item["frames"][0], frame.rgb)
        torch.testing.assert_close(item["motion"][0], frame.motion, atol=1e-6, rtol=0)


def test_motion_at_30_fps_was_that_between_consecutive_frames(tmp_path):
    """Networks were trained with less motion than they then saw in videos."""
    consecutive = SaliencyVideos(write_data(tmp_path), "train", SPEC)[4]
    (tmp_path / "dataset.json").write_text('{"fps": 30}')
    sampled = SaliencyVideos(tmp_path, "train", SPEC)[1]
    assert consecutive["numbers"] == sampled["numbers"] == 5
    assert sampled["motion"].mean() > 2 * consecutive["motion"].mean()


def test_every_frame_is_seen_where_nothing_is_stated(tmp_path):
    assert len(SaliencyVideos(write_data(tmp_path), "train", SPEC)) == 14


def test_every_frame_is_seen_where_the_model_asks_for_it(tmp_path):
    every = Spec(height=24, width=48, fps=1000)
    assert len(SaliencyVideos(write_data(tmp_path, fps=30), "train", every)) == 14


def test_what_is_stated_can_be_replaced(tmp_path):
    data = SaliencyVideos(write_data(tmp_path, fps=8), "train", SPEC, fps=Fraction(30))
    assert [int(item["numbers"]) for item in data] == [1, 5, 9, 13]


def test_clips_have_rates_of_their_own(tmp_path):
    write_data(tmp_path, 8, ("a", "b", "c"), fps={"a": 16, "b": "24"})
    data = SaliencyVideos(tmp_path, "train", SPEC, skip_frames=1)
    numbers = {name: [] for name in "abc"}
    for item in data:
        numbers[item["name"]] += item["numbers"].tolist()
    assert numbers == {"a": [3, 5, 7], "b": [4, 7], "c": [2, 3, 4, 5, 6, 7, 8]}


@pytest.mark.parametrize("fps", [0, -1, "fast", None, [25], {"a": "x"}, 1e9, float("nan")])
def test_rates_that_are_none_are_refused(tmp_path, fps):
    with pytest.raises(InputError, match=r"dataset\.json"):
        ClipRates(write_data(tmp_path, fps=fps))


def test_evaluation_scores_the_maps_of_inference(tmp_path):
    """Every frame with a ground truth has a map, interpolated in time as infer_video.py does."""
    write_data(tmp_path, fps=30)
    model = models.CubeUNet(height=40, width=80, base_channels=4).eval()
    models.save(tmp_path / "model.pth", model)
    files, irregular = list_clips(tmp_path)["a"], []
    scored = Network(tmp_path / "model.pth", model).maps("a", files, irregular, Fraction(30))
    frames = read_frames(tmp_path / "a", model.spec, Fraction(30))
    written = [saliency for _, saliency in interpolate(models.predict(model, frames))]
    assert len(written) == 14 and not irregular
    for one, other in zip(scored, written, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=0)


def test_inference_takes_the_rate_that_the_data_set_states(tmp_path, checkpoint):
    """Frames of 30 a second were taken for 8 a second, with a note to give --fps."""
    write_data(tmp_path / "data", fps={"a": 30, "b": 8})
    for more, fps in (((), 30), (("--fps", 12, "--overwrite"), 12)):
        code, _, errors = infer(tmp_path / "data/a", checkpoint, tmp_path / "maps", *more)
        assert code == 0 and "have no frame rate" not in errors
        assert read_record(tmp_path / "maps")["fps"] == fps
    nested = tmp_path / "sst/frames/a"
    shutil.copytree(tmp_path / "data/a", nested)
    assert rate_of_folder(nested) is None
    shutil.copy(tmp_path / "data/dataset.json", tmp_path / "sst")
    assert rate_of_folder(nested) == 30
    (tmp_path / "data/dataset.json").write_text("[]")
    refusal(infer(tmp_path / "data/a", checkpoint, tmp_path / "other"), "dataset.json: ")
    assert infer(tmp_path / "data/a", checkpoint, tmp_path / "other", "--fps", 8)[0] == 0


def test_the_published_recipe_steps_from_frame_to_frame(tmp_path):
    """It trained on every frame of data without a rate, but inference saw 8 a second."""
    data = write_data(tmp_path / "data")
    words = ("--recipe", "paper", "--model_args", "height=40", "width=80", "base_channels=4")
    code, printed, _ = train_one_epoch(data, tmp_path / "run", *words)
    assert code == 0 and "frame rate is unknown" not in printed
    model = models.load(tmp_path / "run/cube_unet_best.pth")
    assert sampling_step(Fraction(30), model.spec.fps) == 1
    code, printed, _ = train_one_epoch(data, tmp_path / "plain")
    assert "note: " in printed and "used as if they were 8 a second; give --fps" in printed


def test_an_unreadable_frame_has_no_map_where_it_would_be_sampled(tmp_path):
    write_data(tmp_path, fps=30)
    (tmp_path / "a/0005.png").write_bytes(b"")
    model = models.CubeUNet(height=40, width=80, base_channels=4).eval()
    models.save(tmp_path / "model.pth", model)
    files, irregular = list_clips(tmp_path)["a"], []
    scored = Network(tmp_path / "model.pth", model).maps("a", files, irregular, Fraction(30))
    assert [number for number, one in enumerate(scored, 1) if one is None] == [5]
    assert [kind for kind, _ in irregular] == ["unreadable frame"]


def test_a_checkpoint_keeps_the_rates_of_its_training(tmp_path):
    data, run = write_data(tmp_path / "data", fps=30), tmp_path / "run"
    assert train_one_epoch(data, run)[0] == 0
    state = last(run)
    assert state["spec"]["fps"] == 8 and state["run"]["data_fps"] == "30"
    assert state["step"] == 2  # 4 of 14 frames, 2 in a batch
    refusal(train_one_epoch(data, run, "--fps", 15), "data_fps 30 instead of 15")
    refusal(train_one_epoch(data, run, "--model_fps", "all"), "fps 8.0 instead of 1000.0")


def test_consecutive_frames_as_published(tmp_path):
    data, run = write_data(tmp_path / "data", fps=30), tmp_path / "run"
    assert train_one_epoch(data, run, "--model_fps", "all")[0] == 0
    assert last(run)["step"] == 7
    model = models.load(run / "cube_unet_best.pth")
    assert len(list(read_frames(data / "a", model.spec, Fraction(30)))) == 14
    assert evaluate(data, tmp_path / "out", "--ckpt_path", run / "cube_unet_best.pth",
                    "--split", "val")[0] == 0  # fmt: skip
