"""The cache gives what the files give, whatever happens to either."""

import errno
import json
import multiprocessing
import operator
import os
import pickle
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cli import InputError
from datasets import SaliencyVideos, cache
from datasets.video_saliency import FrameFiles, collate
from models import Spec
from tests.clips import moving_disc, write_eccv_clip

SIZE = {"height": 23, "width": 47}  # odd, so that records need padding


def spec(motion="none", clip_length=1, **fields):
    return Spec(**{**SIZE, "motion": motion, "clip_length": clip_length, **fields})


def write_clips(root, **clips):
    for name, numbers in clips.items():
        write_eccv_clip(root / name, numbers)
    (root / "splits.json").write_text(json.dumps({"train": list(clips)}))
    return root


def write_eccv_layout(root):
    """Two clips with all that can be wrong: before, between and after readable frames."""
    write_clips(root, a=range(1, 10), b=[1, 2, 3, 4, 8, 9, 10])
    for name in ("a/0003.jpg", "a/0004.jpg", "b/0001.jpg", "b/0008.jpg", "b/0009.jpg"):
        (root / name).write_bytes(b"")
    Image.fromarray(moving_disc(6, 60, 110)).save(root / "a/0006.jpg")
    np.save(root / "a/0007_gt.npy", np.zeros((4, 8)))
    (root / "a/0008_gt.npy").unlink()
    Image.new("RGB", (64, 32), (250, 0, 30)).save(root / "a/0002_flow.png")
    (root / "a/0005_flow.png").write_text("no picture")


def write_sst_sal_layout(root):
    """Flat names; flow for some frames, of another size or unreadable for some of these."""
    for folder in ("frames", "saliency_maps", "optical_flow"):
        (root / folder).mkdir()
    for n in (*range(1000, 1004), *range(1010, 1013)):
        picture, name = moving_disc(n, 32, 64), f"0001_{n}.png"
        Image.fromarray(picture).save(root / "frames" / name)
        saliency = np.where(picture[..., 1] > 200, 200, 3).astype(np.uint8)
        Image.fromarray(saliency).save(root / "saliency_maps" / name)
        if n % 3 == 0:
            Image.fromarray(picture[::2]).save(root / "optical_flow" / name)
    (root / "frames/0001_1002.png").write_bytes(b"")
    (root / "optical_flow/0001_1011.png").write_bytes(b"")
    (root / "splits.json").write_text('{"train": ["0001"]}')


def assert_equal(ours, files):
    assert len(ours) == len(files) > 0
    for item, expected in zip(ours, files):
        target, exact = item["target"], expected["target"]
        # float16 has 11 bits, and steps of 2^-24 near zero; half a step is lost.
        assert ((target - exact).abs() <= exact * 2**-11 + 2**-25).all()
        assert item.keys() == expected.keys()
        for name in item.keys() - {"target"}:
            same = torch.equal if isinstance(item[name], torch.Tensor) else operator.eq
            assert same(item[name], expected[name]), name


def contents(folder):
    """Names and inodes of the files under a folder, without locks."""
    return {p: p.stat().st_ino for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


@pytest.mark.parametrize("motion", ["none", "difference", "dis"])
@pytest.mark.parametrize("layout", [write_eccv_layout, write_sst_sal_layout])
def test_items_equal_those_of_the_files(tmp_path, layout, motion):
    root = tmp_path / "data"
    root.mkdir()
    layout(root)
    found = set()
    for length in (1, 3):
        files = SaliencyVideos(root, "train", spec(motion, length))
        cached = SaliencyVideos(root, "train", spec(motion, length), tmp_path / "cache")
        assert cached.irregular == files.irregular
        assert_equal([cached[i] for i in range(len(cached))], list(files))
        assert len(cached.targets(1)) == len(files.targets(1))
        found |= {kind for item in files for kind, _ in item["irregular"]}
    expected = {"unreadable frame"} | ({"unreadable flow"} if motion == "dis" else set())
    if layout is write_eccv_layout:
        expected |= {"unusable ground truth", "frame of another size"}
    assert found == expected


def test_records_are_the_pictures(tmp_path):
    """PNG frames of the model's size, read back as NumPy's own reader sees them."""
    root = write_clips(tmp_path / "data", a=[])
    truth = np.random.default_rng(0).random((23, 47), np.float32)
    for n in (1, 2):
        Image.fromarray(moving_disc(n, **SIZE)).save(root / f"a/{n:04d}.png")
        np.save(root / f"a/{n:04d}_gt.npy", truth)
    data = SaliencyVideos(root, "train", spec("difference"), tmp_path / "cache")
    [path] = (tmp_path / "cache").rglob("*.npy")
    records = np.load(path)
    expected = np.stack([moving_disc(n, **SIZE) for n in (1, 2)])
    np.testing.assert_array_equal(records["rgb"], expected.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(records["target"][1], (truth / truth.max()).astype(np.float16))
    np.testing.assert_array_equal(records["size"], [(23, 47)] * 2)
    grey = expected / 255 @ (0.299, 0.587, 0.114)
    np.testing.assert_allclose(data[1]["motion"][0, 0], abs(grey[1] - grey[0]), atol=1e-6)
    index = json.loads(path.with_suffix(".json").read_text())
    facts = {"clip": "a", "frames": 2, "height": 23, "width": 47, "flow": None}
    assert facts.items() <= index.items()
    assert index["fingerprint"] == path.stem


def test_a_whole_cache_is_only_read(tmp_path, monkeypatch):
    root, folder = write_clips(tmp_path / "data", a=range(1, 4)), tmp_path / "cache"
    expected = list(SaliencyVideos(root, "train", spec("dis"), folder))
    before = contents(folder)
    paths = list(folder.rglob("*"))
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setattr(FrameFiles, "picture", None)
    for name in ("_write", "_build"):
        monkeypatch.setattr(cache.FrameCache, name, None)
    assert_equal(list(SaliencyVideos(root, "train", spec("dis"), folder)), expected)
    assert contents(folder) == before
    for path in paths:
        path.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="cache"):
        SaliencyVideos(write_clips(tmp_path / "data", a=[1]), "train", spec(), tmp_path / "cache")


def touch(clip):
    path = clip / "0002.jpg"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def other_content(clip):
    Image.fromarray(moving_disc(9, 60, 110)).save(clip / "0002.jpg")


def other_truth(clip):
    np.save(clip / "0002_gt.npy", np.eye(5))


def no_truth(clip):
    (clip / "0002_gt.npy").unlink()


def one_more(clip):
    shutil.copy(clip / "0001.jpg", clip / "0003.jpg")


def other_flow(clip):
    Image.new("RGB", (64, 32), (250, 0, 30)).save(clip / "0002_flow.png")


@pytest.mark.parametrize(
    "change", [touch, other_content, other_truth, no_truth, one_more, other_flow]
)
def test_only_a_changed_clip_is_built_again(tmp_path, change):
    root, folder = write_clips(tmp_path / "data", a=[1, 2], b=[1, 2]), tmp_path / "cache"
    SaliencyVideos(root, "train", spec("dis"), folder)
    before = contents(folder)
    change(root / "a")
    cached = SaliencyVideos(root, "train", spec("dis"), folder)
    assert_equal(list(cached), list(SaliencyVideos(root, "train", spec("dis"))))
    after = contents(folder)
    assert len(after) == len(before)  # what was stale is gone
    assert {p.parent.name for p in before.keys() & after.keys()} == {"b"}
    assert {p.parent.name for p in before.keys() - after.keys()} == {"a"}


def test_other_sizes_motions_and_data_sets_lie_side_by_side(tmp_path):
    roots = [write_clips(tmp_path / name / "data", a=[1, 2]) for name in ("x", "y")]
    folder = tmp_path / "cache"
    for kind, caches in ((spec(), 1), (spec("difference"), 1), (spec("dis"), 2)):
        SaliencyVideos(roots[0], "train", kind, folder)
        assert len(list(folder.iterdir())) == caches
    SaliencyVideos(roots[0], "train", spec(height=24, width=48), folder)
    SaliencyVideos(roots[1], "train", spec(), folder)
    before = contents(folder)
    assert len(before) == 2 * 4
    for kind in (spec(), spec("dis"), spec(height=24, width=48)):
        SaliencyVideos(roots[0], "train", kind, folder)
    assert contents(folder) == before


@pytest.mark.parametrize("damage", ["npy cut", "npy empty", "json cut", "json gone", "npy gone"])
def test_a_damaged_cache_is_built_again(tmp_path, damage):
    root, folder = write_clips(tmp_path / "data", a=[1, 2]), tmp_path / "cache"
    expected = list(SaliencyVideos(root, "train", spec(), folder))
    kind, how = damage.split()
    [path] = folder.rglob(f"*.{kind}")
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if how == "cut" else b"")
    cache.open_records.cache_clear()
    assert_equal(list(SaliencyVideos(root, "train", spec(), folder)), expected)


def test_what_is_removed_in_use_is_no_unreadable_frame(tmp_path):
    root, folder = write_clips(tmp_path / "data", a=[1, 2]), tmp_path / "cache"
    data = SaliencyVideos(root, "train", spec(), folder)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="cache"):
        data[0]


def in_process(root, folder, at_start=None):
    """A forked process that builds a cache."""

    def build():
        torch.set_num_threads(1)
        if at_start:
            at_start.wait()
        SaliencyVideos(root, "train", spec("dis"), folder)

    process = multiprocessing.get_context("fork").Process(target=build)
    with cache.one_opencv_thread():
        process.start()
    return process


def test_two_processes_divide_the_clips(tmp_path, monkeypatch):
    root = write_clips(tmp_path / "data", **{name: range(1, 6) for name in "abcdef"})
    fork = multiprocessing.get_context("fork")
    reads, barrier = fork.Value("i", 0), fork.Barrier(2)
    picture, pids = FrameFiles.picture, tmp_path / "pids"
    pids.mkdir()

    def counted(self, file):
        with reads:
            reads.value += 1
        (pids / str(os.getpid())).touch()
        time.sleep(0.01)
        return picture(self, file)

    with monkeypatch.context() as patched:
        patched.setattr(FrameFiles, "picture", counted)
        both = [in_process(root, tmp_path / "cache", barrier) for _ in range(2)]
        for process in both:
            process.join()
            assert process.exitcode == 0
    assert reads.value == 6 * 5  # each frame once
    assert len(list(pids.iterdir())) == 2
    monkeypatch.setattr(cache.FrameCache, "_build", None)
    cached = SaliencyVideos(root, "train", spec("dis"), tmp_path / "cache")
    assert_equal(list(cached), list(SaliencyVideos(root, "train", spec("dis"))))


def test_a_killed_builder_is_followed_by_another(tmp_path, monkeypatch):
    root, folder = write_clips(tmp_path / "data", a=[1, 2], b=[1, 2, 3]), tmp_path / "cache"
    stuck, picture = multiprocessing.get_context("fork").Event(), FrameFiles.picture

    def slow(self, file):
        if file.picture.parent.name == "b" and file.number == 3:
            stuck.set()
            time.sleep(60)
        return picture(self, file)

    with monkeypatch.context() as patched:
        patched.setattr(FrameFiles, "picture", slow)
        process = in_process(root, folder)
    assert stuck.wait(20)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    left = contents(folder)
    assert [p for p in left if "partial" in p.name]
    cached = SaliencyVideos(root, "train", spec("dis"), folder)
    assert_equal(list(cached), list(SaliencyVideos(root, "train", spec("dis"))))
    after = contents(folder)
    assert len(after) == 4  # two files a clip
    assert {p: i for p, i in left.items() if p.parent.name == "a"}.items() <= after.items()


def test_a_disk_without_room_is_told_before(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 9_000))
    root = write_clips(tmp_path / "data", a=range(1, 3))
    # 2 records of 2·4 + 2·23·47 + 3·23·47 bytes, padded to 5416
    with pytest.raises(InputError, match=r"2 frames take 0\.00 GB.*free some space"):
        SaliencyVideos(root, "train", spec(), tmp_path / "cache")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 10_832))
    SaliencyVideos(root, "train", spec(), tmp_path / "cache")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_fills_leaves_no_broken_file(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(cache, "FRAMES_A_WORKER", 1 if workers else 100)
    monkeypatch.setattr(cache, "cores", lambda: 2)
    root, folder = write_clips(tmp_path / "data", a=[1], b=[1, 2]), tmp_path / "cache"
    records = cache.FrameCache._records

    def full(self, files, errors):
        for position, record in enumerate(records(self, files, errors)):
            if position == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            yield record

    with monkeypatch.context() as patched:
        patched.setattr(cache.FrameCache, "_records", full)
        with pytest.raises(OSError, match="space") as caught:
            SaliencyVideos(root, "train", spec(), folder)
    assert caught.value.errno == errno.ENOSPC
    assert "/b/" in caught.value.filename
    assert {(p.parent.name, p.suffix) for p in contents(folder)} == {("a", ".npy"), ("a", ".json")}
    assert_equal(
        list(SaliencyVideos(root, "train", spec(), folder)),
        list(SaliencyVideos(root, "train", spec())),
    )


def test_worker_processes_build_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "FRAMES_A_WORKER", 1)
    monkeypatch.setattr(cache, "cores", lambda: 2)
    root = write_clips(tmp_path / "data", a=range(1, 4), b=range(1, 5), c=[1])
    torch.manual_seed(0)
    state = torch.get_rng_state()
    cached = SaliencyVideos(root, "train", spec("dis"), tmp_path / "cache")
    assert torch.equal(torch.get_rng_state(), state)  # a first run draws the same as a second
    files = SaliencyVideos(root, "train", spec("dis"))
    items = [batch["frames"][0] for batch in DataLoader(cached, num_workers=2, collate_fn=collate)]
    assert all(torch.equal(a, b["frames"]) for a, b in zip(items, files, strict=True))


def test_data_sets_can_be_sent_to_a_process(tmp_path):
    root = write_clips(tmp_path / "data", a=[1, 2])
    for folder in (None, tmp_path / "cache"):
        data = SaliencyVideos(root, "train", spec("dis"), folder)
        expected = list(data)  # flow is estimated by what can't be sent
        assert_equal(list(pickle.loads(pickle.dumps(data))), expected)


def test_the_last_readable_frame_of_the_run_stands_in(tmp_path):
    """It was black where the sample began with what is unreadable, and motion from black."""
    root = write_clips(tmp_path / "data", a=range(1, 6))
    for n in (3, 4):
        (root / f"a/000{n}.jpg").write_bytes(b"")
    data = SaliencyVideos(root, "train", spec("difference"))
    frames = [item["frames"] for item in data]
    assert torch.equal(frames[2], frames[1])
    assert torch.equal(frames[3], frames[1])
    assert [item["valid"].item() for item in data] == [True, True, False, False, True]
    assert data[3]["motion"].max() == 0
    moved = (frames[4] - frames[1]).abs().amax(2, keepdim=True)  # of each pixel and column
    assert data[4]["motion"].max() <= moved.max()
    assert data[4]["motion"].mean() < 0.5 * frames[4].mean()
