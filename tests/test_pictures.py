"""Still pictures: sizes, bit depths, transparency, animation, headers that lie."""

import math
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from datasets.layouts import read_truth
from models import Spec
from recipes.flat import to_tensor
from tests.clips import moving_disc
from tests.commands import infer, paint, refusal
from video import read_frames
from video.decoding import probe
from video.pictures import read_picture, resize

SPEC = Spec(height=24, width=48, fps=8.0, motion="difference")


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
