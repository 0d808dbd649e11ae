"""Hostile files, names and surroundings: one line, an exit code, nothing of the user's lost."""

import csv
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import infer_video
import make_video
import models
from common.errors import InputError
from common.files import OUTPUT_RECORD, atomic, output_name, protected, read_array, read_json
from common.restricted_pickle import containers, read_pickle
from datasets.gaze_files import read_vinfo
from maps.folder import MapFolder
from models import export_onnx
from models.checkpoint import load
from prepare import recordings
from tests.clips import frame_times, moving_disc, write_data_set, write_varying_video, write_video
from tests.commands import (
    ROOT,
    ended,
    evaluate,
    infer,
    map_files,
    paint,
    read_record,
    refusal,
    start,
    success,
)  # fmt: skip
from video import writer
from video.decoding import Damage, decode, probe
from video.layout import Layout
from video.spherical_metadata import panorama_xmp, write_spherical
from video.yuv import mono, to_yuv420p
from views.viewer import pack

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


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&- <&-"])
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


def test_an_output_that_was_an_input(clip, tmp_path, still_maps):
    """Exports replaced the clip, the checkpoint and maps, with exit code 0."""
    own = shutil.copy(clip, tmp_path / "own.csv")  # a film is known by its content
    network = tmp_path / "network.npy"
    models.save(network, models.EquatorPrior(10, 20))
    os.symlink(own, tmp_path / "link.csv")
    out = tmp_path / "out"
    before = {path: Path(path).read_bytes() for path in (own, network)}
    for export in (own, network, tmp_path / "link.csv"):
        code, _, line = infer(own, network, out, "--export", export)
        assert code == 2 and "would be replaced" in line and Path(export).name in line
    assert infer(own, network, out, "--save_npy", "--overwrite")[0] == 0
    maps = map_files(out)
    assert infer(own, network, out, "--save_npy", "--export", out / "sal_0001.npy")[0] == 2
    os.link(network, tmp_path / "network.onnx")
    assert ended(export_onnx.main, network, tmp_path / "network.onnx")[0] == 2
    still, folder = still_maps
    refusal(paint(still, folder, folder / "sal_0001.png"), "would be replaced")
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
        refusal(ended(infer_video.main, *words, "--export", name), name)
    assert not (tmp_path / "x.csv").exists()


def test_a_saliency_json_of_somebody_else(clip, checkpoint, tmp_path):
    (tmp_path / "saliency.json").write_text('{"a": 1}')
    for more in ((), ("--overwrite",)):
        refusal(infer(clip, checkpoint, tmp_path, *more), "not written by infer_video.py")
    assert (tmp_path / "saliency.json").read_text() == '{"a": 1}'


@pytest.mark.parametrize("name", ["...mp4", "a\nb.mp4", "a\x1b[31mb.mp4"])
def test_names_that_no_output_can_have(clip, checkpoint, tmp_path, name):
    """The maps of `...mp4`, whose stem is `..`, came to lie beside the output folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    path = shutil.copy(clip, folder / name)
    words = "--video_path", path, clip, "--ckpt_path", checkpoint, "--output_dir", tmp_path / "o/p"
    assert "\x1b" not in refusal(ended(infer_video.main, *words), "rename it")
    assert not list((tmp_path / "o").glob("*.*"))
    with pytest.raises(InputError, match="rename it"):
        output_name(path)


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
    for name in ("x.csv", "x.npz", "x.npy"):
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


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of Unix")
def test_the_terminal_is_closed(tmp_path):
    """SIGHUP left a partial file; nohup, which ignores it, goes on."""
    output = tmp_path / "scene.mp4"
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # else ignored, if nohup runs the tests
    process = start("-m", "prepare.synthetic", "--video", output, "--frames", 100_000)
    signal.signal(signal.SIGHUP, before)
    while process.poll() is None and not list(tmp_path.glob(".*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [
    {"fps": 10**400},
    {"peaks": [10**400] * 23},
    {"peaks": [True] * 23},
    {"times": [10**400] * 23},
    {"frame_count": 10**400},
    {"unreadable": ["a", None, {}]},
    {"video": "\x1b[2J"},
], ids=str)  # fmt: skip
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


@pytest.mark.parametrize("change", [
    {"spec": {"width": 8192, "height": 4096}},
    {"spec": {"width": 1, "height": 1}},
    {"spec": {"motion": "none"}},
    {"spec": {"motion": "dis"}},
    {"arguments": {"width": 8192, "height": 4096}},
    {"arguments": {"width": 8192, "height": 256}},
    {"arguments": {"face_size": 8192}},
    {"run": {"loss": torch.zeros(3)}},
    {"run": {"epochs": torch.zeros(3, 3)}},
], ids=str)  # fmt: skip
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


# Videos and what is made of them.


@pytest.mark.parametrize("coverage", [(0, 1, 0, 1), (0, 1, -90, 90), (-180, 180, 0, 1)], ids=str)
@pytest.mark.parametrize("mode", ["--viewer", "--follow"])
def test_a_sliver_of_the_sphere(checkpoint, tmp_path, coverage, mode):
    """A whole panorama at its scale was built: 6.7 GB, then an error of OpenCV."""
    clip = write_video(tmp_path / "clip.mp4", frames=3)
    out, video = tmp_path / "out", tmp_path / ("o.html" if mode == "--viewer" else "o.mp4")
    assert infer(clip, checkpoint, out, "--coverage", *coverage)[0] == 0
    assert paint(clip, out, video, mode)[0] == 0
    assert 1000 < video.stat().st_size < 10_000_000
    layout, frame = Layout("none", coverage), av.VideoFrame(3840, 2160, "yuv420p")
    rows, columns = mono(to_yuv420p(frame), layout).shape
    assert rows * 2 // 3 <= 2048 and columns <= 4096


def test_a_video_of_no_pictures(clip, tmp_path):
    with pytest.raises(InputError, match="has no usable picture"):
        writer.write_video(tmp_path / "o.mp4", probe(clip), [])
    assert list(tmp_path.glob("o*")) == []


def test_a_page_is_never_too_tall_for_the_encoder():
    picture = av.VideoFrame(64, 15_000, "yuv420p")
    packed = pack(picture, np.zeros((24, 48), np.uint8), 1920)
    assert len(packed) * 2 // 3 <= 8192 + 240


@pytest.mark.parametrize("place", ["end", "before", "moov", "stbl"])
def test_an_index_of_empty_boxes(clip, tmp_path, place):
    """Eight million took FFmpeg and us more than a minute."""
    content, empty = clip.read_bytes(), struct.pack(">I4s", 8, b"free") * 1_000_000
    boxes = {"moov": [b"moov"], "stbl": [b"moov", b"trak", b"mdia", b"minf", b"stbl"]}
    start = len(content) if place == "end" else content.index(b"moov") - 4
    for kind in boxes.get(place, ()):
        at = content.index(kind) - 4
        size = struct.unpack_from(">I", content, at)[0]
        start, longer = at + size, struct.pack(">I", size + len(empty))
        content = content[:at] + longer + content[at + 4 :]
    path, begun = tmp_path / "a.mp4", time.monotonic()
    path.write_bytes(content[:start] + empty + content[start:])
    with pytest.raises(InputError, match="a.mp4: .*too many boxes"):
        probe(path)
    assert time.monotonic() - begun < 5


def test_an_index_that_is_searched_for_ever(clip, tmp_path):
    """Words of the metadata, again and again, were searched with steps for each pair of them."""
    content, path, begun = clip.read_bytes(), tmp_path / "a.mp4", time.monotonic()
    at = content.index(b"moov") - 4
    end = at + struct.unpack_from(">I", content, at)[0]
    words = b"sv3dproj" * 500_000 + b"GSpherical:a=>" * 500_000
    words = struct.pack(">I4s", len(words) + 8, b"free") + words
    longer = struct.pack(">I", end - at + len(words))
    path.write_bytes(content[:at] + longer + content[at + 4 : end] + words + content[end:])
    probe(path)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("damage", ["cut", "zeros", "sizes", "nothing"])
def test_marking_a_damaged_file_as_360_degrees(clip, tmp_path, damage):
    """A traceback, or a loop without end for a box without a size."""
    content, path = bytearray(clip.read_bytes()), tmp_path / "a.mp4"
    at = content.index(b"mdia")
    if damage == "cut":
        del content[at + 100 :]
    elif damage == "zeros":
        content[at - 4 : at] = bytes(4)
    elif damage == "sizes":
        content[at - 4 : at] = b"\xff" * 4
    else:
        content = bytearray(b"nothing of a film")
    path.write_bytes(content)
    with pytest.raises(InputError, match="a.mp4: .*make it again"):
        write_spherical(path)
    assert path.read_bytes() == content and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("mode", ["--viewer", "--follow", "--side_by_side"])
def test_a_clock_that_jumps(checkpoint, tmp_path, mode):
    """PatchWelcomeError, or, without a word, frames shown for a thousandth of a second."""
    times = [n / 30 + 1e6 * (n > 5) for n in range(12)]
    path = write_varying_video(tmp_path / "jump.mkv", times)
    assert infer(path, checkpoint, tmp_path / "out")[0] == 0
    output = tmp_path / ("o.html" if mode == "--viewer" else "o.mp4")
    refusal(paint(path, tmp_path / "out", output, mode), "jump.mkv: its clock jumps by 1,000,000 s")
    assert not list(tmp_path.glob("*o.*"))


def test_a_pause_of_minutes_is_kept(checkpoint, tmp_path):
    times = [n / 30 + 900 * (n > 5) for n in range(12)]
    path = write_varying_video(tmp_path / "pause.mkv", times)
    assert infer(path, checkpoint, tmp_path / "out")[0] == 0
    assert paint(path, tmp_path / "out", tmp_path / "o.mp4")[0] == 0
    assert np.abs(np.array(frame_times(tmp_path / "o.mp4")) - times).max() < 0.01


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_names_that_are_not_utf_8(clip, checkpoint, tmp_path):
    folder = tmp_path / os.fsdecode(b"m\xff")
    path = shutil.copy(clip, tmp_path / os.fsdecode(b"\xfe.mp4"))
    assert infer(path, checkpoint, folder, "--export", tmp_path / os.fsdecode(b"\xfd.csv"))[0] == 0
    for name, *more in ((b"o\xff.html", "--viewer"), (b"f\xff.mp4", "--follow"), (b"o\xff.mp4",)):
        output = tmp_path / os.fsdecode(name)
        assert paint(path, folder, output, *more)[0] == 0 and output.stat().st_size > 1000
    (page,) = tmp_path.glob("*.html")
    assert "<title>?.mp4</title>" in page.read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_clips_that_a_spreadsheet_would_run(checkpoint, tmp_path):
    """Nor do names that are not UTF-8 end an evaluation."""
    names = ["=1+1", "+1", "-1", "@a", os.fsdecode(b"\xff"), "b"]
    write_data_set(tmp_path / "data", names, range(1, 3), train=["b"], val=["b"], test=names)
    words = "--ckpt_path", checkpoint, "--report"
    success(evaluate(tmp_path / "data", tmp_path / "out", *words))
    with open(tmp_path / "out/metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert {row[0] for row in rows} == {"'=1+1", "'+1", "'-1", "'@a", "?", "b"}
    assert all(float(cell) <= 1 for row in rows for cell in row[3:4])
    assert read_json(tmp_path / "out/metrics.json")["clips"].keys() == set(names)


@pytest.mark.parametrize("angle", ["nan", "inf", "-inf", "1e9", "33000"])
def test_an_impossible_pose_of_a_picture(checkpoint, tmp_path, angle):
    path, layout = tmp_path / "a.jpg", Layout(pose=(0, 30, 0))
    xmp = panorama_xmp(24, 48, layout).replace('"30"', f'"{angle}"').encode()
    Image.fromarray(moving_disc(1, 24, 48)).save(path, xmp=xmp)
    assert probe(path).layout.pose == (0, 0, 0)
    assert infer(path, checkpoint, tmp_path / "out")[0] == 0
    for name in ("o.png", "o.jpg", "o.html", "o.mp4"):
        assert paint(path, tmp_path / "out", tmp_path / name)[0] == 0


@pytest.mark.parametrize("lost", [slice(5, 6), slice(0, 1), slice(0, 12)], ids=str)
@pytest.mark.parametrize("mode", ["--viewer", "--follow", "--side_by_side"])
def test_frames_that_vanish_while_a_video_is_made(
    picture_folder, checkpoint, tmp_path, monkeypatch, mode, lost
):
    out, output = tmp_path / "out", tmp_path / ("o.html" if mode == "--viewer" else "o.mp4")
    assert infer(picture_folder, checkpoint, out)[0] == 0

    find = MapFolder.find

    def vanish(*arguments):
        found = find(*arguments)
        for path in sorted(picture_folder.iterdir())[lost]:
            path.unlink()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(MapFolder, "find", vanish)
        code, _, line = paint(picture_folder, out, output, mode)
    assert code in (1, 2) and (
        "0001.png" in line or "0006.png" in line or "has no usable picture" in line
    )
    assert output.exists() == (lost.stop != 12)


@pytest.mark.slow
def test_a_viewer_that_was_killed_leaves_nothing_in_the_end(clip, checkpoint, tmp_path):
    """Each one that was killed left a folder of its own for ever."""
    out, folder = tmp_path / "out", tmp_path / "pages"
    assert infer(clip, checkpoint, out)[0] == 0
    words = ("--original_video", clip, "--saliency_dir", out, "--output_path", folder / "o.html")
    left = []
    for _ in range(2):
        process = start("make_video.py", *words)
        while process.poll() is None and not list(folder.glob(".*clip")):
            time.sleep(0.002)
        process.kill()
        process.wait()
        left.append(sorted(path.name for path in folder.iterdir()))
    assert left[0] == left[1] and len(left[0]) == 1
    assert paint(clip, out, folder / "o.html")[0] == 0
    assert {path.name for path in folder.iterdir()} == {"o.html", OUTPUT_RECORD}


def test_a_title_that_is_a_template(clip, checkpoint, tmp_path):
    """The facts came into the title, as JSON."""
    name = "{{facts}}\"'{{clip}}<b>.mp4"
    path = shutil.copy(clip, tmp_path / name)
    assert infer(path, checkpoint, tmp_path / "out")[0] == 0
    assert paint(path, tmp_path / "out", tmp_path / "o.html")[0] == 0
    page = (tmp_path / "o.html").read_text()
    assert page.count("mapRows&quot;") == 0
    title = "{{facts}}&quot;&#x27;{{clip}}&lt;b&gt;.mp4"
    assert f"<title>{title}</title>" in page and f'aria-label="{title}"' in page


def test_a_clip_that_has_the_name_of_the_folder_of_outputs(clip, checkpoint, tmp_path, monkeypatch):
    """The error was that its maps' folder is no directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, "outputs")
    for main, option in ((infer_video.main, "--video_path"), (make_video.main, "--original_video")):
        code, _, line = ended(main, option, "outputs")
        assert code == 2 and "outputs: a file, but results go into a folder of this name" in line
    assert infer("outputs", checkpoint, "maps")[0] == 0


def test_a_recording_whose_name_is_no_name(clip, tmp_path):
    """It was left out without a word."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp4", "...mp4"):
        shutil.copy(clip, folder / name)
        table = "time,longitude,latitude,observer\n0.1,3,4,x\n"
        folder.joinpath(name).with_suffix(".csv").write_text(table)
    for videos in (folder, folder / "...mp4"):
        gaze = videos.with_suffix(".csv") if videos.suffix else videos
        words = "--videos", videos, "--gaze", gaze, "--output", tmp_path / "data"
        refusal(ended(recordings.main, *words), "rename it")


def test_packets_that_the_container_finds_damaged(tmp_path):
    """Continuity counters of a transport stream tell what its decoder does not."""
    path = write_video(tmp_path / "a.ts", 60)
    whole = Damage()
    assert len(list(decode(probe(path), whole))) == 60 and not str(whole)
    content, damage = path.read_bytes(), Damage()
    middle = len(content) // 376 * 188
    path.write_bytes(content[:middle] + content[middle + 188 :])  # a packet is missing
    list(decode(probe(path), damage))
    assert "the decoder reports" in str(damage)


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_and_memory_does_not_grow():
    """A bounded sample of `make fuzz`, in a process of its own, since it forks."""
    command = [sys.executable, "-m", "tests.fuzz", "--count", "150", "--hours", "0.1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(".")]
    for kind in ("read", "refused"):
        assert sum(int(number) for _, found, number in rows if found == kind) > 25
