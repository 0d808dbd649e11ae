"""Benchmarks with data of their own: people near the camera."""

import math

import numpy as np
import pytest

from benchmarks.near_people import areas_in, read_moments, share


@pytest.mark.parametrize("box", [(-57, -34, -44, -15), (148, 198.3, -65, -26), (-180, 180, -90, 9)])
def test_boxes_have_their_solid_angle_on_any_grid_and_across_the_seam(box):
    left, right, bottom, top = np.radians(box)
    exact = (right - left) * (math.sin(top) - math.sin(bottom))
    for size in ((24, 48), (161, 320)):
        assert areas_in(box, *size).sum() == pytest.approx(exact, rel=1e-12)


def test_the_share_of_a_box_is_that_of_the_pixels_in_it():
    saliency = np.zeros((18, 36))
    saliency[10, [0, 35]] = 1  # latitudes −20° to −10°, at both sides of the seam
    assert share(saliency, (170, 190, -20, -10)) == pytest.approx(1)
    assert share(saliency, (175, 190, -20, -10)) == pytest.approx(3 / 4)
    assert share(saliency, (-170, 170, -90, 90)) == pytest.approx(0, abs=1e-12)


def test_the_boxes_of_people_are_valid():
    moments = read_moments()
    assert len(moments) == 8
    boxes = [box for moment in moments for box in moment["people"].values()]
    for left, right, bottom, top in boxes:
        assert -180 <= left < right < left + 90 and -90 < bottom < top < 10
    shown = [moment["file"] for moment in moments if moment["licence"]]
    assert len(shown) == 7 and not any(file.startswith("drive") for file in shown)
