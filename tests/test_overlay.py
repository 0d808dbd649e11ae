"""The overlay: colours, opacity, scale, growing maps, pixel formats."""

import json
import sys

import av
import cv2
import numpy as np
import pytest
import torch

import make_video
from maps.folder import fingerprint
from maps.saved import common_scale
from tests.clips import write_video
from tests.commands import paint
from tests.overlays import clip, frames, maps, render, sounds
from tests.spherical import read_spherical
from video.yuv import Colour, planes
from views.overlay import Overlay, paint_picture, resize_map

W, H = 96, 48


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", [])


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
