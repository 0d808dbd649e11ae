"""Decoding, network and writing beside each other: same results, bounded, and they end together."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import infer_video
import models
from maps import exports
from metrics.protocol import Protocol
from tests.clips import moving_disc, write_video
from tests.commands import ended
from video import writer
from video.ahead import ahead, behind
from video.decoding import decode, probe
from video.layout import Layout
from video.motion import MOTIONS
from video.reader import read_frames

ROOT = Path(__file__).resolve().parents[1]


def counting(items, taken, fail_at=None):
    for item in items:
        if item == fail_at:
            raise OSError(f"no {item}")
        taken.append(item)
        yield item


def test_items_come_in_order_and_at_most_a_few_ahead():
    taken, seen, lead = [], [], 0
    for item in ahead(counting(range(50), taken), most=3):
        time.sleep(0.002 * (item % 7 == 0))
        seen.append(item)
        lead = max(lead, len(taken) - len(seen))
    assert seen == list(range(50)) and 0 < lead <= 3
    assert list(ahead([])) == []


def test_an_error_comes_at_its_place_and_ends_the_thread():
    seen, before = [], threading.active_count()
    with pytest.raises(OSError, match="no 5"):
        for item in ahead(counting(range(9), [], fail_at=5)):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4] and threading.active_count() == before


def test_a_loop_that_is_left_ends_the_thread():
    taken, before = [], threading.active_count()
    items = ahead(counting(range(10**9), taken), most=2)
    assert next(items) == 0 and threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before and len(taken) <= 4


def test_what_was_taken_is_written_before_an_error_of_the_source_is_raised():
    """The maps up to where a clip is damaged are kept."""
    written, before = [], threading.active_count()
    slow = [lambda n: time.sleep(0.002), written.append]
    with pytest.raises(OSError, match="no 7"):
        list(behind(lambda n: [do(n) for do in slow], counting(range(9), [], fail_at=7)))
    assert written == list(range(7)) and threading.active_count() == before


def test_results_of_writing_come_in_order_and_few_items_wait():
    taken, done, lead = [], [], 0
    for result in behind(lambda n: n * n, counting(range(40), taken), most=4):
        done.append(result)
        lead = max(lead, len(taken) - len(done))
    assert done == [n * n for n in range(40)] and lead <= 4


def test_an_error_of_writing_is_raised_soon():
    taken = []
    with pytest.raises(ZeroDivisionError):
        list(behind(lambda n: 1 / (3 - n), counting(range(1000), taken), most=4))
    assert len(taken) <= 9


@pytest.mark.parametrize("seed", [0, 1])
def test_maps_are_those_of_the_network_frame_by_frame(clip, checkpoint, tmp_path, seed):
    """Twice, since threads that race would not always fail."""
    words = ["--video_path", clip, "--ckpt_path", checkpoint, "--output_dir", tmp_path / "out"]
    assert ended(infer_video.main, *words, "--save_npy", "--precision", "fp32")[0] == 0
    model = models.deploy(models.load(checkpoint))
    for frame, saliency in models.predict(model, list(read_frames(clip, model.spec))):
        written = np.load(tmp_path / f"out/sal_{frame.number:04d}.npy")
        assert np.array_equal(written, saliency[0].numpy())


def test_a_full_disk_in_the_middle_ends_the_run_with_the_maps_before_it(
    clip, checkpoint, tmp_path, monkeypatch
):
    write_map = infer_video.write_map

    def full(path, *rest):
        if path.name == "sal_0012.png":
            raise OSError(28, "No space left on device", str(path))
        return write_map(path, *rest)

    words = ["--video_path", clip, "--ckpt_path", checkpoint, "--output_dir", tmp_path / "out"]
    before = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(infer_video, "write_map", full)
        code, _, line = ended(infer_video.main, *words)
    assert code == 1 and "sal_0012.png: No space left on device" in line
    assert threading.active_count() == before
    assert {f"sal_{n:04d}.png" for n in range(1, 12)} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    assert ended(infer_video.main, *words)[0] == 0
    assert len(list((tmp_path / "out").glob("sal_*.png"))) == 23


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


def test_painting_that_fails_ends_the_encoder_and_its_thread(clip, tmp_path):
    info, before = probe(clip), threading.active_count()

    def pictures():
        for number, frame in enumerate(decode(info)):
            if number == 9:
                raise ValueError("no picture 9")
            yield np.full((72, 96), 16, np.uint8), frame

    with pytest.raises(ValueError, match="no picture 9"):
        writer.write_video(tmp_path / "out.mp4", info, pictures())
    assert threading.active_count() == before


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "yuvj420p", "pal8"])
def test_frames_are_reduced_to_the_colours_that_their_pixels_have_on_average(tmp_path, pix_fmt):
    codec, name = {"pal8": ("png", "clip.mov")}.get(pix_fmt, ("libx264", "clip.mp4"))
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(8), options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 480, 240, pix_fmt
        for n in range(3):
            picture = moving_disc(8 * n, 240, 480)
            if pix_fmt == "pal8":
                picture = picture // 85 * 85  # few colours
                grey = av.VideoFrame.from_ndarray(picture[..., 0], format="gray8")
                table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, 1)
                table[:, 0] = 255
                frame = av.VideoFrame.from_ndarray((grey.to_ndarray(), table), format="pal8")
            else:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    spec = models.Spec(height=40, width=80, fps=8)
    for n, frame in enumerate(read_frames(tmp_path / name, spec)):
        picture = moving_disc(8 * n, 240, 480)
        if pix_fmt == "pal8":
            picture = np.repeat(picture[..., :1] // 85 * 85, 3, 2)
        wanted = picture.reshape(40, 6, 80, 6, 3).mean((1, 3)) / 255
        difference = np.abs(frame.rgb.permute(1, 2, 0).numpy() - wanted)
        assert difference.mean() < 0.01 and np.quantile(difference, 0.97) < 0.04
    assert n == 2


def test_pictures_are_stored_at_the_scale_of_their_panorama():
    assert Layout().stored_size(512, 1024) == (512, 1024)
    assert Layout("top-bottom").stored_size(512, 1024) == (1024, 1024)
    half = (-90.0, 90.0, -90.0, 90.0)
    assert Layout("left-right", half).stored_size(512, 1024) == (512, 1024)
    assert Layout("none", half).stored_size(512, 1024) == (512, 512)
    picture = np.zeros((240, 480, 3), np.uint8)
    layout = Layout("left-right", (-90.0, 90.0, -45.0, 45.0))
    assert layout.panorama(picture[:20, :80], 40, 80).shape == (40, 80, 3)
    assert layout.stored_size(40, 80) == (20, 80)


@pytest.mark.parametrize("script", ["infer_video", "make_video", "evaluate_video"])
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


def test_options_name_what_the_libraries_have(capsys):
    """Their names stand in the scripts, which read options before they import the libraries."""
    assert tuple(exports.KINDS) == infer_video.EXPORTS
    for script, names in (
        ("infer_video", [MOTIONS]),
        ("evaluate_video", [MOTIONS, Protocol.NAMES]),
    ):
        words = [sys.executable, f"{script}.py", "--help"]
        shown = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, env=os.environ
        ).stdout
        for known in names:
            assert "{" + ",".join(known) + "}" in "".join(shown.split())


def test_motion_is_computed_in_float32_beside_a_network_in_bfloat16(clip, checkpoint, monkeypatch):
    """Mixed precision holds in the network's thread; motion was rounded to bfloat16 like it."""
    model, seen = models.load(checkpoint), []
    with torch.autocast("cpu", torch.bfloat16):
        for frame, _ in models.predict(model, ahead(read_frames(clip, model.spec))):
            seen.append(frame.motion)
    wanted = [frame.motion for frame in read_frames(clip, model.spec)]
    assert all(map(torch.equal, seen, wanted)) and seen[1].max() > 0
