"""A stranger's worst day, second part: what once crashed, hung or was refused although it is good.

Each test is named after what happened; the table in tests/README.md lists them all.
"""

import errno
import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import OrderedDict
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import evaluate_video
import infer_video
import make_video
import models
import train_video
from common.devices import choose_device
from common.errors import InputError
from common.files import atomic, read_array, read_json
from datasets.gaze_files import read_vinfo
from prepare import recordings, resize, synthetic
from recipes import average, calibrate, pretrained
from tests.clips import moving_disc, write_eccv_clip, write_video
from tests.commands import ended
from tests.test_wrong_without_a_word import changed, infer, paint
from tests.trainings import TINY
from video.decoding import probe
from video.pictures import read_picture

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def data(tmp_path):
    for name in "ab":
        write_eccv_clip(tmp_path / "data" / name, range(1, 4), 20, 40)
    splits = {"train": ["a"], "val": ["b"], "test": ["b"]}
    (tmp_path / "data/splits.json").write_text(json.dumps(splits))
    return tmp_path / "data"


def running(*words):
    """A script or module in a process of its own."""
    where = {"cwd": ROOT, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *map(str, words)], **where, text=True)


def train(data, output, *more):
    words = ("--data_root", data, "--output_dir", output, "--workers", 0, *TINY)
    return ended(train_video.main, *words, "--epochs", 1, *more)


def evaluate(data, output, *more):
    words = ("--data_root", data, "--output_dir", output, "--height", 24, *more)
    return ended(evaluate_video.main, *words)


# 11


@pytest.mark.parametrize("more", [(), ("--save_npy",)])
def test_a_file_that_may_not_grow(clip, checkpoint, tmp_path, more):
    """`ulimit -f`; NumPy's error had no number, PyAV's no name."""
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        found = [infer(clip, checkpoint, tmp_path / "new", *more)]
        found.append(paint(clip, tmp_path / "out", tmp_path / "o.mp4"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for code, _, line in found:
        assert code == 1 and "File too large" in line and str(tmp_path) in line
    assert not list(tmp_path.rglob("*.partial*"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE, None])
def test_a_full_disk(clip, checkpoint, tmp_path, monkeypatch, number):
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0

    def full(*_):
        raise OSError(number, "204 requested and 0 written")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(make_video, "write_video", full)
    for found in (
        infer(clip, checkpoint, tmp_path / "new", "--save_npy"),
        paint(clip, tmp_path / "out", tmp_path / "o.mp4"),
    ):
        assert found[0] == 1 and str(tmp_path) in found[2]


@pytest.mark.parametrize("where", ["/proc/out", "/dev/null/out", f"{'x' * 300}", "/proc/1/fd/x"])
def test_places_where_nothing_can_be_written(clip, checkpoint, tmp_path, data, where):
    maps = tmp_path / "maps"
    assert infer(clip, checkpoint, maps)[0] == 0
    for found in (
        infer(clip, checkpoint, where),
        paint(clip, maps, f"{where}/o.mp4"),
        paint(clip, maps, f"{where}.mp4"),
        train(data, where),
        ended(average.main, f"{where}/a.pth", checkpoint),
        ended(synthetic.main, "--video", f"{where}/a.mp4", "--frames", 1),
        ended(synthetic.main, "--output", where, "--clips", 1),
    ):
        assert found[0] in (1, 2)
        assert Path(where).name in found[2] or str(Path(where).parent) in found[2]


def test_a_long_name_that_a_file_can_have(clip, checkpoint, tmp_path):
    """The temporary name was too long."""
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0
    assert paint(clip, tmp_path / "out", tmp_path / f"{'ü' * 125}.mp4")[0] == 0


@pytest.mark.parametrize("script", ["infer_video.py", "train_video.py"])
def test_output_that_nobody_reads(script):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(ROOT / script), "--help"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    streams = {"stdout": write, "stderr": subprocess.PIPE}
    result = subprocess.run(command, **streams, text=True, env=environment)
    os.close(write)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{script}: output: Broken pipe")


# 12


def test_tags_in_latin_1(checkpoint, tmp_path):
    clip = tmp_path / "clip.mkv"
    with av.open(str(clip), "w") as container:
        container.metadata["title"] = "caf\u00e9 con leche"
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for n in range(3):
            picture = av.VideoFrame.from_ndarray(moving_disc(n, 48, 96), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    whole = clip.read_bytes()
    assert "caf\u00e9".encode() in whole
    clip.write_bytes(whole.replace("caf\u00e9 ".encode(), b"caf\xe9 x"))
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0
    assert paint(clip, tmp_path / "out", tmp_path / "o.mp4")[0] == 0


def with_sound(path, rate, layout):
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 48, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=rate, layout=layout)
        for n in range(25):
            picture = av.VideoFrame.from_ndarray(moving_disc(n, 48, 96), format="rgb24")
            output.mux(video.encode(picture))
        samples = np.zeros((1, rate * sound.codec_context.layout.nb_channels), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.rate = rate
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
        output.mux(video.encode(None))
    return path


@pytest.mark.parametrize("tag", [None, 111, 126, 128, 160, 167])
def test_eight_channels_in_an_order_of_their_own(checkpoint, tmp_path, tag):
    """They ended the interpreter: PyAV frees such an order of channels twice."""
    clip = with_sound(tmp_path / "clip.mov", 48000, "7.1")
    if tag:  # an order of Apple's Core Audio: the tag's number and that of channels
        whole = clip.read_bytes()
        place = whole.find(b"chan") + 8
        clip.write_bytes(whole[:place] + struct.pack(">HH", tag, 8) + whole[place + 4 :])
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0
    process = running("make_video.py", "--original_video", clip, "--saliency_dir",
                      tmp_path / "out", "--output_path", tmp_path / "o.mp4")  # fmt: skip
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert ("sound 1 (pcm_s16le) is left out" in errors) == (tag is not None)


@pytest.mark.parametrize("rate", [192000, 37800, 5000])
def test_sound_of_192_khz(checkpoint, tmp_path, rate):
    clip = with_sound(tmp_path / "clip.mkv", rate, "stereo")
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0
    assert paint(clip, tmp_path / "out", tmp_path / "o.mp4")[0] == 0
    with av.open(str(tmp_path / "o.mp4")) as file:
        seconds = sum(frame.samples / frame.rate for frame in file.decode(audio=0))
    assert abs(seconds - 1) < 0.15


def test_videos_without_a_decoder_and_drawings(checkpoint, tmp_path):
    """'NoneType' object has no attribute 'width'."""
    whole = write_video(tmp_path / "a.mkv", 3).read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"))
    (tmp_path / "c.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9"/>')
    for name, says in (("b.mkv", "without a decoder"), ("c.svg", "not in a known format")):
        code, _, line = infer(tmp_path / name, checkpoint, tmp_path / "out")
        assert code == 2 and name in line and says in line


@pytest.mark.parametrize("size", [(40000, 400), (60, 40000), (3, 2), (1, 1)])
def test_pictures_of_odd_sizes(checkpoint, tmp_path, size):
    Image.new("L", size, 90).save(tmp_path / "a.png")
    assert infer(tmp_path / "a.png", checkpoint, tmp_path / "out")[0] == 0
    code, _, line = paint(tmp_path / "a.png", tmp_path / "out", tmp_path / "o.mp4")
    assert code == (0 if size == (3, 2) else 2)
    assert max(size) < 40000 or ".mp4 holds 16384×16384" in line


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_bombs_by_header(checkpoint, tmp_path, name):
    path = tmp_path / name
    Image.new("RGB", (8, 4)).save(path)
    whole = bytearray(path.read_bytes())
    if name == "a.png":
        whole[16:24] = struct.pack(">II", 60000, 60000)
        whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    elif name == "a.bmp":
        whole[18:26] = struct.pack("<ii", 60000, 60000)
    else:
        for tag in (256, 257):
            entry = whole.find(struct.pack("<HHI", tag, 4, 1))
            whole[entry + 8 : entry + 12] = struct.pack("<I", 60000)
    path.write_bytes(whole)
    start = time.monotonic()
    code, _, line = infer(path, checkpoint, tmp_path / "out")
    assert code == 2 and "60000×60000 pixels are too many" in line
    assert time.monotonic() - start < 10


def test_pictures_that_stand_still_for_long(checkpoint, tmp_path):
    """A GIF with a hold of 3 s, half a frame a second and a still of 8 s were 'truncated'."""
    pictures = [Image.fromarray(moving_disc(n, 48, 96)) for n in range(4)]
    clips = [
        tmp_path / name for name in ("hold.gif", "slow.gif", "slow.mp4", "slow.mkv", "slow.ts")
    ]
    pictures[0].save(
        clips[0], save_all=True, append_images=pictures[1:], duration=[100, 100, 100, 3000]
    )
    pictures[0].save(clips[1], save_all=True, append_images=pictures[1:], duration=2000)
    for path in clips[2:]:
        write_video(path, 6, fps="1/2")
    clips.append(write_video(tmp_path / "still.mp4", 1, fps="1/8"))
    clips.append(write_video(tmp_path / "still.mkv", 1, fps="1/8"))
    for path in clips:
        code, _, text = infer(path, checkpoint, tmp_path / f"{path.name} maps")
        assert code == 0, text


# 13


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
    assert code == 1 and "1 of 3 have problems, the others are done" in line and "b.mp4" in line
    assert printed.count("3 maps in") == 2


def test_one_bad_file_in_prepare(data, tmp_path):
    (data / "a/0002.jpg").write_bytes(b"")
    words = ("--data_root", data, "--output", tmp_path / "small", "--height", 16, "--width", 32)
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


# 14


@pytest.fixture(scope="module")
def last(tmp_path_factory):
    """A data set and the checkpoint of a run of one epoch on it."""
    root = tmp_path_factory.mktemp("last")
    for name in "ab":
        write_eccv_clip(root / "data" / name, range(1, 4), 20, 40)
    (root / "data/splits.json").write_text('{"train": ["a"], "val": ["b"]}')
    assert train(root / "data", root / "run", "--ema", "0.9")[0] == 0
    return root / "data", root / "run/cube_unet_last.pth"


def test_checkpoints_cut_anywhere(last, clip, tmp_path):
    """Errno 22, and torch's advice to set weights_only to False."""
    data, whole = last[0], last[1].read_bytes()
    run = tmp_path / "run"
    run.mkdir()
    cut, out = run / "cube_unet_last.pth", tmp_path / "out.pth"
    for size in (1, 100, 3000, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        cut.write_bytes(whole[:size])
        for found in (
            infer(clip, cut, tmp_path / "maps"),
            evaluate(data, tmp_path / "scores", "--split", "val", "--ckpt_path", cut),
            train(data, tmp_path / "other", "--init", cut),
            train(data, run, "--ema", "0.9"),
            ended(average.main, out, cut),
            ended(calibrate.main, cut, out, "--data_root", data),
            ended(pretrained.main, cut, out),
        ):
            assert found[0] == 2 and str(cut) in found[2]
            assert "weights_only" not in found[2] and "Errno" not in found[2]
    for size in range(0, len(whole), len(whole) // 60):
        cut.write_bytes(whole[:size])
        with pytest.raises(InputError):
            models.load(cut)


STATE = ("step", "log", "sums", "seconds", "optimizer", "scaler", "average", "random", "weights",
         "arguments", "spec", "run", "model")  # fmt: skip


@pytest.mark.parametrize("name", STATE)
def test_entries_that_are_missing_or_of_another_type_on_resume(last, tmp_path, name):
    """18 of 20 ended in a traceback."""
    data, whole = last
    run = tmp_path / "run"
    run.mkdir()
    wrong = [5, "text", None, [1, "x"], {"a": 1}, {3: 4}, float("nan"), torch.zeros(2), -1]
    for value in ("missing", *wrong):

        def change(stored, value=value):
            if value == "missing":
                del stored[name]
            else:
                stored[name] = value

        changed(whole, run / "cube_unet_last.pth", change)
        code, _, line = train(data, run, "--ema", "0.9", "--epochs", 2)
        harmless = name in ("scaler", "arguments", "spec")  # not used, or not missed
        harmless = harmless or (code == 0 and (name == "seconds" or torch.is_tensor(value)))
        assert harmless or (code == 2 and "cube_unet_last.pth" in line), (value, line)


@pytest.mark.parametrize("field", ["exp_avg", "exp_avg_sq", "step"])
def test_an_optimizer_that_does_not_fit(last, tmp_path, field):
    run = tmp_path / "run"
    run.mkdir()
    for value in (torch.zeros(()), torch.full((3,), float("nan")), "text", None):
        if field == "step" and torch.is_tensor(value) and value.ndim == 0:
            continue
        changed(
            last[1], run / "cube_unet_last.pth",
            lambda stored, value=value: stored["optimizer"]["state"][0].update({field: value}),
        )  # fmt: skip
        code, _, line = train(last[0], run, "--ema", "0.9", "--epochs", 2)
        assert code == 2 and "the state of its run is damaged" in line


@pytest.mark.parametrize(
    "change",
    [{"fps": 0}, {"fps": float("nan")}, {"fps": -1}, {"fps": "8"}, {"height": 0}, {"height": 10**9},
     {"width": 1.5}, {"motion": "magic"}, {"motion": 3}, {"clip_length": 0}, {"warm_up": 1},
     {"colour": 1}],
)  # fmt: skip
def test_a_spec_of_nonsense(clip, checkpoint, tmp_path, change):
    path = changed(checkpoint, tmp_path / "bad.pth", lambda stored: stored["spec"].update(change))
    code, _, line = infer(clip, path, tmp_path / "out")
    assert code == 2 and "bad.pth" in line and next(iter(change)) in line


class Module:
    """Becomes a stand-in for a module of SST-Sal's authors."""


def test_a_pickle_whose_names_form_an_exploding_graph(tmp_path):
    """Forty modules that contain each other twice have 2⁴⁰ names."""
    child = None
    for _ in range(40):
        module = nn.MaxPool2d(2)
        module._modules = OrderedDict(a=child, b=child) if child else OrderedDict()
        child = module
    torch.save(child, tmp_path / "graph.pth")
    start = time.monotonic()
    with pytest.raises(InputError, match="graph.pth: damaged, or not a checkpoint"):
        models.load(tmp_path / "graph.pth")
    assert time.monotonic() - start < 10


def test_a_list_of_fixations_that_is_used_again_and_again(tmp_path):
    points = [(0.5, 0.5)] * 1000
    frames = {f"{n:04d}": points for n in range(1, 1000)}
    content = pickle.dumps({str(clip): frames for clip in range(1000)}, 2)
    (tmp_path / "vinfo.pkl").write_bytes(content)
    with pytest.raises(InputError, match="more fixations than bytes"):
        read_vinfo(tmp_path / "vinfo.pkl")


# 15

NO_OBJECTS = {
    "list": b"[1, 2]",
    "number": b"7",
    "null": b"null",
    "text": b'"text"',
    "Latin-1": '{"video": "é"}'.encode("latin-1"),
    "UTF-16": '{"video": "é"}'.encode("utf-16"),
    "10,000 deep": b"[" * 10_000,
    "10,000 objects deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "cut": b'{"complete": tr',
    "empty": b"",
    "a digit too many": b'{"frame_count": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("text", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_json_that_is_no_object(clip, checkpoint, tmp_path, data, text):
    out = tmp_path / "out"
    assert infer(clip, checkpoint, out)[0] == 0
    assert ended(resize.main, "--data_root", data, "--output", tmp_path / "small", "--height", 8,
                 "--width", 16)[0] == 0  # fmt: skip
    for path in (out / "saliency.json", data / "splits.json", tmp_path / "small/a/prepared.json"):
        path.write_bytes(text)
    for found in (
        infer(clip, checkpoint, out),
        infer(clip, checkpoint, out, "--overwrite"),
        paint(clip, out, tmp_path / "o.mp4"),
        train(data, tmp_path / "run"),
        evaluate(data, tmp_path / "scores", "--ckpt_path", checkpoint),
    ):
        assert found[0] == 2 and ".json: " in found[2]
    (data / "splits.json").write_text('{"train": ["a"], "val": ["b"]}')
    found = ended(resize.main, "--data_root", data, "--output", tmp_path / "small", "--height", 8,
                  "--width", 16)  # fmt: skip
    assert found[0] == 2 and "prepared.json: " in found[2]


@pytest.mark.parametrize(
    "change",
    [{"frame_count": "23"}, {"frame_count": -5}, {"frame_count": 10**12}, {"unreadable": 5},
     {"unreadable": [[]]}, {"complete": 0}, {"fingerprint": 3}, {"width": "96"}, {"npy": "yes"}],
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


@pytest.mark.parametrize(
    "splits",
    [{"train": "a"}, {"train": [["a"]]}, {"train": [None]}, {"train": {"a": 1}}, {"val": 5},
     {"train": ["../a"]}, {"train": ["/etc"]}, {"train": [".."]}, {"train": [""]}],
)  # fmt: skip
def test_splits_with_entries_of_another_type(data, tmp_path, splits):
    """A name that leaves the folder would be written outside the output folder, too."""
    (data / "splits.json").write_text(json.dumps(splits))
    code, _, line = train(data, tmp_path / "run")
    assert code == 2 and "splits.json" in line


def header(text, version=1):
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin-1")


PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n"
NO_ARRAYS = {
    "empty": b"",
    "text": b"this is no array",
    "without elements": header(PLAIN % "(0, 4)"),
    "too short": header(PLAIN % "(2, 4)") + bytes(31),
    "too long": header(PLAIN % "(2, 4)") + bytes(33),
    "exabytes": header(PLAIN % "(1000000000, 1000000000)") + bytes(64),
    "negative": header(PLAIN % "(-2, -4)") + bytes(32),
    "objects": header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 4), }\n") + bytes(64),
    "complex": header("{'descr': '<c8', 'fortran_order': False, 'shape': (2, 2), }\n") + bytes(32),
    "deep": header("(" * 9000),
    "huge header": header(" " * 60000 + PLAIN % "(2, 4)") + bytes(32),
    "cut header": header(PLAIN % "(2, 4)")[:30],
    "version 9": header(PLAIN % "(2, 4)", 9) + bytes(32),
    "code": header("__import__('os').mkdir('/tmp/never')") + bytes(32),
}


@pytest.mark.parametrize("content", NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_npy_files_that_are_no_arrays(data, checkpoint, tmp_path, content):
    path = data / "b/0002_gt.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match="0002_gt.npy"):
        read_array(path)
    code, printed, text = evaluate(data, tmp_path / "scores", "--ckpt_path", checkpoint)
    assert code == 0 and "1 × unusable ground truth" in printed


def test_an_npz_that_is_called_npy(data, checkpoint, tmp_path):
    with open(data / "b/0002_gt.npy", "wb") as file:
        np.savez(file, a=np.zeros((2, 4)))
    code, printed, _ = evaluate(data, tmp_path / "scores", "--ckpt_path", checkpoint)
    assert code == 0 and "1 × unusable ground truth" in printed


# 16


def test_rates_of_television(tmp_path):
    clip = tmp_path / "a.mp4"
    words = ("--video", clip, "--frames", 4, "--height", 24, "--width", 48)
    assert ended(synthetic.main, *words, "--fps", 29.97)[0] == 0
    assert abs(probe(clip).fps - 29.97) < 0.01
    code, _, line = ended(synthetic.main, "--video", clip, "--height", 25, "--width", 48)
    assert code == 2 and "even" in line


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (synthetic.main, ("--seed", -1)),
        (synthetic.main, ("--height", 10**9)),
        (synthetic.main, ("--clips", 10**12)),
        (synthetic.main, ("--workers", 100_000)),
        (resize.main, ("--workers", 100_000)),
        (train_video.main, ("--workers", 100_000)),
        (train_video.main, ("--samples", 10**12)),
        (train_video.main, ("--batch_size", 10**9)),
        (train_video.main, ("--seed", -1)),
        (train_video.main, ("--seed", 10**30)),
        (train_video.main, ("--epochs", 10**12)),
    ],
)
def test_numbers_beyond_reason(main, words):
    assert ended(main, *words)[0] == 2


@pytest.mark.parametrize("value", [0, -1, 100_000])
@pytest.mark.parametrize("name", ["height", "width", "base_channels", "face_size", "in_channels"])
def test_arguments_of_a_model_beyond_reason(data, tmp_path, name, value):
    if (name, value) == ("face_size", 0):
        pytest.skip("0 stands for width // 4")
    words = ("--data_root", data, "--output_dir", tmp_path / "run", "--workers", 0)
    code, _, line = ended(train_video.main, *words, "--model_args", f"{name}={value}")
    assert code == 2 and "--model_args" in line
    with pytest.raises(ValueError):
        models.CubeUNet(**{name: value})


@pytest.mark.parametrize("name", ["meta", "tpu", "cuda:99", "", "cpu:x", "7"])
def test_devices_that_are_not_there(name):
    with pytest.raises(InputError, match="--device"):
        choose_device(name)


# 17


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_pipes(clip, checkpoint, tmp_path, data, pipe):
    """They hung the run for ever, as pictures, maps or named by a playlist."""

    def alarm(*_):
        raise AssertionError("it hangs")

    signal.signal(signal.SIGALRM, alarm)
    signal.alarm(60)
    maps = tmp_path / "maps"
    assert infer(clip, checkpoint, maps)[0] == 0
    stills = write_eccv_clip(tmp_path / "stills")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{pipe}\n")
    for path in (maps / "sal_0003.png", stills / "0002.jpg", stills / "0003.jpg",
                 data / "b/0002_gt.npy", *(tmp_path / f"a.{end}" for end in ("mp4", "npy", "pth",
                 "json"))):  # fmt: skip
        path.unlink(missing_ok=True)
        os.symlink(pipe, path)
    assert infer(pipe, checkpoint, tmp_path / "o1")[0] == 2
    assert infer(tmp_path / "a.mp4", checkpoint, tmp_path / "o2")[0] == 2
    assert infer(tmp_path / "list.m3u8", checkpoint, tmp_path / "o3")[0] == 2
    assert infer(clip, tmp_path / "a.pth", tmp_path / "o4")[0] == 2
    assert infer(stills, checkpoint, tmp_path / "o5")[0] == 1
    assert paint(clip, maps, tmp_path / "o.mp4")[0] == 2
    assert evaluate(data, tmp_path / "scores", "--ckpt_path", checkpoint)[0] == 0
    for reader in (read_array, read_json, read_picture):
        with pytest.raises(InputError, match="a pipe or a device"):
            reader(tmp_path / "a.npy")
    signal.alarm(0)


def test_a_name_like_a_protocol(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(Path("a.mp4"), 3).rename("12:30.mp4")
    assert infer("12:30.mp4", checkpoint, "maps")[0] == 0
    assert paint("12:30.mp4", "maps", "13:30.mp4")[0] == 0
    assert probe("13:30.mp4").frames == 3


def test_partial_files_after_a_kill(checkpoint, tmp_path):
    """`.o.PID.partial.mp4` stayed."""
    clip = write_video(tmp_path / "clip.mp4", 200, 480, 960)
    assert infer(clip, checkpoint, tmp_path / "maps")[0] == 0
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = running("make_video.py", "--original_video", clip, "--saliency_dir",
                          tmp_path / "maps", "--output_path", tmp_path / "o.mp4")  # fmt: skip
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".o.*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
        assert len(list(tmp_path.glob(".o.*"))) == (number == signal.SIGKILL)
        assert not (tmp_path / "o.mp4").exists()
    assert paint(clip, tmp_path / "maps", tmp_path / "o.mp4")[0] == 0
    assert not list(tmp_path.glob(".o.*"))


def test_a_partial_file_of_a_process_that_lives_stays(tmp_path):
    names = [f".a.{number}.partial.json" for number in (os.getppid(), 999_999_999)]
    for name in (*names, ".a.partial.json", ".a.b.1.partial.json"):
        (tmp_path / name).touch()
    with atomic(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.json", names[0], ".a.partial.json", ".a.b.1.partial.json"}


@pytest.mark.parametrize("seconds", [0.2, 0.6, 1.2])
@pytest.mark.parametrize("words", [("infer_video.py",), ("-m", "prepare.resize")])
def test_ctrl_c_during_the_imports(words, seconds):
    process = running(*words, "--help")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate()[1]


# 18


def test_messages_that_lead_on(clip, checkpoint, tmp_path, data):
    nan = changed(
        checkpoint, tmp_path / "nan.pth", lambda s: s["weights"]["head.bias"].fill_(np.nan)
    )
    line = infer(clip, nan, tmp_path / "out")[2]
    assert "'head.bias' is not finite" in line and "--precision" not in line

    torch.save(nn.Linear(2, 2), tmp_path / "foreign.pth")
    line = infer(clip, tmp_path / "foreign.pth", tmp_path / "out")[2]
    assert "SST-Sal's weights do not need" not in line and "nothing in it was executed" in line
    for main, words in ((pretrained.main, (tmp_path / "foreign.pth", tmp_path / "x.pth")),):
        assert "weights_only" not in ended(main, *words)[2]

    assert ended(average.main, tmp_path / "new/folder/mean.pth", checkpoint)[0] == 0
    assert (tmp_path / "new/folder/mean.pth").exists()

    words = ("--data_root", data, "--output_dir", tmp_path / "run", "--model_args", "depth=3")
    line = ended(train_video.main, *words)[2]
    assert "--model_args depth=3: cube_unet takes in_channels=4" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_not_called_truncated(clip, checkpoint, tmp_path):
    path = tmp_path / "secret.mp4"
    path.write_bytes(clip.read_bytes())
    path.chmod(0)
    code, _, line = infer(path, checkpoint, tmp_path / "out")
    assert code == 2 and "permission denied" in line
