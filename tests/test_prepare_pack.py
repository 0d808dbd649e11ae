"""prepare.pack: training and scores are those of the original, in every bit."""

import json
import operator
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import InputError
from datasets import SaliencyVideos
from datasets.augment import Augmented, possible
from datasets.rates import ClipRates
from models import Spec
from prepare import pack, recordings
from prepare.pack import pack_dataset
from prepare.records import begin_clip, clip_record
from tests.clips import moving_disc, write_data_set, write_eccv_clip, write_video
from tests.commands import ended, evaluate, start, train_one_epoch
from tests.runs import last, log, same
from video.motion import motion_estimator
from video.pictures import unit

SIZE = {"height": 23, "width": 47}


def packed(root, output, motion="none", size=(23, 47), fps=8.0, workers=1):
    return pack_dataset(root, output, Spec(*size, fps, motion=motion), ClipRates(root), workers)


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
    """The same items, in every bit."""
    assert len(ours) == len(original) > 0
    for item, expected in zip(ours, original, strict=True):
        assert item.keys() == expected.keys()
        for name in item.keys() - {"irregular"}:
            same = torch.equal if isinstance(item[name], torch.Tensor) else operator.eq
            assert same(item[name], expected[name]), name


@pytest.mark.parametrize("motion", ["none", "difference", "dis"])
@pytest.mark.parametrize("layout", [write_eccv_layout, write_sst_sal_layout])
def test_training_gets_the_same_items(tmp_path, layout, motion):
    layout(tmp_path / "data")
    flow = "none" if motion == "difference" else motion
    packed(tmp_path / "data", tmp_path / "small", motion=flow, workers=3)
    for length in (1, 3):
        original, ours = (
            SaliencyVideos(tmp_path / name, "train", spec(motion, length))
            for name in ("data", "small")
        )
        assert_equal(ours, original)
        assert {kind for item in ours for kind, _ in item["irregular"]} <= {"unusable ground truth"}
    if motion == "dis":  # nothing is left to estimate, not even at the start of a run
        assert all(file.flow for files in ours.clips.values() for file in files)


@pytest.mark.parametrize("motion", ["none", "difference", "colour_difference", "dis"])
def test_pictures_of_8_bits_are_the_same_floats(tmp_path, motion):
    """A GPU gets a quarter of the bytes, and makes the floats itself."""
    write_eccv_layout(tmp_path / "data")
    (tmp_path / "data/b/0001.jpg").write_bytes(b"")
    floats, bits = (
        SaliencyVideos(tmp_path / "data", "train", spec(motion, 3), eight_bits=eight_bits)
        for eight_bits in (False, True)
    )
    for item in (items := list(bits)):
        assert item["frames"].dtype == torch.uint8
        assert (item["motion"].dtype == torch.uint8) == ("d" in motion and motion != "difference")
    assert_equal([i | {n: unit(i[n]) for n in ("frames", "motion")} for i in items], floats)
    for names in (["yaw", "mirror"], ["tilt", "light"]):
        names = possible(names, motion)
        pairs = [Augmented(data, names, 1)[1, 0] for data in (floats, bits)]
        for name in ("frames", "motion"):
            assert torch.equal(*(unit(item[name]) for item in pairs))


def test_flow_is_that_between_the_frames_that_a_model_sees(tmp_path):
    """At 24 frames a second, that is every third: the flow stored is since the one before."""
    write_data_set(tmp_path / "data", "a", range(1, 11), train=["a"])
    (tmp_path / "data/dataset.json").write_text('{"fps": 24}')
    packed(tmp_path / "data", tmp_path / "small", motion="dis")
    roots = tmp_path / "data", tmp_path / "small"
    original, ours = (SaliencyVideos(root, "train", spec("dis")) for root in roots)
    assert [item["numbers"].item() for item in ours] == [1, 4, 7, 10]
    assert_equal(ours, original)


def test_what_is_unusable_is_named_and_left_out(tmp_path):
    write_eccv_layout(tmp_path / "data")
    (tmp_path / "data/a/0004.jpg").write_bytes(b"")
    problems = packed(tmp_path / "data", tmp_path / "small", motion="dis")
    assert sorted((kind, what.split(":")[0].rpartition("/")[2]) for kind, what in problems) == [
        ("clip without frames", "c"),
        ("unreadable flow", "0005_flow.png"),
        ("unreadable frame", "0004.jpg"),
        ("unusable ground truth", "0007_gt.npy"),
    ]
    small = tmp_path / "small"
    record = json.loads((small / "a/prepared.json").read_text())
    assert record["left_out"] == list(map(list, problems[1:]))
    assert packed(tmp_path / "data", small, motion="dis") == problems
    data = SaliencyVideos(small, "train", spec("dis"))
    assert_equal(data, SaliencyVideos(tmp_path / "data", "train", spec("dis")))
    assert sum(not item["valid"] for item in data) == 2  # no picture, an unusable map
    [first, *_] = sum((item["irregular"] for item in data), [])
    assert "its original was unreadable" in first[1]


def test_written_files_are_what_they_should_be(tmp_path):
    """Pictures of the model's size stay as they are, and so do maps."""
    (tmp_path / "data/a").mkdir(parents=True)
    truth = np.random.default_rng(0).random((12, 24), np.float32)
    Image.fromarray(moving_disc(1, **SIZE)).save(tmp_path / "data/a/7.png")
    np.save(tmp_path / "data/a/7_gt.npy", truth)
    (tmp_path / "data/splits.json").write_text('{"train": ["a"]}')
    (tmp_path / "data/vinfo.pkl").write_bytes(pickle.dumps({"a": {"0007": [(0.5, 0.5)]}}))
    assert packed(tmp_path / "data", tmp_path / "small") == []
    files = sorted(path.name for path in (tmp_path / "small/a").iterdir())
    assert files == ["packed.npy", "prepared.json"]
    [record] = np.load(tmp_path / "small/a/packed.npy")
    assert record["number"] == 7 and record["has"].tolist() == [True, True, False]
    np.testing.assert_array_equal(record["picture"].transpose(1, 2, 0), moving_disc(1, **SIZE))
    np.testing.assert_array_equal(record["map"], truth)
    assert json.loads((tmp_path / "small/packed.json").read_text()) == {
        **SIZE, "fps": 8.0, "smaller_maps": False,
    }  # fmt: skip
    [item] = SaliencyVideos(tmp_path / "small", "train", spec())
    assert item["fixations"].sum() == 1


def test_a_model_of_another_size_or_rate_is_refused(tmp_path):
    write_data_set(tmp_path / "data", "a", range(1, 11), train=["a"])
    (tmp_path / "data/dataset.json").write_text('{"fps": 24}')
    packed(tmp_path / "data", tmp_path / "small", "dis")
    made = r"small: packed for 23×47 pixels, 8 frames a second, not"
    for other, wanted in (
        (Spec(24, 48), "24×48, 8; pack the original"),
        (Spec(**SIZE, fps=24), "23×47, 24"),
    ):
        with pytest.raises(InputError, match=f"{made} {wanted}"):
            SaliencyVideos(tmp_path / "small", "train", other)
    with pytest.raises(InputError, match="not 23×47, 8"):  # its flow is that of every third frame
        SaliencyVideos(tmp_path / "small", "train", spec("dis"), fps=Fraction(8))
    with pytest.raises(InputError, match="small: is packed already"):
        packed(tmp_path / "small", tmp_path / "smaller")
    assert len(SaliencyVideos(tmp_path / "small", "train", None)) == 10


@pytest.mark.parametrize("maps", [(20, 40), (48, 96)])  # smaller and larger than the frames
def test_training_and_scores_are_those_of_the_original(tmp_path, maps):
    header = "frame,longitude,latitude,observer\n"
    for name in "ab":
        write_eccv_clip(tmp_path / "data" / name, range(1, 7), 48, 96)
        rows = "".join(f"{n},{9 * n},{-n},1\n{n},{5 * n},{n},2\n" for n in range(1, 7))
        (tmp_path / f"data/{name}/fixations.csv").write_text(header + rows)
        for seed, path in enumerate((tmp_path / "data" / name).glob("*_gt.npy")):
            np.save(path, np.random.default_rng(seed).random(maps))
    (tmp_path / "data/splits.json").write_text('{"train": ["a"], "val": ["b"], "test": ["b"]}')
    packed(tmp_path / "data", tmp_path / "small/data", size=(40, 80))
    roots, runs = (tmp_path / "data", tmp_path / "small/data"), (tmp_path / "1", tmp_path / "2")
    checkpoint, scores = runs[0] / "cube_unet_best.pth", []
    for root, run in zip(roots, runs, strict=True):
        assert train_one_epoch(root, run)[0] == 0
        assert evaluate(root, run, "--ckpt_path", checkpoint, "--height", 40)[0] == 0
        scores.append(json.loads((run / "metrics.json").read_text()))
    assert same(*(last(run)["weights"] for run in runs)) and log(runs[0]) == log(runs[1])
    assert scores[0]["clips"] == scores[1]["clips"] and scores[0]["predictors"]["inter-observer"]
    code, _, line = evaluate(roots[1], tmp_path / "3", "--ckpt_path", checkpoint)
    refused = "its maps were packed at another size; give --height 40" in line
    assert (code == 2) == refused == (maps[0] > 40)


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
            packed(tmp_path / "data", tmp_path / output)
    with pytest.raises(InputError, match="data: is the data set itself"):
        packed(tmp_path / "data", tmp_path / "data")
    with pytest.raises(InputError, match="nowhere: no such data set"):
        packed(tmp_path / "nowhere", tmp_path / "small")
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
        with pytest.raises(InputError, match=f"{name}: not written by this command; move it"):
            packed(tmp_path / "data", small)
        assert contents(small) == before and (small / name).read_bytes() == b"{}"
        (small / name).unlink()
        packed(tmp_path / "data", small)
        packed(tmp_path / "data", small)
    (tmp_path / "data/splits.json").write_text('{"train": ["a"]}')
    packed(tmp_path / "data", small)
    assert json.loads((small / "splits.json").read_text()) == {"train": ["a"]}


def test_complete_clips_are_kept_and_those_with_other_options_made_again(tmp_path):
    write_eccv_layout(tmp_path / "data")
    small = tmp_path / "small"
    packed(tmp_path / "data", small)
    before = contents(small / "a")
    packed(tmp_path / "data", small)
    assert contents(small / "a") == before
    packed(tmp_path / "data", small, size=(24, 48))
    sizes = {np.load(path)["picture"].shape for path in small.glob("?/packed.npy")}
    assert sizes == {(9, 3, 24, 48), (7, 3, 24, 48)}
    assert contents(small / "a").keys() == before.keys()


@pytest.mark.slow
def test_a_killed_command_is_continued(tmp_path):
    write_data_set(tmp_path / "data", "ab", range(1, 100), 128, 256, train=["a", "b"])
    small = tmp_path / "small"
    words = ("--data_root", tmp_path / "data", "--output", small, "--height=23", "--width=47")
    process = start("-m", "prepare.pack", *words, "--workers=1")
    while not (small / "b/prepared.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (small / "splits.json").exists()
    whole = contents(small / "a")
    code, printed, line = ended(pack.main, *words, "--workers=1")
    assert (
        code == 0
        and printed == f"{small}: 198 frames at 23×47, for models that see 8 frames a second\n"
    ), line
    assert contents(small / "a") == whole
    assert len(np.load(small / "b/packed.npy")) == 99 and len(list((small / "b").iterdir())) == 2


def test_each_thread_has_its_own_motion_estimator():
    """OpenCV's optical flow keeps buffers, which threads would overwrite for each other."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(motion_estimator, "dis").result() is not motion_estimator("dis")
    assert motion_estimator("dis") is motion_estimator("dis")


def test_one_bad_file_in_prepare(data_root, tmp_path):
    (data_root / "a/0002.jpg").write_bytes(b"")
    words = "--data_root", data_root, "--output", tmp_path / "small", "--height", 16, "--width", 32
    code, printed, line = ended(pack.main, *words)
    assert code == 1 and "6 frames at 16×32" in printed and "0002.jpg" in line
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
