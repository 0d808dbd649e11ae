"""Perspective views, the way back and rotations against closed forms on the sphere."""

import math
from functools import cache

import pytest
import torch
from torch.nn.functional import avg_pool2d

from projection import Equi2Cube, Face, angles_of, direction_of, directions, solid_angles
from projection.perspective import extent_of, samples_across
from projection.resampling import Resampling
from projection.sphere import (
    column_of,
    equirectangular_taps,
    latitude_of,
    latitudes,
    longitude_of,
    longitudes,
    orientation,
    row_of,
)
from recipes.perspective import Equi2Perspective, Perspective2Equi, rotate

pytestmark = pytest.mark.slow
POSES = [(0, 0, 0), (30, -20, 10), (180, 5, 0), (-175, 40, -65), (77, 90, 0), (10, -88, 170)]
FACES = {
    Face.FRONT: (0, 0), Face.RIGHT: (90, 0), Face.BACK: (180, 0), Face.LEFT: (-90, 0),
    Face.TOP: (0, 90), Face.BOTTOM: (0, -90),
}  # fmt: skip


def toward(longitude, latitude):
    """(3,) float64, of degrees."""
    angles = (torch.tensor(math.radians(a), dtype=torch.float64) for a in (longitude, latitude))
    return direction_of(*angles)


def harmonics(points):
    """Spherical harmonics of degree 1 to 3, at most 1: (..., 3) → (7, ...)."""
    x, y, z = (points / points.norm(dim=-1, keepdim=True)).unbind(-1)
    return torch.stack([x, y, z, x * y, x * z, (3 * y**2 - 1) / 2, x * (x**2 - 3 * z**2)])


@cache
def panorama(height, width, function=harmonics):
    return function(directions(height, width, torch.float64))[None]


# Pixels, angles, directions


@pytest.mark.parametrize(
    "longitude, latitude, direction",
    [(0, 0, (0, 0, 1)), (90, 0, (1, 0, 0)), (180, 0, (0, 0, -1)), (-90, 0, (-1, 0, 0)),
     (33, 90, (0, 1, 0)), (60, 30, (0.75, 0.5, math.sqrt(3) / 4))],
)  # fmt: skip
def test_directions_of_angles(longitude, latitude, direction):
    there = toward(longitude, latitude)
    assert there.tolist() == pytest.approx(direction, abs=1e-15)
    found = [math.degrees(a) for a in angles_of(5 * there)]
    assert found[1] == pytest.approx(latitude)
    assert abs(latitude) == 90 or found[0] == pytest.approx(longitude)


def test_pixels_and_angles_are_each_others_inverse():
    row, column = torch.linspace(-0.5, 12.5, 17, dtype=torch.float64).expand(2, -1)
    torch.testing.assert_close(row_of(latitude_of(row, 7), 7), row)
    torch.testing.assert_close(column_of(longitude_of(column, 13), 13), column)
    assert (row_of(math.pi / 2, 7), row_of(-math.pi / 2, 7)) == (-0.5, 6.5)
    borders = [column_of(longitude, 14) for longitude in (-math.pi, 0, math.pi)]
    assert borders == [-0.5, 6.5, 13.5]
    longitude, latitude = angles_of(directions(7, 13, torch.float64))
    torch.testing.assert_close(longitude, longitudes(13).expand(7, -1))
    torch.testing.assert_close(latitude, latitudes(7)[:, None].expand(-1, 13))


# Where a view looks


@pytest.mark.parametrize("yaw, pitch, roll", POSES)
def test_an_orientation_turns_then_lifts_then_leans(yaw, pitch, roll):
    right, up, ahead = orientation(*map(math.radians, (yaw, pitch, roll))).T
    torch.testing.assert_close(ahead, toward(yaw, pitch))
    level, above = toward(yaw + 90, 0), toward(yaw, pitch + 90)  # of the camera before it leans
    cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    torch.testing.assert_close(up, cos * above + sin * level)  # the upper edge leans to the right
    torch.testing.assert_close(right, cos * level - sin * above)


@pytest.mark.parametrize("yaw, pitch, roll", POSES)
@pytest.mark.parametrize("fov, h, w", [(90, 5, 5), (65, 7, 11), (140, 9, 3)])
def test_centre_edges_and_corners(yaw, pitch, roll, fov, h, w):
    """Angles from the middle, and where an unturned camera's edges lie, by the pinhole's tangents.

    The vertical field of view is 2·atan(tan(fov/2)·h/w).
    """
    view = Equi2Perspective(fov, (h, w))
    across, down = view.extent
    assert math.degrees(2 * math.atan(across)) == pytest.approx(fov)
    assert down == pytest.approx(across * h / w)
    rays = view.rays(yaw, pitch, roll)
    rays = rays / rays.norm(dim=-1, keepdim=True)
    middle = rays[h // 2, w // 2]
    torch.testing.assert_close(middle, toward(yaw, pitch))
    x, y = across * (w - 1) / w, down * (h - 1) / h  # tangents of the outermost pixel centres
    for i, j, tangent in ((h // 2, 0, x), (0, w // 2, y), (-1, -1, math.hypot(x, y))):
        assert math.acos(rays[i, j] @ middle) == pytest.approx(math.atan(tangent))
    plain = view.rays()
    right, top = math.degrees(math.atan(x)), math.degrees(math.atan(y))
    edges = plain[h // 2, -1], plain[0, w // 2]
    for ray, there in zip(edges, (toward(right, 0), toward(0, top))):
        torch.testing.assert_close(ray / ray.norm(), there)
    borders = view.rays(place=(0, 0))[0, 0]
    torch.testing.assert_close(borders, torch.tensor([-across, down, 1], dtype=torch.float64))


# What a view shows


@pytest.mark.parametrize("yaw, pitch, roll", POSES)
@pytest.mark.parametrize("fov", [40, 100])
def test_harmonics_through_a_view(yaw, pitch, roll, fov):
    """One bilinear sample errs by at most spacing²/8 · |f''| along each axis.

    |f''| of these harmonics is at most 9 along a parallel or meridian, near the poles too.
    """
    view = Equi2Perspective(fov, (90, 160))
    wanted = harmonics(view.rays(yaw, pitch, roll))[None]
    errors = []
    for height in (100, 200):
        assert samples_across(view.extent, 160, height, 2 * height) == 1
        seen = view(panorama(height, 2 * height), yaw, pitch, roll)
        errors.append((seen - wanted).abs().max().item())
        assert errors[-1] < 2 * 9 / 8 * (math.pi / height) ** 2
    assert errors[0] / errors[1] > 2.5  # second order


@pytest.mark.parametrize("face", Face)
def test_faces_of_the_cube_are_square_views(face):
    image = torch.rand(2, 3, 60, 120, dtype=torch.float64)
    faces = Equi2Cube(60, 120, 40)(image).unflatten(0, (2, 6))[:, face]
    seen = Equi2Perspective(90, (40, 40))(image, *FACES[face])
    torch.testing.assert_close(seen, faces, atol=1e-6, rtol=0)


def test_a_turn_by_whole_columns_is_a_shift():
    image = torch.rand(1, 2, 20, 40, dtype=torch.float64)
    view = Equi2Perspective(70, (9, 16))
    shifted = view(image.roll(-7, -1), 0, 25, 5)
    torch.testing.assert_close(view(image, 7 * 9, 25, 5), shifted, atol=1e-6, rtol=0)


# Anti-aliasing


@pytest.mark.parametrize("yaw, pitch, roll", [(10, 5, 0), (180, 35, 20), (77, 90, 0)])
@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("pattern, left", [("checks", 0.01), ("columns", 0.06), ("rows", 0.06)])
def test_patterns_finer_than_a_view_become_grey(yaw, pitch, roll, width, pattern, left):
    """The mean stays, and moiré is faint: what is left at a quarter of the view's resolution.

    Of the pattern's standard deviation it is this share at the most, and at most a sixth of what
    single samples leave.
    """
    rows, columns = torch.arange(480).double()[:, None] % 2, torch.arange(960).double() % 2
    images = {"rows": rows, "columns": columns, "checks": (rows + columns) % 2}
    image = images[pattern].expand(1, 1, 480, 960)
    view, size = Equi2Perspective(90, (width * 9 // 16, width)), (480, 960)
    assert samples_across(view.extent, width, *size) > 2
    seen = view(image, yaw, pitch, roll)
    single = Resampling(*equirectangular_taps(view.rays(yaw, pitch, roll), *size), size)(image)
    assert abs(seen.mean() - 0.5) < 0.005
    moire, before = (avg_pool2d(2 * v - 1, 4).square().mean().sqrt() for v in (seen, single))
    assert moire < left and moire < before / 6


# And back


@pytest.mark.parametrize("yaw, pitch, roll", POSES)
def test_there_and_back(yaw, pitch, roll):
    """Where the view covers whole pixels, the sphere comes back; elsewhere there is nothing."""
    source = panorama(90, 180)
    there, back = Equi2Perspective(80, (120, 160)), Perspective2Equi(80, (90, 180))
    image, weight = back(there(source, yaw, pitch, roll), yaw, pitch, roll)
    assert weight.shape == (1, 1, 90, 180) and 0 <= weight.min() <= weight.max() == 1
    covered = (weight == 1).expand_as(image)
    assert (image - source)[covered].abs().max() < 0.01
    assert (image[(weight == 0).expand_as(image)] == 0).all()
    camera = orientation(*map(math.radians, (yaw, pitch, roll)))
    x, y, z = (directions(90, 180, torch.float64) @ camera).unbind(-1)
    across, down = there.extent
    margin = torch.minimum(across - (x / z).abs(), down - (y / z).abs()).where(z > 0, -1)
    assert (weight[0, 0][margin > 0.06] == 1).all() and (weight[0, 0][margin < -0.06] == 0).all()


@pytest.mark.parametrize("yaw, pitch, roll", POSES)
@pytest.mark.parametrize("fov, h, w", [(60, 20, 20), (110, 24, 40)])
def test_the_weight_covers_the_solid_angle_of_a_pyramid(yaw, pitch, roll, fov, h, w):
    """4·asin(sin(α/2)·sin(β/2)) of a right pyramid with apex angles α and β."""
    view = torch.ones(1, 1, h, w, dtype=torch.float64)
    _, weight = Perspective2Equi(fov, (80, 160))(view, yaw, pitch, roll)
    half = [math.sin(math.atan(tangent)) for tangent in extent_of(fov, h, w)]
    area = (weight[0, 0] * solid_angles(80, 160, torch.float64)).sum().item()
    assert area == pytest.approx(4 * math.asin(half[0] * half[1]), rel=0.015)


# Rotation


@pytest.mark.parametrize("yaw, pitch, roll", POSES)
def test_rotated_harmonics(yaw, pitch, roll):
    camera = orientation(*map(math.radians, (yaw, pitch, roll)))
    source, rays = panorama(120, 240), directions(120, 240, torch.float64)
    turned = rotate(source, yaw, pitch, roll)
    bound = 2 * 9 / 8 * (math.pi / 120) ** 2
    assert (turned - harmonics(rays @ camera.T)[None]).abs().max() < bound
    undone = rotate(source, yaw, pitch, roll, inverse=True)
    assert (undone - harmonics(rays @ camera)[None]).abs().max() < bound
    assert (rotate(turned, yaw, pitch, roll, inverse=True) - source).abs().max() < 2 * bound
    view = Equi2Perspective(90, (30, 40))
    assert (view(turned) - view(source, yaw, pitch, roll)).abs().max() < 2 * bound


def test_rotation_by_hand():
    """What was above comes to the middle with pitch 90°, what was at longitude 30° with yaw 30°."""
    image = torch.zeros(1, 1, 18, 36, dtype=torch.float64)
    image[..., :3, :] = 1  # around the north pole
    assert rotate(image, 0, 90)[0, 0, 8:10, 17:19].min() > 0.99
    assert rotate(image, 0, 90, inverse=True)[0, 0, 8:10, [0, 35]].min() > 0.99
    image = torch.rand(1, 2, 18, 36, dtype=torch.float64)
    for turned, expected in (
        (rotate(image, 30), image.roll(-3, -1)),
        (rotate(image, 30, inverse=True), image.roll(3, -1)),
        (rotate(image, 0, 0, 180), image.flip(-2, -1)),
    ):
        torch.testing.assert_close(turned, expected, atol=1e-6, rtol=0)


# Types, gradients, refusals


def test_gradients_flow_both_ways():
    torch.manual_seed(0)
    image = torch.rand(2, 1, 4, 8, dtype=torch.float64, requires_grad=True)
    for view in (Equi2Perspective(80, (3, 5)), Equi2Perspective(120, (2, 2))):
        assert torch.autograd.gradcheck(lambda i, v=view: v(i, 170, 60, 30), image)
    assert samples_across(view.extent, 2, 4, 8) > 1
    assert torch.autograd.gradcheck(lambda i: rotate(i, 20, 30, 40), image)
    seen = torch.rand(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    back = Perspective2Equi(80, (4, 8))
    assert torch.autograd.gradcheck(lambda s: back(s, 170, 60, 30)[0], seen)
