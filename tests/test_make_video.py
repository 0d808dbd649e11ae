"""Overlay videos: timing, sound, colours, refusals, as users meet them."""

import errno
import json
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import make_video
from common.errors import run_script
from tests.spherical import read_spherical
from video.decoding import probe
from video.yuv import Colour, planes
from views.overlay import Overlay, resize_map

ROOT = Path(__file__).parents[1]
COURTYARD = ROOT / "../shared/media/courtyard_640x322_30fps.mp4"
W, H = 96, 48


def clip(path, count=8, size=(W, H), fps=Fraction(25), codec="libx264", audio=None, colour=None,
         ticks=None, pix_fmt="yuv420p", layout="stereo"):  # fmt: skip
    """A video of a moving gradient or of one colour, with a sine of the same length."""
    width, height = size
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=fps)
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        if ticks:  # milliseconds
            video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        sound = output.add_stream(audio, rate=48000, layout=layout) if audio else None
        for k in range(count):
            picture = np.full((height, width, 3), colour or 0, np.uint8)
            if colour is None:
                picture[...] = (np.arange(width)[None, :, None] * 2 + 9 * k) % 200
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks:
                frame.pts, frame.time_base = ticks[k], Fraction(1, 1000)
            output.mux(video.encode(frame))
        if sound:
            wave = np.sin(np.arange(int(48000 * count / fps)) / 20) * 8000
            wave = np.repeat(wave.astype(np.int16), sound.channels)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout=layout)
            frame.rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            output.mux(sound.encode(frame))
            output.mux(sound.encode(None))
        output.mux(video.encode(None))
    return path


def maps(folder, count=8, value=None, size=(48, 24)):
    folder.mkdir(exist_ok=True)
    for k in range(count):
        if value is None:
            saliency = np.zeros(size[::-1], np.uint8)
            cv2.circle(saliency, (6 * k, 12), 5, 255, -1)
        else:
            saliency = np.full(size[::-1], value, np.uint8)
        cv2.imwrite(str(folder / f"sal_{k + 1:04d}.png"), saliency)
    return folder


def facts(folder, video, **changes):
    info = probe(video)
    known = {
        "video": video.name,
        "video_bytes": video.stat().st_size if video.is_file() else None,
        "width": info.width,
        "height": info.height,
        "frame_count": 8,
        "complete": True,
        "peaks": [0.5] * 8,
    }
    (folder / "saliency.json").write_text(json.dumps(known | changes))
    return folder


def arguments(video, folder, output, *more):
    return ["--original_video", str(video), "--saliency_dir", str(folder), "--output_path",
            str(output), "--preset", "ultrafast", *map(str, more)]  # fmt: skip


def render(video, folder, output, *more):
    sys.argv = ["make_video.py", *arguments(video, folder, output, *more)]
    run_script(make_video.main)
    return output


def refused(capsys, video, folder, output, *more, code=2):
    """The one line of standard error."""
    with pytest.raises(SystemExit) as stop:
        render(video, folder, output, *more)
    assert stop.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make_video.py: ") and (";" in line or ": give " in line)
    assert not output.is_file() and not list(output.parent.glob(".*partial*"))
    return line


def script(*args):
    command = [sys.executable, str(ROOT / "make_video.py"), *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", [])


def frames(path):
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def times(path):
    return [frame.pts * frame.time_base for frame in frames(path)]


def sounds(path):
    with av.open(str(path)) as file:
        return [
            (p.pts * p.time_base, bytes(p))
            for p in file.demux(file.streams.audio)
            if p.dts is not None
        ]


def test_the_script_on_a_clip_with_sound(tmp_path):
    rate = Fraction(30000, 1001)
    video = clip(tmp_path / "clip.mp4", 30, fps=rate, audio="aac")
    folder = facts(maps(tmp_path / "maps", 30), video, frame_count=30, peaks=[0.5] * 30)
    video = video.rename(tmp_path / "renamed.mp4")
    output = tmp_path / "new" / "overlay.mp4"
    done = script(*arguments(video, folder, output))
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"{output}: 30 frames in ") and "frames/s" in done.stdout
    assert list(output.parent.iterdir()) == [output]
    with av.open(str(output)) as file:
        stream = file.streams.video[0]
        assert (stream.width, stream.height, stream.frames) == (W, H, 30)
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        assert stream.average_rate == rate
        assert file.streams.audio[0].codec_context.name == "aac"
    assert times(output) == times(video) == [k / rate for k in range(30)]
    assert sounds(output) == sounds(video) and len(sounds(video)) > 20
    content = output.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    said = read_spherical(output)
    assert said["v1"]["ProjectionType"] == "equirectangular" and said["v2"]["stereo_mode"] == 0
    assert "SPHERICAL" in {data.type.name for data in frames(output)[0].side_data}


@pytest.mark.parametrize(
    "name, codec, audio, kept",
    [
        ("clip.webm", "libvpx", "libopus", "opus"),
        ("clip.mkv", "libx264", "flac", "flac"),
        ("clip.mkv", "libx264", "pcm_s16le", None),
        ("clip.mov", "libx264", "alac", "alac"),
        ("clip.avi", "mpeg4", "libmp3lame", "mp3"),
        ("clip.ts", "libx264", "aac", "aac"),
    ],
)
def test_sound_is_copied_where_mp4_holds_it(tmp_path, name, codec, audio, kept):
    video = clip(tmp_path / name, 25, codec=codec, audio=audio)
    output = render(video, maps(tmp_path / "maps", 25), tmp_path / "o.mp4")
    with av.open(str(output)) as file:
        sound = file.streams.audio[0]
        assert sound.codec_context.name.removesuffix("float") == (kept or "aac")
        loudness = max(np.abs(f.to_ndarray().astype(float)).max() for f in file.decode(sound))
        assert loudness > 0.1
    before, after = sounds(video), sounds(output)
    if kept and name != "clip.ts":  # a transport stream wraps every packet
        assert [content for _, content in after] == [content for _, content in before]
    # Sound and picture are as far apart as they were: to a millisecond, Matroska's clock.
    shift = times(output)[0] - times(video)[0]
    assert abs(after[0][0] - before[0][0] - shift) <= Fraction(1, 1000) or not kept
    assert abs(float(after[-1][0]) - 1) < 0.1
    assert np.allclose(np.array(times(output), float), np.array(times(video), float) + float(shift))


def test_encoded_sound_keeps_its_end(tmp_path):
    """Regression: the encoder was not emptied, and the last 64 ms were missing."""
    video = clip(tmp_path / "clip.mkv", 25, audio="pcm_s16le")
    output = render(video, maps(tmp_path / "maps", 25), tmp_path / "o.mp4")
    with av.open(str(output)) as file:
        *_, last, _ = file.demux(file.streams.audio)
        assert abs((last.pts + last.duration) * last.time_base - 1) < Fraction(1, 1000)


def test_sound_that_mp4_cannot_hold_is_left_out_with_a_warning(tmp_path, capsys):
    video = clip(tmp_path / "clip.mkv", layout="quad", audio="pcm_s16le")
    output = render(video, maps(tmp_path / "maps"), tmp_path / "o.mp4")
    with av.open(str(output)) as file:
        assert not file.streams.audio and file.streams.video[0].frames == 8
    assert "clip.mkv: sound 1 (pcm_s16le) is left out" in capsys.readouterr().err


def test_a_stream_that_starts_late_starts_at_zero(tmp_path):
    video = clip(tmp_path / "clip.ts", ticks=[1400 + 40 * k for k in range(8)])
    assert times(video)[0] > 1
    output = render(video, maps(tmp_path / "maps"), tmp_path / "o.mp4")
    assert times(output) == [Fraction(k, 25) for k in range(8)]


def test_variable_frame_rate_keeps_its_times(tmp_path):
    ticks = [0, 40, 55, 130, 131, 300, 650, 700]
    video = clip(tmp_path / "clip.mkv", ticks=ticks)
    output = render(video, maps(tmp_path / "maps"), tmp_path / "o.mp4")
    assert np.allclose(np.array(times(output), float), np.array(ticks) / 1000, atol=0.0011)


def test_matroska_milliseconds_become_the_exact_rate(tmp_path):
    video = clip(tmp_path / "clip.mkv", 31, fps=Fraction(30))
    assert times(video)[1] == Fraction(33, 1000)
    output = render(video, maps(tmp_path / "maps", 31), tmp_path / "o.mp4")
    assert times(output) == [Fraction(k, 30) for k in range(31)]
    with av.open(str(output)) as file:
        assert file.streams.video[0].average_rate == 30


def test_odd_sizes_lose_one_column_and_row(tmp_path):
    video = clip(tmp_path / "clip.mkv", size=(97, 49), codec="ffv1")
    output = render(video, maps(tmp_path / "maps", value=0), tmp_path / "o.mp4", "--crf", 1)
    old, new = frames(video)[3], frames(output)[3]
    assert (new.width, new.height) == (96, 48)
    rows = np.frombuffer(old.planes[0], np.uint8).reshape(-1, old.planes[0].line_size)
    assert np.abs(rows[:48, :96].astype(int) - new.to_ndarray()[:48]).max() <= 2


def test_a_folder_of_pictures(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for k in range(3):
        cv2.imwrite(str(folder / f"{k + 1:04d}.png"), np.full((H, W, 3), (200, 90, 30), np.uint8))
    saliency = facts(maps(tmp_path / "maps", 3, value=0), folder, frame_count=3)
    shown = frames(render(folder, saliency, tmp_path / "o.mp4"))
    assert [frame.time for frame in shown] == [0, 0.125, 0.25]
    assert shown[0].colorspace == 1  # BT.709, and said so
    colour = shown[1].to_ndarray(format="rgb24").reshape(-1, 3)
    assert np.abs(colour.astype(int) - (30, 90, 200)).max() <= 4


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (240, 200, 160)])
def test_colours(tmp_path, colour):
    """Without saliency the picture is unchanged; its peak has the last colour, at opacity alpha."""
    video = clip(tmp_path / "clip.mp4", 4, colour=colour)
    source = frames(video)[2].to_ndarray(format="rgb24").astype(int)
    for value, alpha in ((0, 0.7), (255, 0.7), (255, 0.25)):
        folder = maps(tmp_path / "maps", 4, value=value)
        output = render(video, folder, tmp_path / "o.mp4", "--alpha", alpha, "--colormap", "hot")
        seen = frames(output)[2].to_ndarray(format="rgb24").astype(int)
        opacity = alpha * value / 255
        assert np.abs(seen - (source * (1 - opacity) + 255 * opacity)).max() <= 4


@pytest.mark.parametrize(
    "name, codec, pix_fmt",
    [
        ("clip.avi", "mjpeg", "yuvj420p"),
        ("clip.mkv", "libx264", "yuv444p"),
        ("clip.mkv", "libx264", "yuv420p10le"),
        ("clip.mkv", "ffv1", "bgr0"),
    ],
)
def test_other_pixel_formats_keep_their_colours(tmp_path, name, codec, pix_fmt):
    video = clip(tmp_path / name, 4, codec=codec, pix_fmt=pix_fmt, colour=(200, 60, 30))
    folder = maps(tmp_path / "maps", len(frames(video)), value=0)
    shown = frames(render(video, folder, tmp_path / "o.mp4"))[1]
    old = frames(video)[1].to_ndarray(format="rgb24").astype(int)
    assert shown.format.name == "yuv420p"
    assert np.abs(shown.to_ndarray(format="rgb24") - old).max() <= 4


@pytest.mark.parametrize("name", ["turbo", "jet", "inferno"])
@pytest.mark.parametrize("matrix, height, key", [(5, 48, "bt470bg"), (1, 48, "ITU709")])
def test_colour_maps_come_out_as_opencv_draws_them(name, matrix, height, key):
    overlay = Overlay(name, 1.0, Colour(matrix, 2, 2, 1), height, opaque=True)
    values = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None], 4, axis=0)
    values = cv2.resize(values, (512, 32), interpolation=cv2.INTER_NEAREST)
    painted = overlay(np.zeros((48, 512), np.uint8), values)
    frame = av.VideoFrame.from_ndarray(painted, format="yuv420p")
    space = "ITU709" if key == "ITU709" else "ITU601"
    seen = frame.reformat(format="bgr24", src_colorspace=space).to_ndarray()[16, 4::8]
    wanted = cv2.applyColorMap(values, make_video.COLORMAPS[name])[16, 4::8]
    assert np.abs(seen.astype(int) - wanted).max() <= 6


def test_overlay_of_nothing_changes_nothing():
    picture = np.random.default_rng(0).integers(0, 256, (72, 96), np.uint8)
    overlay = Overlay("turbo", 1.0, Colour(2, 2, 2, 0), 48)
    assert np.array_equal(overlay(picture, np.zeros((48, 96), np.uint8)), picture)


@pytest.mark.parametrize("width", [96, 100, 107, 200])
def test_maps_grow_without_a_seam(width):
    """A map turned by half a turn grows into the turned large map."""
    saliency = np.random.default_rng(1).integers(0, 256, (24, 48), np.uint8)
    large = resize_map(saliency, 50, width)
    assert large.shape == (50, width)
    if width % 2 == 0:
        turned = resize_map(np.roll(saliency, 24, axis=1), 50, width)
        assert np.abs(np.roll(large, width // 2, axis=1).astype(int) - turned).max() <= 1


def test_side_by_side(tmp_path):
    video = clip(tmp_path / "clip.mp4", audio="aac")
    folder = maps(tmp_path / "maps", value=255)
    output = render(video, folder, tmp_path / "o.mp4", "--side_by_side", "--crf", 5)
    old, new = frames(video)[3].to_ndarray()[:H], frames(output)[3].to_ndarray()[:H]
    assert new.shape == (H, 2 * W)
    assert np.abs(new[:, : W - 2].astype(int) - old[:, :-2]).max() <= 6
    assert np.ptp(new[:, W + 2 :]) <= 4  # one colour: the map's, without the picture
    assert read_spherical(output) == {"v1": None, "v2": None}
    assert sounds(output) == sounds(video)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"video_bytes": 1}, "another video"),
        ({"width": 640}, "another video"),
        ({"complete": False, "frame_count": None}, "not complete"),
        ({"frame_count": 9}, "8 maps for 9 frames"),
        ({"frame_count": 7}, "8 maps for 7 frames"),
    ],
)
def test_maps_of_something_else(tmp_path, capsys, changes, words):
    video = clip(tmp_path / "clip.mp4")
    folder = facts(maps(tmp_path / "maps"), video, **changes)
    line = refused(capsys, video, folder, tmp_path / "o.mp4")
    assert words in line and "infer_video.py" in line and str(folder) in line


@pytest.mark.parametrize("count", [0, 7, 9, 20])
@pytest.mark.parametrize("name, codec", [("clip.mp4", "libx264"), ("clip.webm", "libvpx")])
def test_maps_without_facts_must_be_as_many_as_frames(tmp_path, capsys, count, name, codec):
    """WebM doesn't state its number of frames: the difference is found when one side ends."""
    video = clip(tmp_path / name, codec=codec)
    folder = maps(tmp_path / "maps", count)
    assert str(folder) in refused(capsys, video, folder, tmp_path / "o.mp4")


def test_damaged_maps(tmp_path, capsys):
    video = clip(tmp_path / "clip.mp4")
    folder = maps(tmp_path / "maps")
    for content in (b"", (folder / "sal_0005.png").read_bytes()[:60]):
        (folder / "sal_0005.png").write_bytes(content)
        line = refused(capsys, video, folder, tmp_path / "o.mp4")
        assert "sal_0005.png" in line
    (folder / "saliency.json").write_text("{")
    assert "saliency.json" in refused(capsys, video, folder, tmp_path / "o.mp4")


def test_bad_videos(tmp_path, capsys):
    folder = maps(tmp_path / "maps", 50)
    video = clip(tmp_path / "clip.mkv", 50)
    truncated = tmp_path / "truncated.mkv"
    truncated.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.touch()
    text.write_text("this is no video")
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    for path in (tmp_path / "missing.mp4", empty, text, nothing, truncated):
        assert str(path) in refused(capsys, path, folder, tmp_path / "o.mp4")
    assert str(nothing) in refused(capsys, video, nothing, tmp_path / "o.mp4")


def test_bad_outputs(tmp_path, capsys, monkeypatch):
    video, folder = clip(tmp_path / "clip.mp4"), maps(tmp_path / "maps")
    assert "clip.mp4: File exists" in refused(capsys, video, folder, video / "o.mp4")
    assert ".mp4" in refused(capsys, video, folder, tmp_path / "o.avi")
    assert "--alpha" in refused(capsys, video, folder, tmp_path / "o.mp4", "--alpha", 2)
    before = video.read_bytes()
    with pytest.raises(SystemExit):
        render(video, folder, video)
    assert video.read_bytes() == before and "original" in capsys.readouterr().err

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("make_video.write_video", full)
    line = refused(capsys, video, folder, tmp_path / "o.mp4", code=1)
    assert "o.mp4: No space left on device" in line and "partial" not in line


def test_a_file_that_may_not_grow_is_one_line(tmp_path, capsys):
    """Regression: a failure of FFmpeg to write ended in a traceback."""
    video, folder = clip(tmp_path / "clip.mp4", size=(640, 320)), maps(tmp_path / "maps")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        line = refused(capsys, video, folder, tmp_path / "o.mp4", code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "o.mp4: File too large" in line


def test_an_older_output_stays_until_the_new_one_is_complete(tmp_path, capsys):
    video, folder = clip(tmp_path / "clip.mp4"), maps(tmp_path / "maps")
    output = tmp_path / "o.mp4"
    output.write_bytes(b"older")
    (folder / "sal_0008.png").write_bytes(b"")
    with pytest.raises(SystemExit):
        render(video, folder, output)
    assert output.read_bytes() == b"older"
    maps(folder)
    assert len(frames(render(video, folder, output))) == 8


def test_planes_are_views():
    picture = np.zeros((6, 4), np.uint8)
    for k, plane in enumerate(planes(picture)):
        plane[:] = k + 1
    assert picture.tolist() == [[1] * 4] * 4 + [[2] * 4, [3] * 4]


def test_a_real_clip(tmp_path):
    if not COURTYARD.exists():
        pytest.skip("../shared/media is not here")
    video = tmp_path / "courtyard.mp4"
    with av.open(str(COURTYARD)) as source, av.open(str(video), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is None or packet.pts * packet.time_base >= 0.5:
                break
            packet.stream = stream
            output.mux(packet)
    count = len(frames(video))
    output = render(video, maps(tmp_path / "maps", count, value=0), tmp_path / "o.mp4", "--crf", 4)
    assert times(output) == times(video)
    for old, new in zip(frames(video), frames(output), strict=True):
        assert np.abs(old.to_ndarray().astype(int) - new.to_ndarray()).mean() < 1
