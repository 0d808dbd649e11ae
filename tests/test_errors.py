"""Starting and ending of every command: options, help, one-line errors, signals, files, locks."""

import errno
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import evaluate_video
import infer_video
import make_video
import train_video
from common import errors
from common.errors import InputError, explain
from common.files import atomic, read_array, read_json
from common.locks import lock
from prepare import pack, synthetic
from recipes import front
from tests.clips import write_data_set, write_eccv_clip
from tests.commands import ROOT, ended, evaluate, infer, paint, start, train_one_epoch
from tests.trainings import TINY
from video.motion import MOTIONS
from video.pictures import read_picture


@pytest.mark.parametrize("script", [train_video, infer_video, make_video, evaluate_video])
def test_help_states_defaults(script):
    code, text, _ = ended(script.main, "--help")
    assert code == 0 and "default:" in text
    for nothing in ("None", "False", "[]"):
        assert f"default: {nothing}" not in text


def test_help_shows_the_column_of_the_model():
    text = ended(train_video.main, "--help", "--model", "sst_sal")[1]
    assert "peak learning rate (default: 0.8)" in " ".join(text.split())


def test_help_shows_a_default_of_zero():
    """0 equals False, which once hid it."""
    text = " ".join(ended(train_video.main, "--help")[1].split())
    for shown in ("augmentation (default: 0)", "no average (default: 0.0)", "clips (default: 0)"):
        assert shown in text


@pytest.mark.parametrize("given, found", [
    ({}, "PASSIVE 2000"),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
    ({"GOMP_SPINCOUNT": "9"}, "None 9"),
])  # fmt: skip
def test_threads_soon_sleep_unless_the_user_says_otherwise(given, found):
    """Active waiting made the network four times slower beside another busy program."""
    names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    environment = {name: v for name, v in os.environ.items() if name not in names} | given
    program = f"import os; from common import startup; print(*map(os.environ.get, {names}))"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.stdout.strip() == found


@pytest.mark.parametrize("script", ["infer_video", "make_video", "evaluate_video", "train_video"])
def test_help_needs_no_slow_import(script):
    code = f"""
import runpy, sys
sys.argv = ["{script}.py", "--help"]
try:
    runpy.run_path("{script}.py", run_name="__main__")
except SystemExit:
    print(sorted({{"torch", "cv2", "av"}} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
    wrong = [sys.executable, f"{script}.py", "--sampling", "none", "--scale", "none"]
    result = subprocess.run(wrong, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("error:") == 1


NEEDED = {
    "train_video.py": "--data_root",
    "infer_video.py": "--video_path",
    "make_video.py": "--original_video",
    "evaluate_video.py": "--data_root",
}


@pytest.mark.parametrize("script, option", NEEDED.items())
def test_a_missing_package_is_one_line(script, option, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('none', name='torch')")
    done = subprocess.run([sys.executable, script, option, "."], cwd=ROOT, capture_output=True,
        text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)})  # fmt: skip
    assert done.returncode == 1
    how = f"pip install -r {ROOT / 'requirements.txt'}"
    assert done.stderr == f"{script}: the package 'torch' is missing; run {how}\n"


@pytest.mark.parametrize("script", [infer_video, evaluate_video])
def test_options_name_what_the_libraries_have(script):
    """Their names stand in the scripts, which read options before they import the libraries."""
    shown = ended(script.main, "--help")[1]
    assert f":{','.join(MOTIONS)}orpackage.module:Class" in "".join(shown.split())


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
def test_places_where_nothing_can_be_written(clip, checkpoint, tmp_path, data_root, where):
    maps = tmp_path / "maps"
    assert infer(clip, checkpoint, maps)[0] == 0
    for found in (
        infer(clip, checkpoint, where),
        paint(clip, maps, f"{where}/o.mp4"),
        paint(clip, maps, f"{where}.mp4"),
        train_one_epoch(data_root, where),
        ended(front.main, checkpoint, f"{where}/a.pth"),
        ended(synthetic.main, "--video", f"{where}/a.mp4", "--frames", 1),
        ended(synthetic.main, "--output", where, "--clips", 1),
    ):
        assert found[0] in (1, 2)
        assert Path(where).name in found[2] or str(Path(where).parent) in found[2]


def test_output_that_nobody_reads():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(ROOT / "infer_video.py"), "--help"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    streams = {"stdout": write, "stderr": subprocess.PIPE}
    result = subprocess.run(command, **streams, text=True, env=environment)
    os.close(write)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("infer_video.py: output: Broken pipe")


@pytest.mark.parametrize("main, words", [
    (synthetic.main, ("--fps", "nan")),
    (synthetic.main, ("--fps", "inf")),
    (train_video.main, ("--lr", "nan")),
    (train_video.main, ("--ema", "nan")),
    (make_video.main, ("--alpha", "nan", "--original_video", "a")),
    (evaluate_video.main, ("--sigma", "nan")),
    (synthetic.main, ("--seed", -1)),
    (synthetic.main, ("--height", 10**9)),
    (synthetic.main, ("--clips", 10**12)),
    (synthetic.main, ("--workers", 100_000)),
    (pack.main, ("--workers", 100_000)),
    (train_video.main, ("--workers", 100_000)),
    (train_video.main, ("--samples", 10**12)),
    (train_video.main, ("--batch_size", 10**9)),
    (train_video.main, ("--seed", -1)),
    (train_video.main, ("--seed", 10**30)),
    (train_video.main, ("--epochs", 10**12)),
])  # fmt: skip
def test_numbers_beyond_reason(main, words):
    assert ended(main, *words)[0] == 2


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_pipes(clip, checkpoint, tmp_path, data_root, pipe):
    """They hung the run for ever, as pictures, maps or named by a playlist."""

    def alarm(*_):
        raise AssertionError("it hangs")

    signal.signal(signal.SIGALRM, alarm)
    signal.alarm(60)
    maps = tmp_path / "maps"
    assert infer(clip, checkpoint, maps)[0] == 0
    stills = write_eccv_clip(tmp_path / "stills")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{pipe}\n")
    for path in (
        maps / "sal_0003.png",
        stills / "0002.jpg",
        stills / "0003.jpg",
        data_root / "b/0002_gt.npy",
        *(tmp_path / f"a.{end}" for end in ("mp4", "npy", "pth", "json")),
    ):
        path.unlink(missing_ok=True)
        os.symlink(pipe, path)
    assert infer(pipe, checkpoint, tmp_path / "o1")[0] == 2
    assert infer(tmp_path / "a.mp4", checkpoint, tmp_path / "o2")[0] == 2
    assert infer(tmp_path / "list.m3u8", checkpoint, tmp_path / "o3")[0] == 2
    assert infer(clip, tmp_path / "a.pth", tmp_path / "o4")[0] == 2
    assert infer(stills, checkpoint, tmp_path / "o5")[0] == 1
    assert paint(clip, maps, tmp_path / "o.mp4")[0] == 2
    assert evaluate(data_root, tmp_path / "scores", "--ckpt_path", checkpoint)[0] == 0
    for reader in (read_array, read_json, read_picture):
        with pytest.raises(InputError, match="a pipe or a device"):
            reader(tmp_path / "a.npy")
    signal.alarm(0)


@pytest.mark.parametrize("words", [("infer_video.py",), ("-m", "prepare.pack")])
def test_ctrl_c_during_the_imports(words):
    process = start(*words, "--help")
    while process.poll() is None and "numpy" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate()[1]


def fails() -> None:
    {}["an entry that is always there"]


def test_an_unexpected_error_is_one_line(monkeypatch):
    code, _, line = ended(fails)
    assert code == 1 and "KeyError in test_errors.py" in line and "SALIENCY_TRACEBACK=1" in line
    monkeypatch.setenv("SALIENCY_TRACEBACK", "1")
    with pytest.raises(KeyError):
        ended(fails)


def test_an_unexpected_error_in_code_of_the_user_is_shown_at_once(monkeypatch):
    monkeypatch.setattr(errors, "_own_code", False)
    errors.show_tracebacks()
    with pytest.raises(KeyError):
        ended(fails)


def test_an_unexpected_error_in_one_of_several_files(monkeypatch):
    monkeypatch.setattr(errors, "_own_code", False)
    failures = errors.Failures()
    with failures.collected(Path("a.mp4")):
        fails()
    with pytest.raises(errors.RunError, match="1 of 2 .*a.mp4: KeyError"):
        failures.report(2)
    with pytest.raises(OSError), failures.collected(Path("b.mp4")):
        raise OSError(errno.ENOSPC, "No space left on device")


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
