"""Hostile files, names and surroundings: one line, an exit code, nothing of the user's lost."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import infer_video
import make_video
from common.errors import InputError, printable
from common.files import atomic, output_name, protected, read_array
from common.restricted_pickle import containers, read_pickle
from datasets.gaze_files import read_vinfo
from models import export_onnx
from models.checkpoint import load
from tests.clips import moving_disc
from tests.commands import ended, infer, map_files, paint, read_record, start

ROOT = Path(__file__).resolve().parents[1]

# Pickles of a few bytes that stand for 2⁴⁰ parts of a key, for a memo of 16 GB, for 10⁹ numbers.
NESTED = b")q\x00" + b"".join(
    b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1]) for k in range(40)
)
LISTS = (
    b"]q\x00(" + b"K\x01" * 3000 + b"e0]q\x01(" + b"h\x00" * 3000 + b"e0](" + b"h\x01" * 99 + b"e"
)
BOMBS = {
    "a key of nested tuples": b"\x80\x02}" + NESTED + b"K\x01s.",
    "a key of doubled tuples": b"\x80\x02}(" + b"N" + b"2\x86" * 60 + b"K\x01u.",
    "an index of the memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "lists of one list": b"\x80\x02" + LISTS + b".",
    "a length beyond the end": b"\x80\x02X\xff\xff\xff\x7fa.",
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_a_pickle_that_unfolds_without_end(tmp_path, content):
    """The first was read for ever, and SIGTERM was ignored."""
    path, begun = tmp_path / "vinfo.pkl", time.monotonic()
    path.write_bytes(content)
    for reader in (read_vinfo, load):
        with pytest.raises(InputError, match="vinfo.pkl: .*damaged"):
            reader(path)
    assert time.monotonic() - begun < 5


def test_parts_that_are_named_again_are_read():
    one = ("a", 1.5)
    again = [one] * 50
    for protocol in range(5):
        content = pickle.dumps({"x": again, "y": again, ("k", 1): np.float64(2).item()}, protocol)
        assert read_pickle(content, "a.pkl", containers())["y"] == again


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_like_dev_null(clip, checkpoint, tmp_path, closed):
    """make_video.py hung for ever, and files took the place of the streams."""
    infer_words = f"--video_path {clip} --ckpt_path {checkpoint} --output_dir maps"
    for words, output in (
        (f"{ROOT}/infer_video.py {infer_words}", "maps/saliency.json"),
        (f"{ROOT}/make_video.py --original_video {clip} --saliency_dir maps "
         "--output_path o.mp4 --preset ultrafast", "o.mp4"),
        (f"{ROOT}/infer_video.py --help", None),
    ):  # fmt: skip
        shell = f"{sys.executable} {words} {closed}"
        done = subprocess.run(shell, shell=True, cwd=tmp_path, capture_output=True, timeout=100)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
        assert output is None or (tmp_path / output).stat().st_size > 100


def test_an_output_that_was_an_input(clip, checkpoint, tmp_path, still_maps):
    """Exports replaced the clip, the checkpoint and maps, with exit code 0."""
    own = shutil.copy(clip, tmp_path / "own.csv")  # a film is known by its content
    network = shutil.copy(checkpoint, tmp_path / "network.npy")
    os.symlink(own, tmp_path / "link.csv")
    out = tmp_path / "out"
    before = {path: Path(path).read_bytes() for path in (own, network)}
    for export in (own, network, tmp_path / "link.csv"):
        code, _, line = infer(own, network, out, "--export", export)
        assert code == 2 and "would be replaced" in line and Path(export).name in line
    assert infer(own, network, out, "--save_npy", "--overwrite")[0] == 0
    maps = map_files(out)
    assert infer(own, network, out, "--save_npy", "--export", out / "sal_0001.npy")[0] == 2
    assert ended(export_onnx.main, network, tmp_path / "a.onnx")[0] in (0, 2)
    os.link(network, tmp_path / "network.onnx")
    assert ended(export_onnx.main, network, tmp_path / "network.onnx")[0] == 2
    still, folder = still_maps
    code, _, line = paint(still, folder, folder / "sal_0001.png")
    assert code == 2 and "would be replaced" in line
    assert maps == map_files(out)
    assert before == {path: Path(path).read_bytes() for path in before}


@pytest.fixture
def still_maps(tmp_path, checkpoint):
    path = tmp_path / "still.png"
    Image.fromarray(moving_disc(3, 40, 80)).save(path)
    assert infer(path, checkpoint, tmp_path / "still")[0] == 0
    return path, tmp_path / "still"


def test_a_file_is_protected_only_while_it_is_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a")
    with protected(path):
        with pytest.raises(InputError, match="would be replaced"), atomic(path) as temporary:
            temporary.write_text("b")
        with protected(path):
            pass
        with pytest.raises(InputError, match="would be replaced"), atomic(path) as temporary:
            temporary.write_text("b")
    with atomic(path) as temporary:
        temporary.write_text("b")
    assert path.read_text() == "b"


def test_two_names_that_begin_alike_have_temporary_files_of_their_own(tmp_path):
    """Both ended in one file, whose name was cut after 40 characters."""
    first, second = (tmp_path / f"{'a' * 60}{n}.txt" for n in (1, 2))
    with atomic(first) as one, atomic(second) as other:
        one.write_text("1")
        other.write_text("2")
    assert (first.read_text(), second.read_text()) == ("1", "2")


def test_one_export_for_two_clips(clip, checkpoint, tmp_path):
    """Both wrote the same file."""
    other = shutil.copy(clip, tmp_path / "other.mp4")
    words = "--video_path", clip, other, "--ckpt_path", checkpoint, "--output_dir", tmp_path / "o"
    for name in ("../x.csv", "a/x.csv"):
        code, _, line = ended(infer_video.main, *words, "--export", name)
        assert code == 2 and name in line
    assert not (tmp_path / "x.csv").exists()


def test_a_saliency_json_of_somebody_else(clip, checkpoint, tmp_path):
    (tmp_path / "saliency.json").write_text('{"a": 1}')
    for more in ((), ("--overwrite",)):
        code, _, line = infer(clip, checkpoint, tmp_path, *more)
        assert code == 2 and "not written by infer_video.py" in line
    assert (tmp_path / "saliency.json").read_text() == '{"a": 1}'


@pytest.mark.parametrize("name", ["...mp4", "a\nb.mp4", "a\x1b[31mb.mp4"])
def test_names_that_no_output_can_have(clip, checkpoint, tmp_path, name):
    """The maps of `...mp4`, whose stem is `..`, came to lie beside the output folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    path = shutil.copy(clip, folder / name)
    words = "--video_path", path, clip, "--ckpt_path", checkpoint, "--output_dir", tmp_path / "o/p"
    code, _, line = ended(infer_video.main, *words)
    assert code == 2 and "rename it" in line and "\x1b" not in line
    assert not list((tmp_path / "o").glob("*.*"))
    with pytest.raises(InputError, match="rename it"):
        output_name(path)


def test_control_characters_do_not_reach_the_terminal():
    assert printable("a\x1b[31m\x9bb\tü　") == "a\\x1b[31m\\x9bb\\x09ü　"


def test_a_frame_that_was_replaced(picture_folder, checkpoint, tmp_path):
    """Neither its name nor the number of frames changed: the old maps stayed, and were painted."""
    out = tmp_path / "out"
    assert infer(picture_folder, checkpoint, out)[0] == 0
    assert infer(picture_folder, checkpoint, out)[0] == 0
    Image.fromarray(moving_disc(40, 48, 96)).save(picture_folder / "0005.png")
    assert infer(picture_folder, checkpoint, out)[0] == 2
    assert paint(picture_folder, out, tmp_path / "o.mp4")[0] == 2
    assert infer(picture_folder, checkpoint, out, "--overwrite")[0] == 0
    assert paint(picture_folder, out, tmp_path / "o.mp4")[0] == 0


@pytest.mark.parametrize("wrong", ["nan", "negative", "shape"])
def test_an_export_of_maps_that_were_damaged_afterwards(clip, checkpoint, tmp_path, wrong):
    out, path = tmp_path / "out", tmp_path / "out/sal_0004.npy"
    assert infer(clip, checkpoint, out, "--save_npy")[0] == 0
    saliency = read_array(path)
    saliency[3, 4] = {"nan": np.nan, "negative": -1, "shape": 0}[wrong]
    np.save(path, saliency[1:] if wrong == "shape" else saliency)
    for name in ("x.csv", "x.npz", "x.npy", "x.bin"):
        code, _, line = infer(clip, checkpoint, out, "--save_npy", "--export", tmp_path / name)
        assert code == 2 and "sal_0004.npy" in line and not list(tmp_path.glob("x*"))


@pytest.mark.parametrize("ending", [".png", ".npy"])
def test_a_map_without_content_after_a_power_cut(clip, checkpoint, tmp_path, ending):
    out = tmp_path / "out"
    assert infer(clip, checkpoint, out, "--save_npy")[0] == 0
    whole = map_files(out)
    (out / f"sal_0007{ending}").write_bytes(b"")
    assert infer(clip, checkpoint, out, "--save_npy", "--export", tmp_path / "x.csv")[0] == 0
    assert map_files(out) == whole


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of Unix")
def test_the_terminal_is_closed(tmp_path):
    """SIGHUP left a partial file; nohup, which ignores it, goes on."""
    output = tmp_path / "scene.mp4"
    process = start("-m", "prepare.synthetic", "--video", output, "--frames", 100_000)
    while process.poll() is None and not list(tmp_path.glob(".*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"fps": 10**400},
        {"peaks": [10**400] * 23},
        {"peaks": [True] * 23},
        {"times": [10**400] * 23},
        {"frame_count": 10**400},
        {"unreadable": ["a", None, {}]},
        {"video": "\x1b[2J"},
    ],
    ids=str,
)
def test_numbers_without_end_in_saliency_json(clip, checkpoint, tmp_path, change):
    out = tmp_path / "out"
    assert infer(clip, checkpoint, out)[0] == 0
    (out / "saliency.json").write_text(json.dumps(read_record(out) | change))
    for found in (
        paint(clip, out, tmp_path / "o.mp4"),
        infer(clip, checkpoint, out, "--export", tmp_path / "x.csv"),
    ):
        assert found[0] in (0, 2) and "\x1b" not in found[2]


def test_a_terminal_that_knows_ascii_alone(clip, checkpoint, tmp_path):
    """A traceback came after all maps were written."""
    folder = tmp_path / "ünï"
    words = ("--video_path", clip, "--ckpt_path", checkpoint, "--output_dir", folder)
    command = [sys.executable, ROOT / "infer_video.py", *map(str, words)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert b"\\xfcn\\xef" in done.stdout


def test_an_output_folder_that_leads_to_itself(clip, checkpoint, tmp_path):
    os.symlink(tmp_path / "b", tmp_path / "a")
    os.symlink(tmp_path / "a", tmp_path / "b")
    for found in (
        infer(clip, checkpoint, tmp_path / "a/out"),
        infer(clip, checkpoint, tmp_path / "a"),
        ended(make_video.main, "--original_video", clip, "--saliency_dir", tmp_path / "a"),
    ):
        assert found[0] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"width": 8192, "height": 4096}},
        {"spec": {"width": 1, "height": 1}},
        {"spec": {"motion": "none"}},
        {"spec": {"motion": "dis"}},
        {"arguments": {"width": 8192, "height": 4096}},
        {"arguments": {"width": 8192, "height": 256}},
        {"arguments": {"face_size": 8192}},
        {"run": {"loss": torch.zeros(3)}},
        {"run": {"epochs": torch.zeros(3, 3)}},
    ],
    ids=str,
)
def test_a_checkpoint_that_contradicts_itself(checkpoint, tmp_path, change):
    """Some took half a minute and gigabytes, others ended in a traceback at the first frame."""
    content, begun = torch.load(checkpoint, weights_only=True), time.monotonic()
    for entry, values in change.items():
        content[entry] = content.get(entry, {}) | values
    torch.save(content, tmp_path / "wrong.pth")
    with pytest.raises(InputError, match="wrong.pth: "):
        load(tmp_path / "wrong.pth")
    assert time.monotonic() - begun < 5


def test_weights_without_numbers(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["weights"] = {n: t.to("meta") for n, t in content["weights"].items()}
    torch.save(content, tmp_path / "meta.pth")
    with pytest.raises(InputError, match="meta.pth: "):
        load(tmp_path / "meta.pth")
