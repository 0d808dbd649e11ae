"""Decoding of videos: formats, times, truncation, damage."""

import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from common.errors import InputError, counted
from models import Spec
from tests.clips import moving_disc, write_video
from tests.commands import infer, paint, refusal, success
from video import read_frames
from video.decoding import Damage, decode, probe
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
