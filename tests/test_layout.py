"""Where on the sphere pictures lie, against functions on the sphere in closed form."""

import numpy as np
import pytest

from video.layout import MONO, SPHERE, Layout
from views.overlay import lay_map, resize_map

COVERAGES = [
    (-90, 90, -90, 90),  # VR180
    (-180, 180, -60, 62.5),  # across the seam
    (-180, 180, 35, 90),  # round the north pole
    (-180, 180, -90, -20),
    (-33.3, 71.7, -12.5, 44.1),  # on no pixel's edge
    (100, 180, -90, 90),  # up to the seam
]


def smooth(coverage, height, width):
    """Samples of a function that is smooth on the sphere: (H, W, 3) uint8."""
    west, east, south, north = np.radians(coverage)
    latitude = north - (np.arange(height)[:, None] + 0.5) * (north - south) / height
    longitude = west + (np.arange(width) + 0.5) * (east - west) / width
    x = np.cos(latitude) * np.sin(longitude)
    y = np.sin(latitude) + 0 * longitude
    z = np.cos(latitude) * np.cos(longitude)
    values = np.stack([x * y + z, y * z - x, x * z + y], -1)
    return np.rint(127.5 + 70 * values).astype(np.uint8)


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("scale", [0.5, 1, 2.7])
def test_a_part_is_put_where_it_belongs(coverage, scale):
    """At the seam and the poles too; pixels are averaged, interpolated and left as they are."""
    height, width = 180, 360
    west, east, south, north = coverage
    rows = round(scale * height * (north - south) / 180)
    picture = smooth(coverage, rows, round(scale * width * (east - west) / 360))
    layout = Layout("none", coverage)
    seen = layout.panorama(picture, height, width)
    assert seen.shape == (height, width, 3)
    covered = layout.covered(height, width)
    wrong = np.abs(seen.astype(int) - smooth(SPHERE, height, width))
    assert wrong[covered].max() <= (2 if scale >= 1 else 4)  # half a pixel beyond its last centre
    # Rows and columns that end at a pole or at ±180° belong to it.
    assert covered[0].any() == (north == 90) and covered[-1].any() == (south == -90)
    assert covered[:, -1].any() == (east == 180)
    assert abs(covered.mean() - (north - south) * (east - west) / 180 / 360) < 0.01


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("size", [(30, 60), (180, 360), (500, 1000)])
def test_a_map_is_taken_from_where_it_belongs(coverage, size):
    layout = Layout("none", coverage)
    sphere = np.ascontiguousarray(smooth(SPHERE, *size)[..., 0])
    wrong = layout.part(sphere, 140, 200).astype(int) - smooth(coverage, 140, 200)[..., 0]
    assert np.abs(wrong).max() <= (2 if size[0] > 30 else 4)


def test_pixels_on_the_grid_are_copied():
    picture = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    layout = Layout("none", (-90, 90, -45, 90))
    seen = layout.panorama(picture[:30, 20:60])
    assert seen.shape == picture.shape
    inside = layout.covered(40, 80)
    assert np.array_equal(seen[inside], picture[inside]) and inside.sum() == 30 * 40
    assert np.array_equal(layout.part(picture[..., 0], 30, 40), picture[:30, 20:60, 0])


def test_what_is_not_covered_repeats_the_nearest_edge():
    picture = np.tile(np.arange(8, dtype=np.uint8) * 30, (8, 1))
    seen = Layout("none", (-90, 90, -90, 90)).panorama(picture)
    assert seen[0].tolist() == [0] * 4 + (np.arange(8) * 30).tolist() + [210] * 4
    moved = Layout("none", (0, 90, -90, 90)).panorama(picture)  # its edges meet at -135°
    assert moved[0, 0] == 210 and moved[0, 5] == 0 and moved.shape == (8, 32)


def test_a_mono_sphere_is_left_alone():
    picture = np.random.default_rng(0).integers(0, 256, (41, 80, 3), np.uint8)
    assert np.shares_memory(MONO.panorama(picture, 10, 20), picture)
    assert np.array_equal(MONO.panorama(picture), picture) and MONO.covered(4, 8).all()
    saliency = picture[..., 0]
    assert np.array_equal(lay_map(saliency, 99, 201, MONO), resize_map(saliency, 99, 201))


@pytest.mark.parametrize(("stereo", "axis"), [("top-bottom", 0), ("left-right", 1)])
@pytest.mark.parametrize("odd", [0, 1])
def test_both_eyes_get_the_map_of_the_left_one(stereo, axis, odd):
    left, right = np.random.default_rng(0).integers(0, 256, (2, 40, 80, 3), np.uint8)
    picture = np.concatenate([left, right], axis)
    picture = np.pad(picture, [(0, odd), (0, odd), (0, 0)])
    layout = Layout(stereo)
    if not odd:
        assert np.array_equal(layout.panorama(picture), left)
    size = picture.shape[:2]
    laid = lay_map(left[..., 0], *size, layout)
    eyes = [laid[eye] for eye in layout.eyes(*size)]
    assert laid.shape == size and np.array_equal(*eyes)
    assert eyes[0].shape == (40, 80) if not odd else min(eyes[0].shape) >= 40
    if not odd:
        assert np.array_equal(eyes[0], left[..., 0])


@pytest.mark.parametrize(
    ("stereo", "coverage"),
    [("both", SPHERE), ("none", (-180, 181, -90, 90)), ("none", (90, -90, -90, 90)),
     ("none", (-90, 90, 10, 10)), ("none", (float("nan"), 90, 0, 10)), ("none", (1, 2, 3))],
)  # fmt: skip
def test_no_layout(stereo, coverage):
    with pytest.raises(ValueError, match=r"stereo is|give the coverage|unpack"):
        Layout(stereo, coverage)
