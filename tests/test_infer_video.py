"""infer_video.py: maps of clips, folders and pictures, their records, interrupted runs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import av
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import infer_video
import models
from common.devices import choose_precision
from maps import folder as map_folder
from maps.folder import NEW_MAPS
from maps.interpolate import interpolate
from maps.saved import read_peak
from tests.clips import moving_disc, read_pixels, write_eccv_clip, write_video
from tests.commands import (
    ROOT,
    ended,
    infer,
    infer_as_user,
    map_files,
    paint,
    read_record,
    refusal,
    start,
    success,
    written,
)
from video import Frame
from video.reader import read_frames


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """Frames are computed side by side, here and in processes, however the tests are started."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    yield
    torch.set_num_threads(before)


def test_maps_between_samples_are_interpolated(clip, checkpoint, tmp_path):
    success(infer(clip, checkpoint, tmp_path / "out", "--save_npy"))
    first, second, third = (np.load(tmp_path / "out" / f"sal_{n:04d}.npy") for n in (1, 3, 5))
    assert np.abs(first - third).max() > 1e-4
    np.testing.assert_allclose(second, (first + third) / 2, atol=1e-6)
    last = [np.load(tmp_path / "out" / f"sal_{n:04d}.npy") for n in (21, 22, 23)]
    assert np.array_equal(last[0], last[1])
    assert np.array_equal(last[0], last[2])


@pytest.mark.parametrize("lost", [range(20, 24), range(8, 24), [1], [15]])
def test_an_interrupted_run_continues_to_the_same_maps(clip, checkpoint, tmp_path, lost):
    success(infer(clip, checkpoint, tmp_path / "out", "--save_npy"))
    before = map_files(tmp_path / "out")
    for n in lost:
        (tmp_path / "out" / f"sal_{n:04d}.png").unlink()
    (tmp_path / "out" / ".sal_0009.123.partial.png").write_bytes(b"half")
    success(infer(clip, checkpoint, tmp_path / "out", "--save_npy"))
    assert map_files(tmp_path / "out") == before
    assert not list((tmp_path / "out").glob(".*"))


def test_bad_input_is_named(clip, checkpoint, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "none.pth").write_text("no checkpoint")
    torch.save({"model": "resnet"}, tmp_path / "other.pth")
    out = tmp_path / "out"
    for video in ("missing.mp4", "empty.mp4", "text.mp4", "nothing"):
        assert video in refusal(infer(tmp_path / video, checkpoint, out))
    for weights in ("missing.pth", "none.pth", "other.pth"):
        assert weights in refusal(infer(clip, tmp_path / weights, out))
    assert "--device" in refusal(infer(clip, checkpoint, out, "--device", "cuda:9"))
    (tmp_path / "file").touch()
    assert "file" in refusal(infer(clip, checkpoint, tmp_path / "file"))
    assert not map_files(out) if out.exists() else True


def test_the_maps_of_what_a_truncated_video_holds_are_kept(checkpoint, tmp_path):
    whole = write_video(tmp_path / "whole.mkv", frames=400, fps=8).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refusal(infer(tmp_path / "cut.mkv", checkpoint, tmp_path / "out"))
    assert len(map_files(tmp_path / "out")) > 50
    facts = json.loads((tmp_path / "out" / "saliency.json").read_text())
    assert facts["complete"] is False


def test_a_folder_of_another_run_is_refused(clip, checkpoint, tmp_path):
    out = tmp_path / "out"
    success(infer(clip, checkpoint, out))
    before = map_files(out)
    other = write_video(tmp_path / "other.mp4", frames=3)
    assert "--overwrite" in refusal(infer(other, checkpoint, out))
    assert map_files(out) == before
    success(infer(other, checkpoint, out, "--overwrite"))
    assert len(map_files(out)) == 3


def test_a_map_that_is_not_finite_is_refused(clip, tmp_path):
    model = models.CubeUNet(height=40, width=80, base_channels=4)
    model.head.weight.data[:] = float("nan")
    models.save(tmp_path / "nan.pth", model)
    assert "not finite" in refusal(infer(clip, tmp_path / "nan.pth", tmp_path / "out"))


def test_motion_may_be_replaced_by_one_of_as_many_channels(clip, checkpoint, tmp_path):
    success(infer(clip, checkpoint, tmp_path / "out", "--motion", "difference"))
    assert len(map_files(tmp_path / "out")) == 23
    assert "--motion dis" in refusal(infer(clip, checkpoint, tmp_path / "dis", "--motion", "dis"))


def test_infer_writes_a_map_for_every_frame(clip, checkpoint, tmp_path):
    infer_as_user(clip, checkpoint, tmp_path / "out", "--save_npy")
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


@pytest.mark.slow
def test_a_killed_infer_leaves_only_whole_maps(checkpoint, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", frames=400, fps=8)
    words = ("--video_path", clip, "--ckpt_path", checkpoint, "--output_dir", tmp_path / "out")
    process = start("infer_video.py", *words)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("sal_*.png"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    written = list((tmp_path / "out").glob("sal_*.png"))
    assert len(written) >= 20
    for path in written:
        assert np.asarray(Image.open(path)).shape == (40, 80)
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0
    assert len(map_files(tmp_path / "out")) == 400


@pytest.mark.parametrize("seed", [0, 1])
def test_maps_are_those_of_the_network_frame_by_frame(clip, checkpoint, tmp_path, seed):
    """Twice, since threads that race would not always fail."""
    words = ["--video_path", clip, "--ckpt_path", checkpoint, "--output_dir", tmp_path / "out"]
    assert ended(infer_video.main, *words, "--save_npy", "--precision", "fp32")[0] == 0
    model = models.deploy(models.load(checkpoint), torch.float32)
    for frame, saliency in models.predict(model, list(read_frames(clip, model.spec))):
        written = np.load(tmp_path / f"out/sal_{frame.number:04d}.npy")
        assert np.array_equal(written, saliency[0].numpy())


def test_maps_before_a_full_disk_are_kept(clip, checkpoint, tmp_path, monkeypatch):
    write_map = map_folder.write_map

    def full(path, *rest):
        if path.name == "sal_0012.png":
            raise OSError(28, "No space left on device", str(path))
        return write_map(path, *rest)

    words = ["--video_path", clip, "--ckpt_path", checkpoint, "--output_dir", tmp_path / "out"]
    before = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(map_folder, "write_map", full)
        code, _, line = ended(infer_video.main, *words)
    assert code == 1 and "sal_0012.png: No space left on device" in line
    assert threading.active_count() == before
    assert {f"sal_{n:04d}.png" for n in range(1, 12)} <= map_files(tmp_path / "out").keys()
    assert ended(infer_video.main, *words)[0] == 0
    assert len(list((tmp_path / "out").glob("sal_*.png"))) == 23


@pytest.mark.slow
def test_ctrl_c_ends_all_threads_and_the_next_run_completes_the_same_maps(checkpoint, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", frames=300, fps=30)
    words = [sys.executable, "infer_video.py", "--video_path", clip, "--ckpt_path", checkpoint]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*words, "--output_dir", tmp_path / "part"], **quiet)
    deadline = time.monotonic() + 60
    while not (tmp_path / "part/sal_0020.png").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    line = process.communicate(timeout=20)[1].strip().splitlines()[-1]
    assert process.returncode == 130 and "interrupted" in line
    assert not list((tmp_path / "part").glob(".*"))
    assert not json.loads((tmp_path / "part/saliency.json").read_text())["complete"]
    found = {}
    for name in ("part", "whole"):
        assert ended(infer_video.main, *words[2:], "--output_dir", tmp_path / name)[0] == 0
        found[name] = {p.name: p.read_bytes() for p in (tmp_path / name).glob("sal*")}
    assert found["part"] == found["whole"]


def test_maps_between_samples_are_interpolated_in_time():
    zero, one = torch.zeros(1, 2, 4), torch.ones(1, 2, 4)
    first = Frame(1, 0.0, zero, zero, (0.0, 0.1, 0.9))
    last = Frame(4, 1.0, zero, zero, (1.0, 1.2))
    maps = dict(interpolate([(first, zero), (last, one)]))
    assert {n: round(float(m.mean()), 6) for n, m in maps.items()} == {
        1: 0, 2: 0.1, 3: 0.9, 4: 1, 5: 1,
    }  # fmt: skip


def test_the_folder_that_one_is_in(checkpoint, tmp_path, monkeypatch):
    """`.` has no name."""
    folder = write_eccv_clip(tmp_path / "217")
    monkeypatch.chdir(folder)
    assert infer(".", checkpoint, tmp_path / "out")[0] == 0
    assert json.loads((tmp_path / "out/saliency.json").read_text())["video"] == "217"


def test_one_bad_picture_among_many(checkpoint, tmp_path):
    """The run stopped there, at every start."""
    folder = write_eccv_clip(tmp_path / "217", range(1, 31))
    (folder / "0011.jpg").write_bytes(b"\xff\xd8\xff damaged")
    (folder / "0012.jpg").write_bytes(b"")
    for _ in range(2):
        code, _, line = infer(folder, checkpoint, tmp_path / "out")
        assert code == 1 and "2 frames can't be read, the first: " in line and "0011.jpg" in line
    names = {p.name for p in (tmp_path / "out").glob("sal_*.png")}
    assert names == {f"sal_{n:04d}.png" for n in range(1, 31) if n not in (11, 12)}
    facts = json.loads((tmp_path / "out/saliency.json").read_text())
    assert facts["complete"] and facts["unreadable"] == [11, 12]
    code, _, line = paint(folder, tmp_path / "out", tmp_path / "o.mp4")
    assert code == 1 and "2 frames can't be read" in line
    with av.open(str(tmp_path / "o.mp4")) as file:
        times = [round(8 * frame.time) for frame in file.decode(video=0)]
    assert times == [n for n in range(30) if n not in (10, 11)]
    Image.fromarray(moving_disc(11, 32, 64)).save(folder / "0011.jpg")
    Image.fromarray(moving_disc(12, 32, 64)).save(folder / "0012.jpg")
    assert infer(folder, checkpoint, tmp_path / "out")[0] == 0
    assert len(list((tmp_path / "out").glob("sal_*.png"))) == 30


def test_one_bad_clip_among_many(checkpoint, tmp_path):
    clips = [write_video(tmp_path / f"{name}.mp4", 3) for name in "abc"]
    clips[1].write_bytes(b"no video")
    words = ("--video_path", *clips, "--ckpt_path", checkpoint, "--output_dir", tmp_path / "out")
    code, printed, line = ended(infer_video.main, *words)
    assert code == 1 and "1 of 3 failed, the others are done" in line and "b.mp4" in line
    assert printed.count("3 maps in") == 2


def test_one_map_is_not_1_maps(still, checkpoint, tmp_path):
    assert success(infer(still, checkpoint, tmp_path / "maps")).startswith("1 map in ")


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_the_input_inside_the_output(checkpoint, tmp_path, more):
    """`--overwrite` with input = output deleted the user's pictures."""
    folder = write_eccv_clip(tmp_path / "sal")
    Image.open(folder / "0001.jpg").save(folder / "sal_0001.png")
    before = written(tmp_path)
    for clip, output in ((folder, folder), (folder / "0001.jpg", folder), (folder, tmp_path)):
        refusal(infer(clip, checkpoint, output, *more), "--output_dir")
    assert written(tmp_path) == before


def test_overwrite_keeps_the_old_maps_until_all_new_ones_are_there(checkpoint, tmp_path):
    whole = write_video(tmp_path / "whole.mkv", frames=200, fps=8)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    out = tmp_path / "out"
    assert infer(write_video(tmp_path / "a.mp4", 3), checkpoint, out)[0] == 0
    before = written(out)
    refusal(infer(cut, checkpoint, out, "--overwrite"), "truncated")
    assert written(out).items() >= before.items()
    assert infer(whole, checkpoint, out, "--overwrite")[0] == 0
    assert len(list(out.glob("sal_*.png"))) == 200 and not (out / NEW_MAPS).exists()


def test_an_overwrite_that_is_killed_while_it_replaces(clip, checkpoint, tmp_path, monkeypatch):
    out, calls, replace = tmp_path / "out", [], os.replace
    assert infer(write_video(tmp_path / "a.mp4", 40), checkpoint, out)[0] == 0
    assert infer(clip, checkpoint, tmp_path / "right")[0] == 0

    def killed(source, target):
        calls.append(source)
        if NEW_MAPS in str(source) and ".partial" not in str(source) and len(calls) > 40:
            raise SystemExit(137)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    assert infer(clip, checkpoint, out, "--overwrite")[0] == 137
    assert not json.loads((out / "saliency.json").read_text())["complete"]
    monkeypatch.setattr(os, "replace", replace)
    assert infer(clip, checkpoint, out, "--overwrite")[0] == 0
    assert written(out) == written(tmp_path / "right")


def test_only_maps_that_we_wrote_are_deleted(clip, checkpoint, tmp_path):
    out = tmp_path / "out"
    assert infer(clip, checkpoint, out)[0] == 0
    (out / "sal_mean.npy").write_bytes(b"the user's")
    (out / "sal_0001.npy").write_bytes(b"the user's")
    assert infer(write_video(tmp_path / "b.mp4", 3), checkpoint, out, "--overwrite")[0] == 0
    assert len(list(out.glob("sal_*.png"))) == 3
    assert {(out / f"sal_{name}.npy").read_bytes() for name in ("mean", "0001")} == {b"the user's"}
    code, _, line = infer(clip, checkpoint, out, "--overwrite", "--save_npy")
    assert code == 2 and "sal_0001.npy: not written by infer_video.py" in line
    (out / "saliency.json").unlink()
    code, _, line = infer(clip, checkpoint, out, "--overwrite")
    assert code == 2 and "sal_0001.png: not written by infer_video.py" in line


def test_maps_of_other_content_of_the_same_name_and_size(checkpoint, tmp_path):
    folders = [tmp_path / name / "217" for name in "ab"]
    for folder in folders:
        write_eccv_clip(folder)
    Image.fromarray(moving_disc(9, 32, 64)).save(folders[1] / "0003.jpg")
    for one, other in (folders, [folder / "0003.jpg" for folder in folders]):
        out = tmp_path / f"of {one.name}"
        assert infer(one, checkpoint, out)[0] == 0
        for found in (infer(other, checkpoint, out), paint(other, out, tmp_path / "o.mp4")):
            assert found[0] == 2 and "video" in found[2]
        assert paint(one, out, tmp_path / "o.mp4")[0] == 0
        (tmp_path / "o.mp4").unlink()


@pytest.mark.parametrize(
    "change",
    [{"frame_count": "23"}, {"frame_count": -5}, {"frame_count": 10**12}, {"unreadable": 5},
     {"unreadable": [[]]}, {"complete": 0}, {"fingerprint": 3}, {"npy": "yes"}],
)  # fmt: skip
def test_a_record_with_entries_of_another_type(clip, checkpoint, tmp_path, change):
    out = tmp_path / "out"
    assert infer(clip, checkpoint, out)[0] == 0
    facts = json.loads((out / "saliency.json").read_text())
    (out / "saliency.json").write_text(json.dumps(facts | change))
    start = time.monotonic()
    found = [paint(clip, out, tmp_path / "o.mp4"), infer(clip, checkpoint, out)]
    assert time.monotonic() - start < 20
    assert found[0][0] == (0 if change == {"unreadable": [[]]} else 2)


def test_maps_at_another_rate_are_maps_of_another_run(picture_folder, checkpoint, tmp_path):
    assert infer(picture_folder, checkpoint, tmp_path / "maps", "--fps", 24)[0] == 0
    refusal(infer(picture_folder, checkpoint, tmp_path / "maps", "--fps", 30), "fps 24.0")


def test_the_demo_replaces_maps_of_another_clip_and_keeps_its_own(clip, checkpoint, tmp_path):
    """It told the user of --overwrite, which `make demo` does not have."""
    (tmp_path / "other").mkdir()
    other, maps = write_video(tmp_path / "other" / clip.name, frames=9), tmp_path / "maps"
    assert infer(clip, checkpoint, maps, "--overwrite", "other")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in maps.glob("sal_*")}
    assert "(none new)" in success(infer(clip, checkpoint, maps, "--overwrite", "other"))
    assert {path: path.stat().st_mtime_ns for path in maps.glob("sal_*")} == before
    code, text, _ = infer(other, checkpoint, maps, "--overwrite", "other")
    assert code == 0 and "(9 new" in text and len(list(maps.glob("sal_*"))) == 9
    assert '"$(VIDEO)" --overwrite' in (ROOT / "Makefile").read_text()
    assert '["--overwrite", "other"]' in (ROOT / "__main__.py").read_text()


def test_each_maps_maximum_is_kept(clip, checkpoint, tmp_path):
    """The maps were divided by it, and it was lost."""
    maps = tmp_path / "maps"
    assert infer(clip, checkpoint, maps, "--save_npy")[0] == 0
    peaks = [np.load(path).max() for path in sorted(maps.glob("*.npy"))]
    assert read_record(maps)["peaks"] == pytest.approx(peaks, rel=1e-4)
    assert len(set(read_record(maps)["peaks"])) > 3
    for path, peak in zip(sorted(maps.glob("*.png")), peaks, strict=True):
        with Image.open(path) as image:
            assert float(image.info["peak"]) == pytest.approx(peak, rel=1e-6)
            assert np.abs(np.array(image) * peak / 255 - np.load(path.with_suffix(".npy"))).max() \
                <= peak / 255  # fmt: skip
    # A run that was interrupted reads them again.
    before = read_record(maps)["peaks"]
    (maps / "sal_0016.png").unlink()
    assert infer(clip, checkpoint, maps, "--save_npy")[0] == 0
    assert read_record(maps)["peaks"] == before


def test_maps_of_another_sampling_are_maps_of_another_run(clip, tmp_path):
    model = models.SSTSal(in_channels=3, hidden_channels=2, height=24, width=32)
    torch.nn.init.constant_(model.decoder["lstm"].conv["bias"], -1)  # the state is negative
    models.save(tmp_path / "sst.pth", model)
    reference = "--sampling", "reference"
    assert infer(clip, tmp_path / "sst.pth", tmp_path / "maps", *reference)[0] == 0
    refusal(infer(clip, tmp_path / "sst.pth", tmp_path / "maps"), "sampling reference")
    first = read_pixels(tmp_path / "maps/sal_0001.png")  # what was negative wrapped around to white
    raw = next(models.predict(models.load(tmp_path / "sst.pth", sampling="reference"),
        read_frames(clip, model.spec)))[1][0].numpy()  # fmt: skip
    assert raw.max() < 0
    assert np.abs(first / 255.0 - (raw - raw.min()) / (raw.max() - raw.min())).max() < 0.003


def test_maps_of_a_copied_folder_of_frames(picture_folder, checkpoint, tmp_path):
    """A copy, or one frame that was touched, was "another video (clipA), not of clipA"."""
    maps = tmp_path / "maps"
    assert infer(picture_folder, checkpoint, maps)[0] == 0
    frame = picture_folder / "0007.png"
    frame.touch()
    shutil.copytree(picture_folder, tmp_path / "copy/frames", copy_function=shutil.copyfile)
    for folder in (picture_folder, tmp_path / "copy/frames"):
        assert paint(folder, maps, tmp_path / "o.mp4")[0] == 0
        code, text, _ = infer(folder, checkpoint, maps)
        assert code == 0 and "(none new)" in text
    times = os.stat(frame).st_atime_ns, os.stat(frame).st_mtime_ns
    content = bytearray(frame.read_bytes())
    content[-20] ^= 1  # of the same name, size and time
    frame.write_bytes(content)
    os.utime(frame, ns=times)
    for code, _, text in (paint(picture_folder, maps, tmp_path / "o.mp4"),
                          infer(picture_folder, checkpoint, maps)):  # fmt: skip
        assert code == 2 and "another" in text


def test_maps_of_two_precisions_are_not_mixed(clip, checkpoint, tmp_path):
    """Six maps were in fp32, the others in bf16, without a word."""
    maps, missing = tmp_path / "maps", tmp_path / "maps/sal_0007.png"
    assert infer(clip, checkpoint, maps, "--precision", "fp32")[0] == 0
    missing.unlink()
    code, _, text = infer(clip, checkpoint, maps, "--precision", "bf16")
    assert code == 2 and "another run (precision float32)" in text and not missing.exists()
    assert infer(clip, checkpoint, maps, "--precision", "fp32")[0] == 0 and missing.exists()
    automatic = choose_precision("auto", torch.device("cpu"))
    assert infer(clip, checkpoint, tmp_path / "auto")[0] == 0
    assert f"torch.{read_record(tmp_path / 'auto')['precision']}" == str(automatic)


def test_the_preference_for_the_front_is_an_option(still, checkpoint, tmp_path):
    sums = {}
    for front in ("0", "1"):
        assert infer(still, checkpoint, tmp_path / front, "--front", front)[0] == 0
        columns = read_pixels(tmp_path / front / "sal_0001.png").sum(0)
        sums[front] = columns[30:50].sum() / columns.sum()
    assert sums["1"] > 1.5 * sums["0"]
    refusal(infer(still, checkpoint, tmp_path / "1", "--front", "0.5"), "front 1.0")
    models.save(tmp_path / "e.pth", models.EquatorPrior(10, 20))
    for network, front in ((checkpoint, "2"), (tmp_path / "e.pth", "1")):
        refusal(infer(still, network, tmp_path / "other", "--front", front), "front")


@pytest.mark.parametrize("wrong", ['"fps": NaN', '"fps": 0', '"peaks": [1, "2"]', '"peaks": [-1]'])
def test_a_record_with_nonsense_is_refused(still, checkpoint, tmp_path, wrong):
    maps = tmp_path / "maps"
    assert infer(still, checkpoint, maps)[0] == 0
    text = (maps / "saliency.json").read_text()
    name = wrong.split(":")[0]
    text = re.sub(rf"{name}: ([\d.]+|\[.*?\])", wrong, text, flags=re.DOTALL)
    (maps / "saliency.json").write_text(text)
    refusal(paint(still, maps, tmp_path / "o.png"), "saliency.json: not written by infer_video.py")


@pytest.mark.parametrize("text", ["1e300", "-1", "inf", "nan"])
def test_a_maximum_that_is_none_is_not_kept(tmp_path, text):
    kept = PngInfo()
    kept.add_text("peak", text)
    Image.new("L", (4, 2)).save(tmp_path / "sal_0001.png", pnginfo=kept)
    assert np.isnan(read_peak(tmp_path / "sal_0001.png"))
