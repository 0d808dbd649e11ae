"""A stranger's worst day, first part: what was once wrong or lost without a word.

Each test is named after what happened; the table in tests/README.md lists them all.
"""

import json
import multiprocessing
import os
import random
import re
import zipfile
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

import evaluate_video
import infer_video
import make_video
import models
import train_video
from common.errors import InputError, counted
from common.locks import lock
from datasets import SaliencyVideos, check
from datasets.layouts import read_truth
from models import Spec
from recipes import average, calibrate
from tests.clips import moving_disc, write_eccv_clip, write_video
from tests.commands import ended
from tests.trainings import TINY
from video import Frame, read_frames
from video.decoding import Damage, decode, probe
from video.pictures import read_picture
from video.writer import write_pictures

SPEC = Spec(height=24, width=48, fps=8.0, motion="difference")


def varying(path, times, codec="libx264"):
    """A clip whose header states a rate of 1000; times: seconds of its frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for n, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(moving_disc(n, 48, 96), format="rgb24")
            frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def infer(clip, checkpoint, output, *more):
    words = ("--video_path", clip, "--ckpt_path", checkpoint, "--output_dir", output, *more)
    return ended(infer_video.main, *words)


def paint(clip, maps, output, *more):
    words = ("--original_video", clip, "--saliency_dir", maps, "--output_path", output)
    return ended(make_video.main, *words, "--preset", "ultrafast", *more)


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# 1


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.webm", "libvpx"), ("a.mkv", "libx264"), ("a.flv", "libx264"), ("a.ts", "libx264"),
     ("a.avi", "mpeg4")],
)  # fmt: skip
def test_a_variable_frame_rate_without_a_rate_in_the_header(tmp_path, name, codec):
    """Two of 200 frames were looked at."""
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.06, 200))
    clip = varying(tmp_path / name, times - times[0], codec)
    assert 20 < probe(clip).fps < 30
    frames = list(read_frames(clip, SPEC))
    gaps = np.diff([frame.seconds for frame in frames])
    assert 60 <= len(frames) <= 70
    assert gaps.min() > 0.06 and gaps.max() < 0.19
    shown = [seconds for frame in frames for seconds in frame.times]
    assert len(shown) == 200 and np.allclose(shown, times - times[0], atol=0.01)


def test_a_variable_frame_rate_within_a_steady_header(tmp_path):
    """Ten frames a second with two bursts of 100: the bursts do not take all samples."""
    steady = np.arange(100) / 10
    burst = np.concatenate([steady, 3 + np.arange(1, 50) / 100, 7 + np.arange(1, 50) / 100])
    clip = varying(tmp_path / "a.mp4", np.unique(burst.round(3)))
    gaps = np.diff([frame.seconds for frame in read_frames(clip, SPEC)])
    assert gaps.min() > 0.06 and gaps.max() < 0.25


def test_maps_between_samples_are_interpolated_in_time():
    zero, one = torch.zeros(1, 2, 4), torch.ones(1, 2, 4)
    first = Frame(1, 0.0, zero, zero, (0.0, 0.1, 0.9))
    last = Frame(4, 1.0, zero, zero, (1.0, 1.2))
    maps = dict(infer_video.interpolate([(first, zero), (last, one)]))
    assert {n: round(float(m.mean()), 6) for n, m in maps.items()} == {
        1: 0, 2: 0.1, 3: 0.9, 4: 1, 5: 1,
    }  # fmt: skip


# 2


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_the_input_inside_the_output(checkpoint, tmp_path, more):
    """`--overwrite` with input = output deleted the user's pictures."""
    folder = write_eccv_clip(tmp_path / "sal")
    Image.open(folder / "0001.jpg").save(folder / "sal_0001.png")
    before = content(tmp_path)
    for clip, output in ((folder, folder), (folder / "0001.jpg", folder), (folder, tmp_path)):
        code, _, line = infer(clip, checkpoint, output, *more)
        assert code == 2 and "--output_dir" in line
    assert content(tmp_path) == before


def test_overwrite_keeps_the_old_maps_until_all_new_ones_are_there(checkpoint, tmp_path):
    whole = write_video(tmp_path / "whole.mkv", frames=200, fps=8)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    out = tmp_path / "out"
    assert infer(write_video(tmp_path / "a.mp4", 3), checkpoint, out)[0] == 0
    before = content(out)
    code, _, line = infer(cut, checkpoint, out, "--overwrite")
    assert code == 2 and "truncated" in line
    assert content(out).items() >= before.items()
    assert infer(whole, checkpoint, out, "--overwrite")[0] == 0
    assert len(list(out.glob("sal_*.png"))) == 200 and not (out / infer_video.NEW).exists()


def test_an_overwrite_that_is_killed_while_it_replaces(clip, checkpoint, tmp_path, monkeypatch):
    out, calls, replace = tmp_path / "out", [], os.replace
    assert infer(write_video(tmp_path / "a.mp4", 40), checkpoint, out)[0] == 0
    assert infer(clip, checkpoint, tmp_path / "right")[0] == 0

    def killed(source, target):
        calls.append(source)
        if infer_video.NEW in str(source) and ".partial" not in str(source) and len(calls) > 40:
            raise SystemExit(137)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    assert infer(clip, checkpoint, out, "--overwrite")[0] == 137
    assert not json.loads((out / "saliency.json").read_text())["complete"]
    monkeypatch.setattr(os, "replace", replace)
    assert infer(clip, checkpoint, out, "--overwrite")[0] == 0
    assert content(out) == content(tmp_path / "right")


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


# 3


def _hold(folder, ready, end):
    with lock(folder):
        ready.set()
        end.wait()


def test_two_runs_into_one_folder(clip, checkpoint, tmp_path):
    """They mixed their maps. The lock is released with the process that has it, however it ends."""
    context = multiprocessing.get_context("spawn")
    ready, end, out = context.Event(), context.Event(), tmp_path / "out"
    other = context.Process(target=_hold, args=(out, ready, end), daemon=True)
    other.start()
    assert ready.wait(60)
    data = {"train": ["a"], "val": ["b"]}
    for name in "ab":
        write_eccv_clip(tmp_path / "data" / name)
    (tmp_path / "data/splits.json").write_text(json.dumps(data))
    training = ("--data_root", tmp_path / "data", "--output_dir", out, "--workers", 0, *TINY)
    scoring = ("--data_root", tmp_path / "data", "--split", "val", "--output_dir", out)
    for found in (
        infer(clip, checkpoint, out),
        ended(train_video.main, *training),
        ended(evaluate_video.main, *scoring, "--ckpt_path", checkpoint),
    ):
        assert found[0] == 2 and "another run writes into this folder" in found[2]
    other.kill()
    other.join()
    assert infer(clip, checkpoint, out)[0] == 0


def test_a_run_that_fails_leaves_the_folders_as_they_were(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new"):
        with pytest.raises(ValueError), lock(tmp_path / name):
            raise ValueError
    assert (tmp_path / "empty").exists() and not (tmp_path / "new").exists()


# 4


def test_maps_of_other_content_of_the_same_name_and_size(checkpoint, tmp_path):
    folders = [tmp_path / name / "217" for name in "ab"]
    for folder in folders:
        write_eccv_clip(folder)
    Image.fromarray(moving_disc(9, 32, 64)).save(folders[1] / "0003.jpg")
    for one, other in (folders, [folder / "0003.jpg" for folder in folders]):
        out = tmp_path / f"of {one.name}"
        assert infer(one, checkpoint, out)[0] == 0
        for found in (infer(other, checkpoint, out), paint(other, out, tmp_path / "o.mp4")):
            assert found[0] == 2 and "fingerprint" in found[2]
        assert paint(one, out, tmp_path / "o.mp4")[0] == 0
        (tmp_path / "o.mp4").unlink()


def test_the_folder_that_one_is_in(checkpoint, tmp_path, monkeypatch):
    """`.` has no name."""
    folder = write_eccv_clip(tmp_path / "217")
    monkeypatch.chdir(folder)
    assert infer(".", checkpoint, tmp_path / "out")[0] == 0
    assert json.loads((tmp_path / "out/saliency.json").read_text())["video"] == "217"


# 5


def test_a_flipped_byte_in_a_checkpoint(checkpoint, tmp_path):
    """Wrong weights were loaded in 100 of 100 cases."""
    whole, weights = checkpoint.read_bytes(), models.load(checkpoint).state_dict()
    draw, refused = random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (tmp_path / "flipped.pth").write_bytes(damaged)
        try:
            found = models.load(tmp_path / "flipped.pth").state_dict()
        except InputError:
            refused += 1
        else:  # a byte between the parts of the file
            assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert refused > 75


def changed(checkpoint, path, change):
    stored = torch.load(checkpoint, weights_only=True)
    change(stored)
    torch.save(stored, path)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda w: w.update({"head.bias": torch.zeros(())}),
            "is () of torch.float32",
        ),
        (lambda w: w["head.weight"].fill_(float("nan")), "not finite"),
        (lambda w: w["head.weight"].fill_(1e30), "not finite or too large"),
        (lambda w: w.update({"head.bias": torch.zeros(1, dtype=torch.int64)}), "int64"),
        (
            lambda w: w.update({"head.bias": torch.zeros(1).expand(1)[:0]}),
            "is (0,) of",
        ),
        (
            lambda w: w.update({"latitude_bias": torch.zeros(1, 1, 1)}),
            "is (1, 1, 1) of",
        ),
        (lambda w: w.pop("head.bias"), "'head.bias' is not in both"),
        (lambda w: w.update({"head.bias": torch.zeros(1, dtype=torch.bool)}), "torch.bool"),
        (lambda w: w.update({"head.bias": torch.zeros(1, dtype=torch.complex64)}), "complex64"),
    ],
)
def test_weights_that_are_no_weights(checkpoint, tmp_path, change, says):
    """Weights of other shapes were broadcast; NaN and 1e30 passed through average and calibrate."""
    path = changed(checkpoint, tmp_path / "bad.pth", lambda stored: change(stored["weights"]))
    write_eccv_clip(tmp_path / "data/a")
    (tmp_path / "data/splits.json").write_text('{"train": ["a"], "val": ["a"]}')
    out = tmp_path / "new.pth"
    for main, words in (
        (average.main, (out, checkpoint, path)),
        (calibrate.main, (path, out, "--data_root", tmp_path / "data")),
        (infer_video.main, ("--video_path", tmp_path / "data/a", "--ckpt_path", path,
                            "--output_dir", tmp_path / "out")),
    ):  # fmt: skip
        code, _, line = ended(main, *words)
        assert code == 2 and "bad.pth" in line and says in line
    assert not out.exists()


def test_a_compressed_checkpoint_is_refused(checkpoint, tmp_path):
    """Its parts could unpack to any size."""
    with (
        zipfile.ZipFile(checkpoint) as old,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(InputError, match="bomb.pth: damaged, or not a checkpoint"):
        models.load(tmp_path / "bomb.pth")


# 6


def test_grey_pictures_of_16_bits_and_floats_are_scaled(tmp_path):
    """16 bits were read as white, floats as black."""
    grey = np.arange(0, 256, dtype=np.uint8).reshape(8, 32)
    pictures = {
        "8.png": Image.fromarray(grey),
        "16.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "16.tif": Image.fromarray(grey.astype(np.uint16) * 257),
        "1.tif": Image.fromarray(grey.astype(np.float32) / 255),
        "255.tif": Image.fromarray(grey.astype(np.float32)),
        "65535.tif": Image.fromarray(grey.astype(np.float32) * 257),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        assert np.array_equal(read_picture(tmp_path / name), np.stack([grey] * 3, -1)), name
        truth = read_truth(tmp_path / name, 8, 32)[0].numpy()
        assert np.allclose(truth, grey / 255, atol=1e-6), name
    for value in (-1.0, 70000.0, float("nan")):
        Image.fromarray(np.full((8, 16), value, np.float32)).save(tmp_path / "bad.tif")
        with pytest.raises(InputError, match="bad.tif: .*its values range from"):
            read_picture(tmp_path / "bad.tif")


def test_the_check_reads_ground_truth_of_16_bits(tmp_path):
    """`--check` found nothing wrong with maps that were read as white."""
    for folder in ("frames", "saliency_maps"):
        (tmp_path / folder).mkdir()
    for n in (1, 2):
        Image.fromarray(moving_disc(n, 24, 48)).save(tmp_path / f"frames/a_{n:04d}.png")
        dark = np.full((24, 48), 700, np.uint16)
        dark[:, 10 * n : 10 * n + 9] = 900
        Image.fromarray(dark).save(tmp_path / f"saliency_maps/a_{n:04d}.png")
    (tmp_path / "splits.json").write_text('{"test": ["a"]}')
    assert check.check(tmp_path)["clean"]
    flat = Image.fromarray(np.full((24, 48), 700, np.uint16))
    flat.save(tmp_path / "saliency_maps/a_0002.png")
    problems = check.check(tmp_path)["problems"]
    assert [(p["kind"], p["path"]) for p in problems] == [("constant", "saliency_maps/a_0002.png")]


# 7


@pytest.mark.parametrize("name", ["notes.txt", "clip.nfo", "art.asc", "movie.ans", "list.m3u8"])
def test_a_text_is_no_video(checkpoint, tmp_path, name):
    """FFmpeg's ANSI decoder made 467 maps of a text."""
    (tmp_path / name).write_text("#EXTM3U\n" + "Line of a text with some words.\n" * 500)
    code, _, line = infer(tmp_path / name, checkpoint, tmp_path / "out")
    assert code == 2 and name in line and not (tmp_path / "out").exists()


# 8


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("half_pixel=False", None),
        ("half_pixel=0", "half_pixel=0: sst_sal takes"),
        ("height=12.5", "height=12.5: sst_sal takes"),
        ("height=", "height=: sst_sal takes"),
        ("colour=red", "colour=red: sst_sal takes in_channels=6"),
    ],
)
def test_false_in_the_arguments_of_a_model_is_false(given, says):
    args = train_video.parse_args(["--model", "sst_sal", "--model_args", given])
    if says is None:
        assert train_video.model_arguments(args) == {"half_pixel": False}
    else:
        with pytest.raises(InputError, match=says):
            train_video.model_arguments(args)


def test_numbers_that_are_no_numbers_are_refused(tmp_path):
    from prepare import recordings, synthetic

    for main, words in (
        (synthetic.main, ("--fps", "nan")),
        (synthetic.main, ("--fps", "inf")),
        (recordings.main, ("--videos", tmp_path, "--gaze", tmp_path, "--fps", "nan")),
        (train_video.main, ("--lr", "nan")),
        (train_video.main, ("--ema", "nan")),
        (make_video.main, ("--alpha", "nan", "--original_video", "a", "--saliency_dir", "b",
                           "--output_path", "c.mp4")),
        (evaluate_video.main, ("--sigma", "nan")),
    ):  # fmt: skip
        assert ended(main, *words)[0] == 2, words


def test_clips_listed_twice_and_in_two_splits_are_named(tmp_path):
    """A clip listed twice was scored twice; overlapping splits trained and evaluated silently."""
    for name in "ab":
        write_eccv_clip(tmp_path / name)
    splits = {"train": ["a", "a", "b"], "val": ["b"], "test": ["b"]}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    data = SaliencyVideos(tmp_path, "train", Spec(height=16, width=32))
    assert len(data) == 8
    assert ("clip listed twice", "a") in data.irregular
    assert ("clip of 'train' that is in 'val' too", "b") in data.irregular
    assert "1 × clip of 'train' that is in 'test' too (first: b)" in data.summary()
    details = [p["detail"] for p in check.check(tmp_path)["problems"] if p["kind"] == "split"]
    assert sorted(details) == ["2 times in 'train'", "is in 3 splits"]


# 9


def declare(path, kind, byte):
    """Change the first byte after a box's version, or its kind."""
    content = bytearray(path.read_bytes())
    place = content.find(kind)
    if isinstance(byte, int):
        content[place + 8] = byte
    else:
        content[place : place + 4] = byte
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("box", "value", "says"),
    [(b"st3d", 1, "top-bottom stereo"), (b"st3d", 2, "left-right stereo"),
     (b"equi", b"cbmp", "a cubemap")],
)  # fmt: skip
def test_what_a_video_declares_is_told(checkpoint, tmp_path, box, value, says):
    clip = tmp_path / "clip.mp4"
    write_pictures(clip, [moving_disc(n, 48, 96) for n in range(3)], 48, 96, 8)
    assert "note:" not in infer(clip, checkpoint, tmp_path / "plain")[2]
    declare(clip, box, value)
    code, _, text = infer(clip, checkpoint, tmp_path / "out")
    assert f"{clip}: declares {says}" in text
    assert code == (2 if "cubemap" in says else 0)


@pytest.mark.parametrize(
    ("size", "says"),
    [((48, 96), "portrait"), ((96, 64), "not 2:1"), ((64, 64), "not 2:1"), ((98, 48), None)],
)
def test_shapes_that_are_no_panoramas_are_told(tmp_path, size, says):
    clip = write_video(tmp_path / "clip.mp4", 3, size[1], size[0])
    Image.new("RGB", size).save(tmp_path / "still.png")
    for path in (clip, tmp_path / "still.png"):
        notes = probe(path).notes
        assert says in notes[0] if says else not notes


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tif"])
def test_animated_pictures_are_told(checkpoint, tmp_path, name):
    """One frame of twelve was read."""
    pictures = [Image.fromarray(moving_disc(n, 24, 48)) for n in range(12)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    text = infer(tmp_path / name, checkpoint, tmp_path / "out")[2]
    assert "animated: only the first of its 12 frames is read" in text


# 10


def test_damage_inside_a_clip_is_counted_and_named(checkpoint, tmp_path):
    """300 zeroed bytes changed 23 frames silently."""
    clip = write_video(tmp_path / "clip.mp4", 60, 240, 480)
    whole = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    place, size = max(packets[1:], key=lambda packet: packet[1])
    whole[place + size // 3 : place + size // 3 + 300] = bytes(300)
    clip.write_bytes(whole)
    damage = Damage()
    assert len(list(decode(probe(clip), damage))) == 60 and damage.corrupt
    code, printed, line = infer(clip, checkpoint, tmp_path / "out")
    assert code == 1 and "60 maps" in printed
    assert f"the decoder reports {counted(len(damage.corrupt), 'error')}," in line
    first = re.search(r"the first at frame (\d+),", line)[1]  # of the frames that came by then
    assert abs(int(first) - damage.corrupt[0]) < 4
    code, _, line = paint(clip, tmp_path / "out", tmp_path / "o.mp4")
    assert code == 1 and "the decoder reports" in line and (tmp_path / "o.mp4").exists()
