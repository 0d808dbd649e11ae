"""Videos, folders and pictures: decoding, sampling, sizes, depths, motion, damage, threads."""

import math
import os
import re
import struct
import threading
import time
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import models
from common.components import MOTIONS
from common.errors import InputError, counted
from datasets.layouts import read_truth
from models import Spec
from recipes.flat import to_tensor
from tests.clips import frame_times, moving_disc, write_eccv_clip, write_varying_video, write_video
from tests.commands import infer, paint, read_record, refusal, success
from tests.shared import reference
from video import read_frames, writer
from video.background import map_in_background, prefetch
from video.decoding import Damage, decode, probe
from video.motion import DISFlow, FlowImage, RAFTFlow, flow_colours
from video.pictures import read_picture, resize
from video.raft import load_raft
from video.writer import write_pictures

SPEC = Spec(height=24, width=48, fps=8.0, motion="difference")


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
    times = 5 + np.arange(30) / 10
    frames = list(
        read_frames(write_video(tmp_path / f"late.{suffix}", 30, fps=10, times=times), SPEC)
    )
    assert len(frames) == 30
    assert frames[-1].seconds == pytest.approx(2.9)


def test_frames_without_times_follow_the_rate(tmp_path):
    frames = list(decode(probe(write_video(tmp_path / "raw.h264", frames=5, fps=25))))
    times = [frame.image.pts * frame.image.time_base for frame in frames]
    assert times == [Fraction(n, 25) for n in range(5)]


def test_times_count_from_the_start_of_the_file(tmp_path):
    """A transport stream starts at 1.4 s or later."""
    [first, *_, last] = decode(probe(write_video(tmp_path / "a.ts", frames=10, fps=10)))
    assert (first.seconds, last.seconds) == pytest.approx((0, 0.9))


def test_a_sound_file_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="not in a known video format"):
        probe(tmp_path / "a.wav")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_all_who_read_a_damaged_clip_count_the_same_frames(tmp_path, codec, seed):
    """Maps lie over the frames that they were made of, and a hole does not end the clip."""
    quiet = {"x265-params": "log-level=0"} if codec == "libx265" else {}
    options = {"bf": "3", "g": "24"} | quiet  # most frames are referred to by none
    clip = write_video(tmp_path / "clip.mp4", 90, codec=codec, options=options)
    content, random = bytearray(clip.read_bytes()), np.random.default_rng(seed)
    with av.open(str(clip)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    start, number, kept = random.integers((2, 1, 0), (85, 4, 12))
    for position, size in packets[start : start + number]:
        content[position + kept : position + size] = random.bytes(max(0, size - kept))
    clip.write_bytes(content)
    sampled = read_frames(clip, Spec(height=24, width=48, fps=8))
    times = [seconds for frame in sampled for seconds in frame.times]
    frames = list(decode(probe(clip), Damage()))
    assert [frame.number for frame in frames] == list(range(1, len(sampled.times) + 1))
    assert times == [frame.seconds - frames[0].seconds for frame in frames]
    assert len(sampled.times) > 60


@pytest.mark.parametrize("name", ["notes.txt", "clip.nfo", "art.asc", "movie.ans", "list.m3u8"])
def test_a_text_is_no_video(checkpoint, tmp_path, name):
    """FFmpeg's ANSI decoder made 467 maps of a text."""
    (tmp_path / name).write_text("#EXTM3U\n" + "Line of a text with some words.\n" * 500)
    code, _, line = infer(tmp_path / name, checkpoint, tmp_path / "out")
    assert code == 2 and name in line and not (tmp_path / "out").exists()


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
    count = len(list(decode(probe(clip), damage)))
    assert 50 < count <= 60 and damage.corrupt
    code, printed, line = infer(clip, checkpoint, tmp_path / "out")
    assert code == 1 and f"{count} maps" in printed
    assert f"the decoder reports {counted(len(damage.corrupt), 'error')}," in line
    first = re.search(r"the first at frame (\d+),", line)[1]  # of the frames that came by then
    assert abs(int(first) - damage.corrupt[0]) < 4
    code, _, line = paint(clip, tmp_path / "out", tmp_path / "o.mp4")
    assert code == 1 and "the decoder reports" in line and (tmp_path / "o.mp4").exists()


def test_tags_in_latin_1(checkpoint, tmp_path):
    title = {"title": "caf\u00e9 con leche"}
    clip = write_video(tmp_path / "clip.mkv", 3, metadata=title)
    whole = clip.read_bytes()
    assert "caf\u00e9".encode() in whole
    clip.write_bytes(whole.replace("caf\u00e9 ".encode(), b"caf\xe9 x"))
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0
    assert paint(clip, tmp_path / "out", tmp_path / "o.mp4")[0] == 0


def test_videos_without_a_decoder_and_drawings(checkpoint, tmp_path):
    """'NoneType' object has no attribute 'width'."""
    whole = write_video(tmp_path / "a.mkv", 3).read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"))
    (tmp_path / "c.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9"/>')
    for name, says in (("b.mkv", "without a decoder"), ("c.svg", "not in a known video format")):
        refusal(infer(tmp_path / name, checkpoint, tmp_path / "out"), name, says)


def test_pictures_that_stand_still_for_long(checkpoint, tmp_path):
    """A GIF with a hold of 3 s, half a frame a second and a still of 8 s were 'truncated'."""
    pictures = [Image.fromarray(moving_disc(n, 48, 96)) for n in range(4)]
    names = "hold.gif", "slow.gif", "slow.mp4", "slow.mkv", "slow.ts"
    clips = [tmp_path / name for name in names]
    more = {"save_all": True, "append_images": pictures[1:]}
    pictures[0].save(clips[0], duration=[100, 100, 100, 3000], **more)
    pictures[0].save(clips[1], save_all=True, append_images=pictures[1:], duration=2000)
    for path in clips[2:]:
        write_video(path, 6, fps="1/2")
    clips.append(write_video(tmp_path / "still.mp4", 1, fps="1/8"))
    clips.append(write_video(tmp_path / "still.mkv", 1, fps="1/8"))
    for path in clips:
        success(infer(path, checkpoint, tmp_path / f"{path.name} maps"))


def test_a_name_like_a_protocol(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(Path("a.mp4"), 3).rename("12:30.mp4")
    assert infer("12:30.mp4", checkpoint, "maps")[0] == 0
    assert paint("12:30.mp4", "maps", "13:30.mp4")[0] == 0
    assert probe("13:30.mp4").frames == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_not_called_truncated(clip, checkpoint, tmp_path):
    path = tmp_path / "secret.mp4"
    path.write_bytes(clip.read_bytes())
    path.chmod(0)
    refusal(infer(path, checkpoint, tmp_path / "out"), "permission denied")


def test_a_library_that_wants_logs_does_not_hang_the_decoder(clip, tmp_path):
    """Older versions of torchvision, imported for RAFT, made FFmpeg's threads wait for Python."""
    picture = moving_disc(0, 48, 96)
    for use in (probe, lambda _: write_pictures(tmp_path / "a.mp4", [picture], 48, 96, 8)):
        av.logging.set_level(av.logging.ERROR)
        use(clip)
        assert av.logging.get_level() is None


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
    "name, codec",
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


@pytest.mark.parametrize("width, height", [(96, 48), (98, 50), (160, 90), (40, 21)])
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


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tif"])
def test_animated_pictures_are_told(checkpoint, tmp_path, name):
    """One frame of twelve was read."""
    pictures = [Image.fromarray(moving_disc(n, 24, 48)) for n in range(12)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    text = infer(tmp_path / name, checkpoint, tmp_path / "out")[2]
    assert "animated: only the first of 12 frames is read" in text


@pytest.mark.parametrize("size", [(40000, 400), (60, 40000), (3, 2), (1, 1)])
def test_pictures_of_odd_sizes(checkpoint, tmp_path, size):
    Image.new("L", size, 90).save(tmp_path / "a.png")
    assert infer(tmp_path / "a.png", checkpoint, tmp_path / "out")[0] == 0
    code, _, line = paint(tmp_path / "a.png", tmp_path / "out", tmp_path / "o.mp4")
    assert code == (0 if size == (3, 2) else 2)
    assert max(size) < 40000 or "too large for .mp4 (16384×16384)" in line


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
    refusal(infer(path, checkpoint, tmp_path / "out"), "too large, 60000×60000 pixels")
    assert time.monotonic() - start < 10


def test_a_single_picture_needs_no_rate(still):
    assert not any("a second" in note for note in probe(still).notes)


def counting(items, taken, fail_at=None):
    for item in items:
        if item == fail_at:
            raise OSError(f"no {item}")
        taken.append(item)
        yield item


def test_items_come_in_order_and_at_most_a_few_ahead():
    taken, seen, lead = [], [], 0
    for item in prefetch(counting(range(50), taken), most=3):
        time.sleep(0.002 * (item % 7 == 0))
        seen.append(item)
        lead = max(lead, len(taken) - len(seen))
    assert seen == list(range(50)) and 0 < lead <= 3
    assert list(prefetch([])) == []


def test_an_error_comes_at_its_place_and_ends_the_thread():
    seen, before = [], threading.active_count()
    with pytest.raises(OSError, match="no 5"):
        for item in prefetch(counting(range(9), [], fail_at=5)):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4] and threading.active_count() == before


def test_a_loop_that_is_left_ends_the_thread():
    taken, before = [], threading.active_count()
    items = prefetch(counting(range(10**9), taken), most=2)
    assert next(items) == 0 and threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before and len(taken) <= 4


def test_what_was_taken_is_written_before_an_error_of_the_source_is_raised():
    """The maps up to where a clip is damaged are kept."""
    written, before = [], threading.active_count()
    slow = [lambda n: time.sleep(0.002), written.append]
    with pytest.raises(OSError, match="no 7"):
        list(map_in_background(lambda n: [do(n) for do in slow], counting(range(9), [], fail_at=7)))
    assert written == list(range(7)) and threading.active_count() == before


def test_results_of_writing_come_in_order_and_few_items_wait():
    taken, done, lead = [], [], 0
    for result in map_in_background(lambda n: n * n, counting(range(40), taken), most=4):
        done.append(result)
        lead = max(lead, len(taken) - len(done))
    assert done == [n * n for n in range(40)] and lead <= 4


def test_an_error_of_writing_is_raised_soon():
    taken = []
    with pytest.raises(ZeroDivisionError):
        list(map_in_background(lambda n: 1 / (3 - n), counting(range(1000), taken), most=4))
    assert len(taken) <= 9


def test_painting_that_fails_ends_the_encoder_and_its_thread(clip, tmp_path):
    info, before = probe(clip), threading.active_count()

    def pictures():
        for frame in decode(info):
            if frame.number == 9:
                raise ValueError("no picture 9")
            yield np.full((72, 96), 16, np.uint8), frame.image

    with pytest.raises(ValueError, match="no picture 9"):
        writer.write_video(tmp_path / "out.mp4", info, pictures())
    assert threading.active_count() == before


def scene(height=64, width=128) -> torch.Tensor:
    """A smooth texture without an edge at ±180°, (3, H, W)."""
    coarse = torch.rand(1, 1, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
    coarse = F.pad(coarse, (4, 4, 0, 0), mode="circular")
    fine = F.interpolate(coarse, scale_factor=8, mode="bicubic")
    return fine[0, :, :, 32:-32].clamp(0, 1).expand(3, -1, -1).contiguous()


@pytest.mark.parametrize("name", ["rand0", "smooth", "zero", "tiny"])
def test_colours_are_rafts(name):
    stored = reference("flow_colours.npz")
    smooth = stored["flow_smooth"]
    flows = {"zero": 0 * smooth, "tiny": 1e-4 * smooth}
    flow = flows[name] if name in flows else stored[f"flow_{name}"]
    colours = flow_colours(torch.from_numpy(flow).float().permute(2, 0, 1))
    expected = torch.from_numpy(stored[f"{name}_24x32__raft_rgb"]).permute(2, 0, 1)
    difference = ((255 * colours).round() - expected).abs()
    if name == "tiny":  # a few thousandths of a pixel
        assert difference.max() < 8
    else:
        assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01


def test_first_frame_and_stillness_are_white():
    frame, dis = scene(), DISFlow()
    assert dis.channels == 3
    assert torch.equal(dis(None, frame), torch.ones(3, 64, 128))
    assert torch.equal(dis(frame, frame), torch.ones(3, 64, 128))


@pytest.mark.parametrize("shift", [3, -2])
def test_a_turning_scene_flows_alike_at_every_longitude(shift):
    class Seen(DISFlow):
        def flow(self, current, previous):
            self.back = super().flow(current, previous)
            return self.back

    frame, dis = scene(), Seen()
    colours = dis(frame, frame.roll(shift, -1))
    flow = -dis.back[..., 32:-32]
    assert flow.shape == (2, 64, 128)
    assert (flow[0].mean(0) - shift).abs().max() < 0.1
    assert flow[1].abs().mean() < 0.1
    # To the right is red, to the left cyan.
    assert (colours[0] > colours[1]).float().mean() == (1 if shift > 0 else 0)
    assert (colours[..., 0] - colours[..., -1]).abs().mean() < 0.05


def test_flow_is_at_the_pixels_of_the_current_frame():
    class Fixed(FlowImage):
        def flow(self, current, previous):
            back = torch.zeros(2, *current.shape[-2:])
            back[0, :, current.shape[-1] // 2] = -1  # there, it came from the left
            return back

    colours = Fixed()(torch.rand(3, 4, 16), torch.rand(3, 4, 16))
    moved = (colours < 1).any(0).any(0).nonzero().flatten()
    assert moved.tolist() == [8]


def test_raft_runs_across_the_seam(tmp_path, monkeypatch):
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft_small.pth")
    monkeypatch.setattr("video.raft.CHECKPOINTS", tmp_path)
    frame = scene(136, 96)[:, :132]
    colours = RAFTFlow()(frame, frame.roll(2, -1))
    assert colours.shape == (3, 132, 96) and colours.min() >= 0 and colours.max() <= 1


def test_raft_without_weights_names_where_they_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr("video.raft.CHECKPOINTS", tmp_path)
    with pytest.raises(InputError, match=r"raft_large_C_T_SKHT_V2.*pytorch.org"):
        RAFTFlow()
    torch.save({"other": torch.zeros(1)}, tmp_path / "raft-other.pth")
    with pytest.raises(InputError, match="raft-other.pth: not the weights of a supported RAFT"):
        load_raft(tmp_path / "raft-other.pth")


def test_the_steady_difference_counts_less_the_more_everything_moves():
    """One grey level everywhere: the mean over every 90° is that level."""
    steady = MOTIONS["steady_difference"]()
    black = torch.zeros(3, 64, 128)
    assert steady(None, black).abs().max() == 0
    for level in (0.005, 0.03, 0.1):
        expected = level * math.exp(-((level / 0.03) ** 2))
        found = steady(black, torch.full_like(black, level))
        torch.testing.assert_close(found, torch.full((1, 64, 128), expected), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("turn", [0, 37, 100, 127])
def test_the_steady_difference_takes_the_quarter_of_the_horizon_that_moves_most(turn):
    """32 of 128 columns move, within 45° of the horizon, wherever they are: also at the seam."""
    steady, rows, level = MOTIONS["steady_difference"](), slice(16, 48), 0.02
    frame = torch.zeros(3, 64, 128)
    frame[:, rows, :32] = level
    frame[:, :8] = 0.9  # near the pole, where it does not count
    found = steady(torch.zeros_like(frame), frame.roll(turn, -1)).roll(-turn, -1)
    expected = level * math.exp(-((level / 0.03) ** 2))
    torch.testing.assert_close(found[0, rows, :32], torch.full((32, 32), expected))
    assert found[0, rows, 32:].abs().max() == 0


def test_the_rows_of_the_steady_difference_count_by_their_areas():
    """A band moves from the equator to 30° north: sin 30° / (2 sin 45°) of the zone."""
    frame = torch.zeros(3, 180, 360)
    frame[:, 60:90] = 0.05
    found = MOTIONS["steady_difference"]()(torch.zeros_like(frame), frame)
    mean = 0.05 * 0.5 / math.sqrt(2)
    expected = 0.05 * math.exp(-((mean / 0.03) ** 2))
    assert found[0, 75, 0].item() == pytest.approx(expected, rel=1e-3)
