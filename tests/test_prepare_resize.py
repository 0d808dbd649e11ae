"""prepare.resize: training on the result is training on the original at that size."""

import errno
import json
import operator
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import InputError
from datasets import SaliencyVideos
from models import Spec
from prepare import recordings, resize
from prepare.records import begin_clip, clip_record
from prepare.resize import resize_dataset
from tests.clips import moving_disc, write_eccv_clip, write_video
from tests.commands import ended, start
from video import reader
from video.motion import motion_estimator

ROOT = Path(__file__).resolve().parents[1]
SIZE = {"height": 23, "width": 47}


def spec(motion="none", clip_length=1):
    return Spec(**SIZE, motion=motion, clip_length=clip_length)


def write_eccv_layout(root):
    """Two clips with a gap, a frame of another size, and maps missing and unusable."""
    for name, numbers in (("a", range(1, 10)), ("b", [1, 2, 3, 4, 8, 9, 10])):
        write_eccv_clip(root / name, numbers)
    Image.fromarray(moving_disc(6, 60, 110)).save(root / "a/0006.jpg")
    np.save(root / "a/0007_gt.npy", np.zeros((4, 8)))
    (root / "a/0008_gt.npy").unlink()
    Image.new("RGB", (64, 32), (250, 0, 30)).save(root / "a/0002_flow.png")
    (root / "a/0005_flow.png").write_text("no picture")
    (root / "b/fixations.csv").write_text("frame,longitude,latitude,observer\n2,90,45,1\n")
    (root / "splits.json").write_text('{"train": ["a", "b"], "test": ["c"]}')


def write_sst_sal_layout(root):
    """One clip with a gap and flow pictures for some frames, one of them unreadable."""
    for folder in ("frames", "saliency_maps", "optical_flow", "fixations"):
        (root / folder).mkdir(parents=True)
    for n in (*range(1000, 1004), *range(1010, 1013)):
        picture, name = moving_disc(n, 32, 64), f"0001_{n}.png"
        Image.fromarray(picture).save(root / "frames" / name)
        saliency = np.where(picture[..., 1] > 200, 200, 3).astype(np.uint8)
        Image.fromarray(saliency).save(root / "saliency_maps" / name)
        if n % 3 == 0:
            Image.fromarray(picture[::2]).save(root / "optical_flow" / name)
    (root / "optical_flow/0001_1011.png").write_bytes(b"")
    (root / "fixations/0001.csv").write_text("frame,longitude,latitude,observer\n1001,0,0,1\n")
    (root / "splits.json").write_text('{"train": ["0001"]}')


def assert_equal(ours, original):
    """The same items, but for those that had only unusable maps.

    Targets differ by half a step of float16, which has 11 bits, and 2^-24 near zero.
    """
    original = [item for item in original if item["valid"].any()]
    assert len(ours) == len(original) > 0
    for item, expected in zip(ours, original, strict=True):
        target, exact = item["target"], expected["target"]
        assert ((target - exact).abs() <= exact * 2**-11 + 2**-25).all()
        assert item.keys() == expected.keys()
        for name in item.keys() - {"target", "irregular"}:
            same = torch.equal if isinstance(item[name], torch.Tensor) else operator.eq
            assert same(item[name], expected[name]), name


@pytest.mark.parametrize("motion", ["none", "difference", "dis"])
@pytest.mark.parametrize("layout", [write_eccv_layout, write_sst_sal_layout])
def test_training_gets_the_same_items(tmp_path, layout, motion):
    layout(tmp_path / "data")
    flow = "none" if motion == "difference" else motion
    resize_dataset(tmp_path / "data", tmp_path / "small", **SIZE, motion=flow, workers=3)
    for length in (1, 3):
        original, ours = (
            SaliencyVideos(tmp_path / name, "train", spec(motion, length))
            for name in ("data", "small")
        )
        assert_equal(ours, original)
        assert not any(item["irregular"] for item in ours)
    if motion == "dis":  # nothing is left to estimate, not even at the start of a run
        assert all(file.flow for files in ours.clips.values() for file in files)


def test_flow_is_that_between_the_frames_that_a_model_sees(tmp_path):
    """At 24 frames a second, that is every third: the flow stored is since the one before."""
    write_eccv_clip(tmp_path / "data/a", range(1, 11))
    (tmp_path / "data/splits.json").write_text('{"train": ["a"]}')
    (tmp_path / "data/dataset.json").write_text('{"fps": 24}')
    resize_dataset(tmp_path / "data", tmp_path / "small", **SIZE, motion="dis")
    original, ours = (
        SaliencyVideos(tmp_path / name, "train", spec("dis")) for name in ("data", "small")
    )
    assert [item["numbers"].item() for item in ours] == [1, 4, 7, 10]
    assert_equal(ours, original)


def test_flow_estimated_later_is_the_same(tmp_path):
    write_eccv_layout(tmp_path / "data")
    resize_dataset(tmp_path / "data", tmp_path / "small", **SIZE)
    original, ours = (
        SaliencyVideos(tmp_path / name, "train", spec("dis")) for name in ("data", "small")
    )
    assert_equal(ours, original)


def test_what_is_unusable_is_named_and_left_out(tmp_path):
    write_eccv_layout(tmp_path / "data")
    (tmp_path / "data/a/0004.jpg").write_bytes(b"")
    problems = resize_dataset(tmp_path / "data", tmp_path / "small", **SIZE, motion="dis")
    assert sorted((kind, what.split(":")[0].rpartition("/")[2]) for kind, what in problems) == [
        ("clip without frames", "c"),
        ("unreadable flow", "0005_flow.png"),
        ("unreadable frame", "0004.jpg"),
        ("unusable ground truth", "0007_gt.npy"),
    ]
    small = tmp_path / "small"
    record = json.loads((small / "a/prepared.json").read_text())
    assert record["left_out"] == list(map(list, problems[1:]))
    assert resize_dataset(tmp_path / "data", small, **SIZE, motion="dis") == problems
    assert not list(small.glob("a/0004*")) and not (small / "a/0007_gt.npy").exists()
    data = SaliencyVideos(small, "train", spec("dis"))
    original = SaliencyVideos(tmp_path / "data", "train", spec("dis"))
    after = [next(i for i in d if i["numbers"].item() == 5) for d in (data, original)]
    assert torch.equal(*(item["motion"] for item in after))  # since the last readable frame


def test_written_files_are_what_they_should_be(tmp_path):
    """Pictures of the model's size stay as they are, and maps are divided by their maximum."""
    (tmp_path / "data/a").mkdir(parents=True)
    truth = np.random.default_rng(0).random((23, 47), np.float32)
    Image.fromarray(moving_disc(1, **SIZE)).save(tmp_path / "data/a/7.png")
    np.save(tmp_path / "data/a/7_gt.npy", truth)
    (tmp_path / "data/splits.json").write_text('{"train": ["a"]}')
    (tmp_path / "data/vinfo.pkl").write_bytes(pickle.dumps({"a": {"0007": [(0.5, 0.5)]}}))
    assert resize_dataset(tmp_path / "data", tmp_path / "small", **SIZE) == []
    assert sorted(path.name for path in (tmp_path / "small/a").iterdir()) == [
        "0007.png",
        "0007_gt.npy",
        "prepared.json",
    ]
    picture = np.array(Image.open(tmp_path / "small/a/0007.png"))
    np.testing.assert_array_equal(picture, moving_disc(1, **SIZE))
    saved = np.load(tmp_path / "small/a/0007_gt.npy")
    np.testing.assert_array_equal(saved, (truth / truth.max()).astype(np.float16))
    [item] = SaliencyVideos(tmp_path / "small", "train", spec())
    assert item["fixations"].sum() == 1


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_frames_of_another_origin_are_never_overwritten(tmp_path):
    write_eccv_layout(tmp_path / "data")
    write_eccv_layout(tmp_path / "other")
    (tmp_path / "other/splits.json").unlink()
    begin_clip(clip_record(tmp_path / "recorded/a", {"video": "a.mp4"}))
    (tmp_path / "recorded/a/0001.jpg").write_bytes(b"made by another command")
    before = contents(tmp_path)
    for output in ("other", "recorded"):
        with pytest.raises(InputError, match="a: contains other frames"):
            resize_dataset(tmp_path / "data", tmp_path / output, **SIZE)
    with pytest.raises(InputError, match="data: is the data set itself"):
        resize_dataset(tmp_path / "data", tmp_path / "data", **SIZE)
    with pytest.raises(InputError, match="nowhere: no such data set"):
        resize_dataset(tmp_path / "nowhere", tmp_path / "small", **SIZE)
    assert before.items() <= contents(tmp_path).items()


@pytest.mark.parametrize("name", ["splits.json", "dataset.json", "vinfo.pkl"])
def test_a_file_of_the_user_s_was_replaced(tmp_path, name):
    write_eccv_layout(tmp_path / "data")
    (tmp_path / "data/dataset.json").write_text('{"fps": 8}')
    (tmp_path / "data/vinfo.pkl").write_bytes(pickle.dumps({}))
    small = tmp_path / "small"
    small.mkdir()
    for _ in ("of others", "ours, then changed"):
        (small / name).write_bytes(b"{}")
        before = contents(small)
        with pytest.raises(InputError, match=f"{name}: not as this command wrote it; move it"):
            resize_dataset(tmp_path / "data", small, **SIZE)
        assert contents(small) == before and (small / name).read_bytes() == b"{}"
        (small / name).unlink()
        resize_dataset(tmp_path / "data", small, **SIZE)
        resize_dataset(tmp_path / "data", small, **SIZE)
    (tmp_path / "data/splits.json").write_text('{"train": ["a"]}')
    resize_dataset(tmp_path / "data", small, **SIZE)
    assert json.loads((small / "splits.json").read_text()) == {"train": ["a"]}


def test_complete_clips_are_kept_and_those_with_other_options_made_again(tmp_path):
    write_eccv_layout(tmp_path / "data")
    small = tmp_path / "small"
    resize_dataset(tmp_path / "data", small, **SIZE)
    before = contents(small / "a")
    resize_dataset(tmp_path / "data", small, **SIZE)
    assert contents(small / "a") == before
    resize_dataset(tmp_path / "data", small, height=24, width=48)
    sizes = {Image.open(path).size for path in small.glob("?/*[0-9].png")}
    assert sizes == {(48, 24)} and contents(small / "a").keys() == before.keys()


def test_a_full_disk_is_survived(tmp_path, monkeypatch):
    write_eccv_layout(tmp_path / "data")
    small, resized, calls = tmp_path / "small", reader.read_picture, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 12:  # in the second clip
            raise OSError(errno.ENOSPC, "No space left on device")
        return resized(*arguments)

    monkeypatch.setattr(reader, "read_picture", full)
    with pytest.raises(OSError, match="space"):
        resize_dataset(tmp_path / "data", small, **SIZE)
    monkeypatch.undo()
    assert not (small / "splits.json").exists()
    before = contents(small / "a")
    resize_dataset(tmp_path / "data", small, **SIZE)
    assert contents(small / "a") == before
    assert_equal(*(SaliencyVideos(root, "train", spec()) for root in (small, tmp_path / "data")))


def test_a_killed_command_is_continued(tmp_path):
    for name in ("a", "b"):
        write_eccv_clip(tmp_path / "data" / name, range(1, 100), height=128, width=256)
    (tmp_path / "data/splits.json").write_text('{"train": ["a", "b"]}')
    small = tmp_path / "small"
    words = ("--data_root", tmp_path / "data", "--output", small, "--height=23", "--width=47")
    process = start("-m", "prepare.resize", *words, "--workers=1")
    while not (small / "b/0003.png").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (small / "splits.json").exists()
    whole = contents(small / "a")
    code, printed, line = ended(resize.main, *words, "--workers=1")
    assert code == 0 and printed == f"{small}: 198 frames at 23×47\n", line
    assert contents(small / "a") == whole
    assert len(list((small / "b").iterdir())) == 2 * 99 + 1


def test_each_thread_has_its_own_motion_estimator():
    """OpenCV's optical flow keeps buffers, which threads would overwrite for each other."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(motion_estimator, "dis").result() is not motion_estimator("dis")
    assert motion_estimator("dis") is motion_estimator("dis")


def test_one_bad_file_in_prepare(data_root, tmp_path):
    (data_root / "a/0002.jpg").write_bytes(b"")
    words = (
        "--data_root",
        data_root,
        "--output",
        tmp_path / "small",
        "--height",
        16,
        "--width",
        32,
    )
    code, printed, line = ended(resize.main, *words)
    assert code == 1 and "5 frames at 16×32" in printed and "0002.jpg" in line
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in "abc":
        write_video(videos / f"{name}.mp4", 8, fps=8)
        gaze = "time,longitude,latitude,observer\n0.1,3,4,x\n0.5,3,4,y\n"
        (videos / f"{name}.csv").write_text(gaze)
    (videos / "b.mp4").write_bytes(b"no video")
    words = ("--videos", videos, "--gaze", videos, "--output", tmp_path / "d")
    code, printed, line = ended(recordings.main, *words, "--sigma", 10)
    assert code == 1 and "b.mp4" in line and "2 clips, 16 frames, 4 fixations" in printed
