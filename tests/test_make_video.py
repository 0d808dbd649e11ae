"""make_video.py: times, sound, stills, colours, scale, outputs and refusals."""

import errno
import json
import re
import signal
import struct
import sys
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import make_video
from common.files import OUTPUT_RECORD
from maps.folder import fingerprint
from maps.saved import common_scale
from tests.clips import frame_times, read_pixels, write_video
from tests.commands import ROOT, ended, infer, paint, refusal, start, success
from tests.overlays import arguments, clip, facts, frames, maps, refused, render, sounds, times
from tests.spherical import read_spherical
from tests.trainings import run
from video import decoding, writer
from video.yuv import Colour, planes
from views.overlay import Overlay, paint_picture, resize_map

COURTYARD = ROOT / "../shared/media/courtyard_640x322_30fps.mp4"
W, H = 96, 48


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", [])


def test_the_script_on_a_clip_with_sound(tmp_path):
    rate = Fraction(30000, 1001)
    video = clip(tmp_path / "clip.mp4", 30, fps=rate, audio="aac")
    folder = facts(maps(tmp_path / "maps", 30), video, frame_count=30, peaks=[0.5] * 30)
    video = video.rename(tmp_path / "renamed.mp4")
    output = tmp_path / "new" / "overlay.mp4"
    code, printed, errors = ended(make_video.main, *arguments(video, folder, output))
    assert (code, errors) == (0, "")
    assert printed.startswith(f"{output}: 30 frames in ") and "frames/s" in printed
    assert set(output.parent.iterdir()) == {output, output.with_name(OUTPUT_RECORD)}
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
    assert frames(output)[0].side_data.get("SPHERICAL")


def test_large_pictures_are_encoded_with_less_memory(tmp_path, monkeypatch):
    """Those of 7680×3840 took 6 GB."""
    for module in (decoding, writer):
        monkeypatch.setattr(module, "LARGE_FRAME_PIXELS", 1000)
    video = clip(tmp_path / "clip.mp4", 30)
    output = render(video, maps(tmp_path / "maps", 30), tmp_path / "o.mp4", "--preset", "fast")
    assert times(output) == times(video)
    for option in (b"rc_lookahead=2", b"bframes=1"):  # as x264 writes them
        assert option in output.read_bytes()


@pytest.mark.parametrize("name, codec, audio, kept", [
    ("clip.webm", "libvpx", "libopus", "opus"),
    ("clip.mkv", "libx264", "flac", "flac"),
    ("clip.mkv", "libx264", "pcm_s16le", None),
    ("clip.mov", "libx264", "alac", "alac"),
    ("clip.avi", "mpeg4", "libmp3lame", "mp3"),
    ("clip.ts", "libx264", "aac", "aac"),
])  # fmt: skip
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
    video = clip(tmp_path / "clip.ts", times=[1.4 + 0.04 * k for k in range(8)])
    assert times(video)[0] > 1
    output = render(video, maps(tmp_path / "maps"), tmp_path / "o.mp4")
    assert times(output) == [Fraction(k, 25) for k in range(8)]


def test_variable_frame_rate_keeps_its_times(tmp_path):
    seconds = [0, 0.04, 0.055, 0.13, 0.131, 0.3, 0.65, 0.7]
    video = clip(tmp_path / "clip.mkv", times=seconds)
    output = render(video, maps(tmp_path / "maps"), tmp_path / "o.mp4")
    assert np.allclose(np.array(times(output), float), seconds, atol=0.0011)


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


@pytest.mark.parametrize("changes, words", [
    ({"fingerprint": "of other content"}, "another video"),
    ({"complete": False, "frame_count": None}, "not complete"),
    ({"frame_count": 9}, "not all frames have"),
    ({"frame_count": 7}, "not all frames have"),
    ({"frame_count": 9, "peaks": [0.5] * 9}, "no map for frame 9"),
    ({"frame_count": 7, "peaks": [0.5] * 7}, "one too many, of frame 8"),
])  # fmt: skip
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


def test_bad_outputs(tmp_path, capsys, monkeypatch):
    video, folder = clip(tmp_path / "clip.mp4"), maps(tmp_path / "maps")
    assert "clip.mp4: File exists" in refused(capsys, video, folder, video / "o.mp4")
    assert ".mp4" in refused(capsys, video, folder, tmp_path / "o.avi")
    assert "--alpha" in refused(capsys, video, folder, tmp_path / "o.mp4", "--alpha", 2)
    before = video.read_bytes()
    with pytest.raises(SystemExit):
        render(video, folder, video)
    assert video.read_bytes() == before and "would be replaced" in capsys.readouterr().err

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("make_video.write_video", full)
    line = refused(capsys, video, folder, tmp_path / "o.mp4", code=1)
    assert "o.mp4: No space left on device" in line and "partial" not in line


def test_an_older_output_stays_until_the_new_one_is_complete(tmp_path, capsys):
    video, folder = clip(tmp_path / "clip.mp4"), maps(tmp_path / "maps")
    output = tmp_path / "o.mp4"
    output.write_bytes(b"older")
    (folder / "sal_0008.png").write_bytes(b"")
    with pytest.raises(SystemExit):
        render(video, folder, output, "--overwrite")
    assert output.read_bytes() == b"older"
    maps(folder)
    assert len(frames(render(video, folder, output, "--overwrite"))) == 8


def test_an_output_of_another_clip_was_replaced(tmp_path, capsys):
    """--follow --cuts replaced the video of --follow, too."""
    one, other = clip(tmp_path / "clip.mp4"), clip(tmp_path / "other.mp4", colour=(9, 90, 200))
    folder, output = maps(tmp_path / "maps"), tmp_path / "out"
    first = render(one, folder, output / "o.mp4")
    before = first.read_bytes()
    assert len(frames(render(one, folder, first))) == 8
    with pytest.raises(SystemExit):
        render(other, folder, first)
    line = "o.mp4: was not made from this clip; choose another name, or replace it with --overwrite"
    assert line in capsys.readouterr().err and first.read_bytes() == before
    render(other, folder, first, "--overwrite")
    assert first.read_bytes() != before
    for words in (["--follow"], ["--follow", "--cuts"], ["--viewer"], []):
        render(one, folder, output, "--viewer_width", 64, *words)
    names = {path.name for path in output.glob("clip_*")}
    ends = "follow.mp4", "follow_cuts.mp4", "viewer.html", "overlay.mp4"
    assert names == {f"clip_{end}" for end in ends}


@pytest.mark.parametrize("name", ["overlay.png", "overlay.jpg", "overlay.JPEG"])
def test_a_still_picture_becomes_a_picture(still, checkpoint, tmp_path, name):
    """It became a video of 0.1 s."""
    assert infer(still, checkpoint, tmp_path / "maps")[0] == 0
    assert name in success(paint(still, tmp_path / "maps", tmp_path / name))
    with Image.open(tmp_path / name) as image:
        assert image.format == ("PNG" if name.endswith("png") else "JPEG")
        assert image.size == (97, 49)  # odd sizes too
        said = image.info.get("xmp", b"").decode() + image.info.get("XML:com.adobe.xmp", "")
    said = dict(re.findall(r'GPano:(\w+)="(.*?)"', said))
    assert said["ProjectionType"] == "equirectangular"
    assert (said["FullPanoWidthPixels"], said["CroppedAreaImageHeightPixels"]) == ("97", "49")
    assert np.abs(read_pixels(tmp_path / name).astype(int) - read_pixels(still)).max() > 60


def test_a_picture_without_saliency_stays_as_it_is(still, checkpoint, tmp_path):
    assert infer(still, checkpoint, tmp_path / "maps")[0] == 0
    assert paint(still, tmp_path / "maps", tmp_path / "o.png", "--alpha", 0)[0] == 0
    assert np.array_equal(read_pixels(tmp_path / "o.png"), read_pixels(still))
    assert paint(still, tmp_path / "maps", tmp_path / "s.png", "--side_by_side")[0] == 0
    assert read_pixels(tmp_path / "s.png").shape == (49, 194, 3)
    assert np.array_equal(read_pixels(tmp_path / "s.png")[:, :97], read_pixels(still))
    assert b"GPano" not in (tmp_path / "s.png").read_bytes()  # no panorama any more
    assert paint(still, tmp_path / "maps", tmp_path / "o.mp4")[0] == 0
    assert len(frame_times(tmp_path / "o.mp4")) == 1


def test_a_video_does_not_become_a_picture(clip, checkpoint, picture_folder, tmp_path):
    for source in (clip, picture_folder):
        infer(source, checkpoint, tmp_path / source.stem)
        refusal(paint(source, tmp_path / source.stem, tmp_path / "o.png"), ".mp4")
        assert not (tmp_path / "o.png").exists()


def test_the_output_has_a_name_where_none_is_given(still, clip, checkpoint, tmp_path, monkeypatch):
    for source, name in ((still, "still_overlay.png"), (clip, "clip_overlay.mp4")):
        infer(source, checkpoint, tmp_path / source.stem)
        monkeypatch.chdir(tmp_path)
        words = ("--original_video", source, "--saliency_dir", tmp_path / source.stem)
        assert success(ended(make_video.main, *words)).startswith(f"outputs/{name}: ")
        assert (tmp_path / "outputs" / name).is_file()


def test_a_long_name_that_a_file_can_have(clip, checkpoint, tmp_path):
    """The temporary name was too long."""
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0
    assert paint(clip, tmp_path / "out", tmp_path / f"{'ü' * 125}.mp4")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("tag", [None, 126, 167])
def test_eight_channels_in_an_order_of_their_own(checkpoint, tmp_path, tag):
    """They ended the interpreter: PyAV frees such an order of channels twice."""
    clip = write_video(tmp_path / "clip.mov", 25, fps=25, sound=("pcm_s16le", 48000, "7.1"))
    if tag:  # an order of Apple's Core Audio: the tag's number and that of channels
        whole = clip.read_bytes()
        place = whole.find(b"chan") + 8
        clip.write_bytes(whole[:place] + struct.pack(">HH", tag, 8) + whole[place + 4 :])
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0
    words = ("--original_video", clip, "--saliency_dir", tmp_path / "out")
    printed = run(make_video, [*words, "--output_path", tmp_path / "o.mp4"], tmp_path / "printed")
    assert ("sound 1 (pcm_s16le) is left out" in printed) == (tag is not None)


@pytest.mark.parametrize("rate", [192000, 37800, 5000])
def test_sound_of_192_khz(checkpoint, tmp_path, rate):
    clip = write_video(tmp_path / "clip.mkv", 25, fps=25, sound=("pcm_s16le", rate, "stereo"))
    assert infer(clip, checkpoint, tmp_path / "out")[0] == 0
    assert paint(clip, tmp_path / "out", tmp_path / "o.mp4")[0] == 0
    with av.open(str(tmp_path / "o.mp4")) as file:
        seconds = sum(frame.samples / frame.rate for frame in file.decode(audio=0))
    assert abs(seconds - 1) < 0.15


@pytest.mark.slow
def test_partial_files_after_a_kill(checkpoint, tmp_path):
    """`.o.PID.partial.mp4` stayed."""
    clip = write_video(tmp_path / "clip.mp4", 120, 480, 960)
    assert infer(clip, checkpoint, tmp_path / "maps")[0] == 0
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = start("make_video.py", "--original_video", clip, "--saliency_dir",
                          tmp_path / "maps", "--output_path", tmp_path / "o.mp4")  # fmt: skip
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".o.*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
        assert len(list(tmp_path.glob(".o.*"))) == (number == signal.SIGKILL)
        assert not (tmp_path / "o.mp4").exists()
    assert paint(clip, tmp_path / "maps", tmp_path / "o.mp4")[0] == 0
    assert not list(tmp_path.glob(".o.*"))


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


@pytest.mark.parametrize("name, codec, pix_fmt", [
    ("clip.avi", "mjpeg", "yuvj420p"),
    ("clip.mkv", "libx264", "yuv444p"),
    ("clip.mkv", "libx264", "yuv420p10le"),
    ("clip.mkv", "ffv1", "bgr0"),
])  # fmt: skip
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


def test_a_map_over_a_picture_in_one_call():
    """As models.predict yields it, its maximum has the opacity 0.7 and the last colour of turbo."""
    rgb, saliency = np.full((H, W, 3), 100, np.uint8), torch.zeros(1, H // 2, W // 2)
    saliency[0, :, : W // 4] = 0.02
    painted = paint_picture(rgb, saliency).astype(int)
    red = cv2.applyColorMap(np.uint8([[255]]), cv2.COLORMAP_TURBO)[0, 0, ::-1].astype(int)
    assert painted[H // 2, W // 4] == pytest.approx(0.3 * 100 + 0.7 * red, abs=3)
    assert painted[H // 2, 3 * W // 4] == pytest.approx(np.full(3, 100), abs=1)
    assert (paint_picture(rgb, 0 * saliency) == rgb).all()


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


def test_planes_are_views():
    picture = np.zeros((6, 4), np.uint8)
    for k, plane in enumerate(planes(picture)):
        plane[:] = k + 1
    assert picture.tolist() == [[1] * 4] * 4 + [[2] * 4, [3] * 4]


def test_a_dull_scene_does_not_look_as_hot_as_a_lively_one(tmp_path):
    """Each map was shown on its own scale, and its brightness jumped."""
    maps = tmp_path / "maps"
    maps.mkdir()
    clip = write_video(tmp_path / "clip.mp4", frames=8)
    for n in range(1, 9):  # all maps look alike in 8 bits
        cv2.imwrite(str(maps / f"sal_{n:04d}.png"), np.full((24, 48), 255, np.uint8))
    facts = {"complete": True, "frame_count": 8, "fingerprint": fingerprint([clip]),
             "peaks": [0.5] * 6 + [0.05] * 2}  # fmt: skip
    (maps / "saliency.json").write_text(json.dumps(facts))

    def change(*more):
        """How far each overlay is from its frame."""
        assert paint(clip, maps, tmp_path / "o.mp4", "--crf", 0, *more)[0] == 0
        with av.open(str(tmp_path / "o.mp4")) as new, av.open(str(clip)) as old:
            pairs = zip(new.decode(video=0), old.decode(video=0), strict=True)
            return [np.abs(a.to_ndarray().astype(int) - b.to_ndarray()).mean() for a, b in pairs]

    lively, dull = change()[0], change()[-1]
    assert lively > 4 * dull > 0
    assert change("--scale", "frame")[-1] == pytest.approx(lively, rel=0.1)


def test_a_few_hot_moments_do_not_fade_all_others():
    factors = common_scale([0.5] * 99 + [5.0])
    assert factors == pytest.approx([1.0] * 99 + [10.0])
    assert common_scale([0.0, 0.0]) == [0.0, 0.0]


def test_peaks_of_second_rank_stay_visible():
    """Opacity was proportional to saliency; now half the saliency has three quarters of it."""
    overlay = Overlay("bone", 0.8, None, 8)
    values = np.array([[0, 64, 128, 255]], np.uint8)
    painted = overlay(np.zeros((1, 4, 3), np.uint8), values)[0, :, 0]
    colours = cv2.applyColorMap(values, cv2.COLORMAP_BONE)[0, :, 2]
    share = values[0] / 255
    assert np.abs(painted - 0.8 * share * (2 - share) * colours).max() <= 1
