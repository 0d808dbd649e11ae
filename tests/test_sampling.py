"""The reader: which frames of videos and folders are sampled, at which rate and size."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

import models
from common.errors import InputError
from models import Spec
from tests.clips import frame_times, moving_disc, write_eccv_clip, write_varying_video, write_video
from tests.commands import infer, paint, read_record, refusal
from video import read_frames
from video.decoding import probe

SPEC = Spec(height=24, width=48, fps=8.0, motion="difference")


def test_frames_are_sampled_at_the_specs_rate(tmp_path):
    reader = read_frames(write_video(tmp_path / "a.mp4", frames=24, fps=30), SPEC)
    frames = list(reader)
    assert len(reader.times) == 24
    assert [f.number for f in frames] == [1, 5, 9, 13, 17, 21]  # round(30 / 8) = 4
    assert [f.seconds for f in frames] == pytest.approx([n / 30 for n in range(0, 24, 4)])
    for frame in frames:
        assert frame.rgb.shape == (3, 24, 48)
        assert frame.rgb.min() >= 0
        assert frame.rgb.max() <= 1


def test_motion_is_the_difference_of_sampled_frames(tmp_path):
    for n in range(4):
        Image.fromarray(moving_disc(5 * n, 24, 48)).save(tmp_path / f"{n + 1:04d}.png")
    frames = list(read_frames(tmp_path, SPEC))
    assert frames[0].motion.abs().max() == 0
    for before, after in zip(frames, frames[1:]):
        weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
        grey = [(f.rgb * weights).sum(0, keepdim=True) for f in (before, after)]
        torch.testing.assert_close(after.motion, (grey[1] - grey[0]).abs())


def test_folders_are_read_in_the_order_of_their_numbers(tmp_path):
    for n in (2, 10, 1):
        Image.new("RGB", (8, 4), (n, 0, 0)).save(tmp_path / f"frame{n}.png")
    (tmp_path / "0001_gt.npy").touch()
    frames = list(read_frames(tmp_path, SPEC))
    assert [round(f.rgb[0].mean().item() * 255) for f in frames] == [1, 2, 10]
    assert probe(tmp_path).frames == 3


def test_memory_does_not_hold_the_clip(tmp_path):
    reader = read_frames(write_video(tmp_path / "a.mp4", frames=60), SPEC)
    next(reader)
    assert len(reader.times) == 4  # up to the next sampled one


def bad_sources(folder):
    whole = write_video(folder / "whole.mp4", frames=60)
    (folder / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    stream = write_video(folder / "whole.mkv", frames=60).read_bytes()
    (folder / "cut.mkv").write_bytes(stream[: len(stream) // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video")
    (folder / "nothing").mkdir()
    (folder / "cut.jpg").write_bytes(b"")
    Image.fromarray(moving_disc(0, 64, 128)).save(folder / "whole.jpg")
    (folder / "half.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:900])
    names = ("missing.mp4", "cut.mp4", "cut.mkv", "empty.mp4", "text.mp4", "nothing", "cut.jpg")
    return [*names, "half.jpg"]


def test_bad_sources_are_named_with_the_next_step(tmp_path):
    for name in bad_sources(tmp_path):
        with pytest.raises(InputError) as caught:
            list(read_frames(tmp_path / name, SPEC))
        assert name in str(caught.value)
        assert ";" in str(caught.value)


def test_flow_beside_the_frames_of_a_folder_is_taken(tmp_path):
    folder = write_eccv_clip(tmp_path / "217", range(1, 4))
    flow = np.zeros((32, 64, 3), np.uint8)
    flow[..., 0] = 255
    Image.fromarray(flow).save(folder / "0002_flow.png")
    spec = Spec(height=32, width=64, motion="dis")
    frames = list(read_frames(folder, spec))
    assert [frame.number for frame in frames] == [1, 2, 3]
    assert (frames[1].motion[0] == 1).all() and (frames[1].motion[1:] == 0).all()
    assert not torch.equal(frames[2].motion, frames[1].motion)
    plain = list(read_frames(folder, Spec(height=32, width=64, motion="difference")))
    assert len(plain) == 3 and plain[1].motion.shape[0] == 1


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.webm", "libvpx"), ("a.mkv", "libx264"), ("a.flv", "libx264"), ("a.ts", "libx264"),
     ("a.avi", "mpeg4")],
)  # fmt: skip
def test_a_variable_frame_rate_without_a_rate_in_the_header(tmp_path, name, codec):
    """Two of 200 frames were looked at."""
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.06, 200))
    clip = write_varying_video(tmp_path / name, times - times[0], codec)
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
    clip = write_varying_video(tmp_path / "a.mp4", np.unique(burst.round(3)))
    gaps = np.diff([frame.seconds for frame in read_frames(clip, SPEC)])
    assert gaps.min() > 0.06 and gaps.max() < 0.25


def test_a_folder_of_frames_does_not_become_slow_motion(picture_folder, checkpoint, tmp_path):
    """It counted as 8 frames a second without a word."""
    code, _, text = infer(picture_folder, checkpoint, tmp_path / "maps")
    assert code == 0 and "8 fps assumed" in text and read_record(tmp_path / "maps")["fps"] == 8
    code, _, text = infer(picture_folder, checkpoint, tmp_path / "new", "--fps", "30000/1001")
    assert code == 0 and "assumed" not in text
    # The maps' own rate is the overlay's, unless another is given.
    code, _, text = paint(picture_folder, tmp_path / "new", tmp_path / "a.mp4")
    assert code == 0 and "assumed" not in text
    assert frame_times(tmp_path / "a.mp4") == pytest.approx([n * 1001 / 30000 for n in range(12)])
    assert paint(picture_folder, tmp_path / "new", tmp_path / "b.mp4", "--fps", 10)[0] == 0
    assert frame_times(tmp_path / "b.mp4") == pytest.approx([n / 10 for n in range(12)])


def test_frames_of_a_folder_are_sampled_at_its_rate(picture_folder):
    """Motion was that between frames a thirtieth of a second apart."""
    spec = Spec(height=24, width=48, fps=8.0, motion="difference")
    sampled = list(read_frames(picture_folder, spec, Fraction(30)))
    assert [frame.number for frame in sampled] == [1, 5, 9]
    assert [frame.seconds for frame in sampled] == pytest.approx([0, 4 / 30, 8 / 30])
    assert [frame.number for frame in read_frames(picture_folder, spec)] == list(range(1, 13))


def test_a_rate_is_for_frames_not_for_a_video(clip, checkpoint, tmp_path):
    refusal(infer(clip, checkpoint, tmp_path / "maps", "--fps", 25), "its own frame rate")
    assert not (tmp_path / "maps").exists()
    for wrong in ("0", "-3", "nan", "1/0", "fast", "1e9"):
        assert infer(clip, checkpoint, tmp_path / "maps", f"--fps={wrong}")[0] == 2


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
