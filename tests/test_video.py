"""Reading videos, folders and pictures."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import InputError
from models import Spec
from tests.clips import moving_disc, write_eccv_clip, write_video
from video import decoding, read_frames
from video.decoding import Damage, decode, probe
from video.pictures import resize, to_tensor

SPEC = Spec(height=24, width=48, fps=8.0, motion="difference")


def test_frames_are_sampled_at_the_specs_rate(tmp_path):
    reader = read_frames(write_video(tmp_path / "a.mp4", frames=24, fps=30), SPEC)
    frames = list(reader)
    assert reader.decoded == 24
    assert [f.number for f in frames] == [1, 5, 9, 13, 17, 21]  # round(30 / 8) = 4
    assert [f.seconds for f in frames] == pytest.approx([n / 30 for n in range(0, 24, 4)])
    for frame in frames:
        assert frame.rgb.shape == (3, 24, 48)
        assert frame.rgb.min() >= 0
        assert frame.rgb.max() <= 1


def test_slow_videos_are_taken_whole(tmp_path):
    frames = list(read_frames(write_video(tmp_path / "a.mp4", frames=5, fps=4), SPEC))
    assert [f.number for f in frames] == [1, 2, 3, 4, 5]


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


@pytest.mark.parametrize(("width", "height"), [(96, 48), (98, 50), (160, 90), (40, 21)])
def test_one_picture_of_any_shape(tmp_path, width, height):
    Image.fromarray(moving_disc(0, height, width)).save(tmp_path / "a.png")
    [frame] = read_frames(tmp_path / "a.png", SPEC)
    assert frame.rgb.shape == (3, 24, 48)
    expected = to_tensor(moving_disc(0, 24, 48))
    assert (frame.rgb - expected).abs().mean() < 0.05


def test_grey_and_transparent_pictures(tmp_path):
    for mode in ("L", "RGBA", "P"):
        Image.fromarray(moving_disc(0, 24, 48)).convert(mode).save(tmp_path / f"{mode}.png")
        [frame] = read_frames(tmp_path / f"{mode}.png", SPEC)
        assert frame.rgb.shape == (3, 24, 48)


def test_shrinking_averages_areas():
    image = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    exact = image.reshape(4, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(resize(image, 4, 8) - exact).max() <= 0.5


def test_growing_wraps_around_the_seam():
    """Regression: clamping at ±180° leaves a step where there is none."""
    longitude = (np.arange(16) + 0.5) * 2 * math.pi / 16
    image = np.tile(np.cos(longitude), (8, 1)).astype(np.float32)
    large = resize(image, 32, 64)
    exact = np.cos((np.arange(64) + 0.5) * 2 * math.pi / 64)
    assert np.abs(large - exact).max() < 1 - math.cos(math.pi / 16) + 1e-3
    assert abs(large[5, 0] - large[5, -1]) < 1e-5


def test_memory_does_not_hold_the_clip(tmp_path):
    reader = read_frames(write_video(tmp_path / "a.mp4", frames=60), SPEC)
    next(reader)
    assert reader.decoded == 5  # up to the next sampled one


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


def test_a_truncated_video_yields_what_it_has(tmp_path):
    whole = write_video(tmp_path / "whole.mkv", frames=90)
    content = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) * 2 // 3])
    read = []
    with pytest.raises(InputError, match="truncated or damaged after"):
        read.extend(decode(probe(tmp_path / "cut.mkv")))  # extend keeps what came before the error
    assert 0 < len(read) < 90


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_clip_that_starts_late_is_not_truncated(tmp_path, suffix):
    """Regression: Matroska's duration counts from zero, not from the first frame."""
    path = tmp_path / f"late.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for n in range(30):
            frame = av.VideoFrame.from_ndarray(moving_disc(n, 48, 96), format="rgb24")
            frame.pts, frame.time_base = n + 50, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = list(read_frames(path, SPEC))
    assert len(frames) == 30
    assert frames[-1].seconds == pytest.approx(2.9)


def test_frames_without_times_follow_the_rate(tmp_path):
    frames = list(decode(probe(write_video(tmp_path / "raw.h264", frames=5, fps=25))))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(n, 25) for n in range(5)]


def test_times_count_from_the_start_of_the_file(tmp_path):
    """A transport stream starts at 1.4 s or later."""
    [first, *_, last] = decode(probe(write_video(tmp_path / "a.ts", frames=10, fps=10)))
    assert (first.time, last.time) == pytest.approx((0, 0.9))


def test_a_sound_file_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="not in a known format of videos"):
        probe(tmp_path / "a.wav")


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


def bidirectional(path: Path, codec: str, numbers) -> Path:
    """Write the frames of these numbers, at number/30 seconds, most of them referred to by none."""
    options = {"bf": "3", "g": "24"} | (
        {"x265-params": "log-level=0"} if codec == "libx265" else {}
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(30), options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for n in numbers:
            picture = av.VideoFrame.from_ndarray(moving_disc(n, 48, 96), format="rgb24")
            picture.pts, picture.time_base = n, Fraction(1, 30)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


UNSTEADY = sorted({n + n // 7 % 3 * (n % 4) for n in range(90)})  # with gaps of up to four frames


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("numbers", [range(90), UNSTEADY], ids=["steady", "unsteady"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_frames_that_nobody_looks_at_are_not_decoded(tmp_path, monkeypatch, codec, numbers, suffix):
    """Nor does anything else change by it: frames, their times and how many there are."""
    clip = bidirectional(tmp_path / f"clip.{suffix}", codec, numbers)
    spec, found, decoded = Spec(height=24, width=48, fps=8), [], []

    def counted(path, *rest, frames=decoding._frames):
        for frame in frames(path, *rest):
            decoded[-1] += isinstance(frame, av.VideoFrame)
            yield frame

    monkeypatch.setattr(decoding, "_frames", counted)
    for codecs in (), decoding.ONE_FRAME:
        monkeypatch.setattr(decoding, "ONE_FRAME", codecs)
        decoded.append(0)
        frames = read_frames(clip, spec)
        found.append((list(frames), frames.decoded, frames.end, str(frames.damage)))
    (every, *facts), (some, *others) = found
    assert facts == others and facts[0] == len(numbers) and facts[2] == ""
    for one, other in zip(every, some, strict=True):
        assert (one.number, one.seconds, one.times) == (other.number, other.seconds, other.times)
        assert torch.equal(one.rgb, other.rgb) and torch.equal(one.motion, other.motion)
    assert decoded[1] < 0.85 * decoded[0]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_frames_that_are_lost_keep_their_numbers(tmp_path, codec, seed):
    """Whoever decodes every frame, as make_video.py does, finds as many as who skips some."""
    clip, random = (
        bidirectional(tmp_path / "clip.mp4", codec, range(90)),
        np.random.default_rng(seed),
    )
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    start, number, kept = random.integers((2, 1, 0), (85, 4, 12))
    for position, size in packets[start : start + number]:
        content[position + kept : position + size] = random.bytes(max(0, size - kept))
    clip.write_bytes(content)
    some, every = read_frames(clip, Spec(height=24, width=48, fps=8)), Damage()
    try:
        list(some)
        given = [isinstance(frame, av.VideoFrame) for frame in decode(probe(clip), every)]
        assert len(given) == some.decoded == 90 and every.lost == 90 - sum(given)
    except InputError as error:
        assert "damaged" in str(error)
