"""Files of every kind: locks, partial files, arrays and JSON that are none."""

import errno
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

import evaluate_video
import train_video
from common.errors import InputError, explain
from common.files import atomic, read_array
from common.locks import lock
from prepare import pack
from tests.clips import write_data_set
from tests.commands import ROOT, ended, evaluate, infer, paint, train_one_epoch
from tests.trainings import TINY

PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n"


def test_two_runs_into_one_folder(clip, checkpoint, tmp_path):
    """They mixed their maps. The lock is released with the process that has it, however it ends."""
    out, hold = tmp_path / "out", "with lock(Path(argv[1])): print('locked', flush=True), input()"
    code = f"from pathlib import Path; from sys import argv; from common.locks import lock\n{hold}"
    pipes = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen([sys.executable, "-c", code, out], **pipes)
    assert other.stdout.readline() == b"locked\n"
    write_data_set(tmp_path / "data")
    training = ("--data_root", tmp_path / "data", "--output_dir", out, "--workers", 0, *TINY)
    scoring = ("--data_root", tmp_path / "data", "--split", "val", "--output_dir", out)
    for found in (
        infer(clip, checkpoint, out),
        ended(train_video.main, *training),
        ended(evaluate_video.main, *scoring, "--ckpt_path", checkpoint),
    ):
        assert found[0] == 2 and "another run is writing to this folder" in found[2]
    other.kill()
    other.communicate()
    assert infer(clip, checkpoint, out)[0] == 0


def test_a_run_that_fails_leaves_the_folders_as_they_were(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new"):
        with pytest.raises(ValueError), lock(tmp_path / name):
            raise ValueError
    assert (tmp_path / "empty").exists() and not (tmp_path / "new").exists()


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
def test_json_that_is_no_object(clip, checkpoint, tmp_path, data_root, text):
    out, small = tmp_path / "out", tmp_path / "small"
    size = "--height", 8, "--width", 16
    packing = pack.main, "--data_root", data_root, "--output", small, *size
    assert infer(clip, checkpoint, out)[0] == 0 and ended(*packing)[0] == 0
    for folder, name in ((out, "saliency"), (data_root, "splits"), (small / "a", "prepared")):
        (folder / f"{name}.json").write_bytes(text)
    for found in (
        infer(clip, checkpoint, out),
        infer(clip, checkpoint, out, "--overwrite"),
        paint(clip, out, tmp_path / "o.mp4"),
        train_one_epoch(data_root, tmp_path / "run"),
        evaluate(data_root, tmp_path / "scores", "--ckpt_path", checkpoint),
    ):
        assert found[0] == 2 and ".json: " in found[2]
    (data_root / "splits.json").write_text('{"train": ["a"], "val": ["b"]}')
    found = ended(*packing)
    assert found[0] == 2 and "prepared.json: " in found[2]


def header(text, version=1):
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin-1")


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
def test_npy_files_that_are_no_arrays(data_root, checkpoint, tmp_path, content):
    path = data_root / "b/0002_gt.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match="0002_gt.npy"):
        read_array(path)
    code, printed, text = evaluate(data_root, tmp_path / "scores", "--ckpt_path", checkpoint)
    assert code == 0 and "1 × unusable ground truth" in printed


def test_an_npz_that_is_called_npy(data_root, checkpoint, tmp_path):
    with open(data_root / "b/0002_gt.npy", "wb") as file:
        np.savez(file, a=np.zeros((2, 4)))
    code, printed, _ = evaluate(data_root, tmp_path / "scores", "--ckpt_path", checkpoint)
    assert code == 0 and "1 × unusable ground truth" in printed


@pytest.mark.parametrize("number, file, where, cure", [
    (errno.EIO, "input.png", "input.png", "check its disk or connection"),
    (errno.EACCES, "input.png", "input.png", "check the path"),
    (errno.ENOSPC, "input.png", "output.json", "free space there"),  # as shutil.copyfile names it
    (errno.ENOSPC, None, "output.json", "free space there"),
    (errno.EACCES, "temporary", "output.json", "check the path"),
])  # fmt: skip
def test_an_unreadable_input_is_not_reported_as_the_output(tmp_path, number, file, where, cure):
    with pytest.raises(OSError) as caught, atomic(tmp_path / "output.json") as temporary:
        named = {"input.png": tmp_path / "input.png", "temporary": temporary}.get(file)
        raise OSError(number, os.strerror(number), named and str(named))
    text = f"{tmp_path / where}: {os.strerror(number)}; {cure}"
    assert explain(caught.value)[0].startswith(text)
    assert not [*tmp_path.iterdir()]


def test_a_write_replaces_what_a_killed_one_left(tmp_path):
    for content in ("{}", "[]"):
        with atomic(tmp_path / "a.json") as temporary:
            temporary.write_text(content)
        temporary.write_text("what a killed process left")
    with atomic(tmp_path / "a.json") as again:
        again.write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
