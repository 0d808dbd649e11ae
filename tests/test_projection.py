"""The cube projection and the solid angles against closed forms on the sphere."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from projection import Cube2Equi, Equi2Cube, Face, directions, resampling, solid_angles
from projection.cubemap import FACE_AXES, cube_taps, face_directions, locate
from projection.resampling import Resampling
from projection.sphere import equirectangular_taps, latitudes, longitudes
from tests.shared import reference

SIZES = [(240, 480, 120), (64, 128, 32), (61, 123, 31), (90, 200, 45)]


def smooth(points):
    """Four channels of the direction, as in the published comparison: (..., 3) → (4, ...)."""
    x, y, z = (points / points.norm(dim=-1, keepdim=True)).unbind(-1)
    wave = 0.5 + 0.3 * torch.sin(2 * x + 1) * torch.cos(1.5 * y) + 0.2 * torch.sin(2 * z - 0.5)
    return torch.stack([x, y, z, wave])


def smooth_equi(height, width):
    return smooth(directions(height, width, torch.float64))[None]


def smooth_faces(size):
    return smooth(face_directions(size)).transpose(0, 1)


def test_directions_are_where_the_convention_says():
    d = directions(180, 360, torch.float64)
    torch.testing.assert_close(d.norm(dim=-1), torch.ones(180, 360, dtype=torch.float64))
    half = math.radians(0.5)
    forward_right_up = torch.tensor(
        [math.cos(half) * math.sin(half), math.sin(half), math.cos(half) ** 2], dtype=torch.float64
    )
    torch.testing.assert_close(d[89, 180], forward_right_up)
    assert d[0, :, 1].min() > math.cos(2 * half)  # row 0 is north
    assert d[90, 270, 0] > 0.999  # three quarters to the right looks right
    assert d[90, 0, 2] < -0.999  # the left edge looks back


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (61, 123), (240, 480), (960, 1920)])
def test_solid_angles_are_exact(height, width):
    area = solid_angles(height, width, torch.float64)
    assert area.shape == (height, 1)
    assert math.isclose(area.sum().item() * width, 4 * math.pi, rel_tol=1e-13)
    # The first k rows are a polar cap of height 1 − sin φ: area 2π(1 − cos θ), Archimedes.
    k = max(1, height // 3)
    cap = 2 * math.pi * (1 - math.cos(k * math.pi / height))
    assert math.isclose(area[:k].sum().item() * width, cap, rel_tol=1e-12)
    single = solid_angles(height, width)
    assert single.dtype == torch.float32
    assert math.isclose(single.double().sum().item() * width, 4 * math.pi, rel_tol=1e-6)


def test_solid_angles_integrate_spherical_harmonics():
    """∫ Y dΩ of degree 1 and 2 vanishes; ∫ y² dΩ = 4π/3."""
    d, area = directions(400, 800, torch.float64), solid_angles(400, 800, torch.float64)
    x, y, z = d.unbind(-1)
    for harmonic in (x, y, z, x * y, y * z, x * z, x**2 - z**2):
        assert abs((harmonic * area).sum().item()) < 1e-9
    assert math.isclose((y**2 * area).sum().item(), 4 * math.pi / 3, rel_tol=1e-4)


def test_faces_follow_the_drawing():
    """Directions (x, y, z) of (u, v) in each face, written out as in design and README."""
    size = 5
    c = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1
    v, u = torch.meshgrid(c, c, indexing="ij")
    one = torch.ones_like(u)
    written = [
        (-u, -v, -one), (u, -one, -v), (u, -v, one), (-one, -v, u), (one, -v, -u), (u, one, v),
    ]  # fmt: skip
    written = torch.stack([torch.stack(axes, -1) for axes in written])
    torch.testing.assert_close(face_directions(size), written)


def test_locate_is_the_inverse_of_face_directions():
    points = face_directions(7)
    face, u, v = locate(points * 3.7)
    c = (torch.arange(7, dtype=torch.float64) + 0.5) * 2 / 7 - 1
    assert (face == torch.arange(6)[:, None, None]).all()
    torch.testing.assert_close(u, c.expand(6, 7, 7))
    torch.testing.assert_close(v, c[:, None].expand(6, 7, 7))


def test_faces_are_avs360s():
    """Directions of face pixels, and the face and the place in it that a panorama's pixel meets."""
    stored = {k: torch.from_numpy(v).double() for k, v in reference("cube_projection.npz").items()}
    points = face_directions(16)[:, ::3, ::3]
    right_up_front = stored["faces"].flip(1).permute(0, 2, 3, 1)
    points = points / points.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(points, right_up_front, atol=1e-6, rtol=0)
    face, u, v = locate(directions(32, 64, torch.float64))
    assert torch.equal(face.double(), stored["face_of_pixel"])
    place = (torch.stack([u, v], dim=-1)[::3, ::3] + 1) / 2 * 15
    torch.testing.assert_close(place, stored["place_in_face"], atol=1e-5, rtol=0)


def test_avs360_reads_a_pixel_and_a_half_to_the_lower_right_of_our_source():
    """Their face pixel k lies at −1 + 2k/S, and they add 1 to pixel numbers that lack the half.

    Their angles come from tables that are linear between entries, hence the tolerance.
    """
    stored = {k: torch.from_numpy(v).double() for k, v in reference("cube_projection.npz").items()}
    aligned = torch.arange(0, 16, 2, dtype=torch.float64) / 8 - 1
    v, u = torch.meshgrid(aligned, aligned, indexing="ij")
    x, y, z = (torch.stack([u, v, torch.ones_like(u)], dim=-1) @ FACE_AXES[:, None]).unbind(-1)
    column = (torch.atan2(x, z) / math.pi + 1) * 32 - 0.5 + 1.5
    row = (0.5 - torch.atan2(y, torch.hypot(x, z)) / math.pi) * 32 - 0.5 + 1.5
    assert (column.clamp(1, 63) - stored["source_column"]).abs().max() < 0.05
    assert (row.clamp(1, 31) - stored["source_row"]).abs().max() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_published_accuracy_at_240_480_120(dtype):
    equi, faces = smooth_equi(240, 480).to(dtype), smooth_faces(120).to(dtype)
    to_cube, to_equi = Equi2Cube(240, 480, 120), Cube2Equi(120, 240, 480)
    assert to_cube(equi).dtype == dtype
    assert (to_cube(equi) - faces).abs().max() < 5e-4
    assert (to_equi(faces) - equi).abs().max() < 5e-4
    error = (to_equi(to_cube(equi)) - equi).square().mean()
    assert -10 * math.log10(error) >= 85  # the published implementation keeps 39 dB


@pytest.mark.parametrize("height, width, size", SIZES)
def test_accuracy_is_second_order_at_any_size(height, width, size):
    """Bilinear interpolation errs by at most spacing² / 8 · |f''| in each of two directions."""
    equi, faces = smooth_equi(height, width), smooth_faces(size)
    spacing = max(math.pi / height, 2 * math.pi / width, 2 / size)
    bound = 2 * spacing**2 / 8 * 4
    assert (Equi2Cube(height, width, size)(equi) - faces).abs().max() < bound
    assert (Cube2Equi(size, height, width)(faces) - equi).abs().max() < bound


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 80), st.integers(1, 20))
def test_taps_are_convex_for_any_size(height, width, size):
    for index, weight, pixels in (
        (*equirectangular_taps(face_directions(size), height, width), height * width),
        (*cube_taps(directions(height, width, torch.float64).reshape(-1, 3), size), 6 * size**2),
    ):
        assert index.min() >= 0
        assert index.max() < pixels
        assert weight.min() > -1e-9
        torch.testing.assert_close(weight.sum(0), torch.ones_like(weight[0]))


def test_a_quarter_turn_moves_the_faces_on():
    """Turning the panorama by 90° permutes the side faces and turns top and bottom."""
    image = torch.rand(1, 3, 40, 80, dtype=torch.float64)
    convert = Equi2Cube(40, 80, 16).double()
    before, after = convert(image), convert(image.roll(20, dims=-1))
    for old, new in (("FRONT", "RIGHT"), ("RIGHT", "BACK"), ("BACK", "LEFT"), ("LEFT", "FRONT")):
        torch.testing.assert_close(after[Face[new]], before[Face[old]], atol=1e-6, rtol=0)
    turned_top = torch.rot90(before[Face.TOP], 1, (-2, -1))
    turned_bottom = torch.rot90(before[Face.BOTTOM], -1, (-2, -1))
    torch.testing.assert_close(after[Face.TOP], turned_top, atol=1e-6, rtol=0)
    torch.testing.assert_close(after[Face.BOTTOM], turned_bottom, atol=1e-6, rtol=0)


@pytest.mark.parametrize("width", [12, 13])
def test_the_pole_is_the_mean_of_what_lies_around_it(width):
    """Straight up lies between row 0 and row 0 half a turn away.

    For odd widths that is half a column off the grid, between two columns whose directions
    have a mean shorter than 1 by 1 − cos(π/W).
    """
    index, weight = equirectangular_taps(torch.tensor([0.0, 1.0, 1e-12]).double(), 6, width)
    assert (index < width).all()
    angle = longitudes(width)[index]
    bound = 1e-9 if width % 2 == 0 else (1 - math.cos(math.pi / width)) / 2 + 1e-9
    assert abs((weight * angle.cos()).sum()) <= bound
    assert abs((weight * angle.sin()).sum()) <= bound


def test_the_seam_lies_half_way_between_the_outer_columns():
    row = 7
    latitude = latitudes(20)[row]
    back = torch.stack([torch.zeros(()).double(), latitude.sin(), -latitude.cos()])
    index, weight = equirectangular_taps(back, 20, 40)
    found = {int(i): round(float(w), 9) for i, w in zip(index, weight) if w > 1e-9}
    assert found == {row * 40: 0.5, row * 40 + 39: 0.5}


def test_an_edge_of_the_cube_is_half_of_either_face():
    index, weight = cube_taps(torch.tensor([[1.0, 0.0, 1.0]]).double(), 8)
    assert weight[:, 0].tolist() == pytest.approx([0.25] * 4)
    assert sorted((index[:, 0] // 64).tolist()) == [Face.FRONT] * 2 + [Face.RIGHT] * 2


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_a_corner_of_the_cube_is_a_third_of_each_face(signs):
    index, weight = cube_taps(torch.tensor([signs]).double(), 8)
    used = weight[:, 0] > 1e-9
    assert weight[used, 0].tolist() == pytest.approx([1 / 3] * 3)
    assert len(set((index[used, 0] // 64).tolist())) == 3


def test_interpolation_is_continuous_across_every_edge():
    """Two directions a hair apart on either side of an edge get the same value."""
    torch.manual_seed(0)
    pixels = torch.rand(6 * 8 * 8, dtype=torch.float64)
    t = torch.linspace(-1, 1, 101, dtype=torch.float64)
    hair = 1e-9

    def value(points):
        index, weight = cube_taps(points, 8)
        return (pixels[index] * weight).sum(0)

    for a, b in ((0, 1), (0, 2), (1, 2)):
        for sign_a in (-1, 1):
            for sign_b in (-1, 1):
                points = torch.empty(101, 3, dtype=torch.float64)
                points[:, a], points[:, b], points[:, 3 - a - b] = sign_a, sign_b, t
                over, under = points.clone(), points.clone()
                over[:, a] *= 1 + hair
                under[:, b] *= 1 + hair
                torch.testing.assert_close(value(over), value(under), atol=1e-6, rtol=0)


def test_gradients_flow_through_both_projections():
    torch.manual_seed(0)
    image = torch.rand(2, 2, 6, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Equi2Cube(6, 12, 3).double(), image)
    faces = torch.rand(12, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Cube2Equi(3, 6, 12).double(), faces)
    assert torch.autograd.gradgradcheck(Cube2Equi(3, 6, 12).double(), faces)


def test_wrong_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"\(1, 3, 10, 24\)"):
        Equi2Cube(12, 24, 6)(torch.rand(1, 3, 10, 24))
    with pytest.raises(ValueError, match=r"\(5, 3, 6, 6\)"):
        Cube2Equi(6, 12, 24)(torch.rand(5, 3, 6, 6))
    with pytest.raises(ValueError, match="0×24"):
        directions(0, 24)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_images_together_are_resampled_as_each_alone(dtype, count):
    """With and without a gradient, and the gradient is the transposed map."""
    torch.manual_seed(0)
    index, weight = torch.randint(0, 50, (4, 70)), torch.rand(4, 70)
    matrix = torch.zeros(70, 50, dtype=torch.float64)
    matrix.index_put_((torch.arange(70).expand(4, -1), index), weight.double(), accumulate=True)
    sample = Resampling(index.view(4, 7, 10), weight.view(4, 7, 10), (5, 10))
    pixels = torch.rand(2, count, 5, 10).to(dtype)
    expected = (pixels.double().flatten(2) @ matrix.T).unflatten(2, (7, 10))
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    with torch.no_grad():
        result = sample(pixels)
    assert result.dtype == dtype and result.shape == (2, count, 7, 10)
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
    pixels.requires_grad_()
    result = sample(pixels)
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
    back = torch.rand_like(result)
    result.backward(back)
    expected = (back.double().flatten(2) @ matrix).unflatten(2, (5, 10))
    tolerance *= 4
    torch.testing.assert_close(pixels.grad.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("opencv", [4, 5])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("height, width, size", [(12, 24, 31), (13, 27, 8), (7, 5, 9), (1, 1, 1)])
def test_float32_is_the_sum_of_the_taps(height, width, size, channels, opencv, monkeypatch):
    """Also where faces are finer than the image, so that many taps lie beyond seam and poles."""
    monkeypatch.setattr(resampling, "OPENCV", min(opencv, resampling.OPENCV))
    torch.manual_seed(0)
    points = directions(height, width, torch.float64).flatten(0, 1)
    faces = face_directions(size).flatten(0, 2)
    for convert, shape, (index, weight) in (
        (Equi2Cube(height, width, size), (2, channels, height, width),
         equirectangular_taps(faces, height, width)),
        (Cube2Equi(size, height, width), (12, channels, size, size), cube_taps(points, size)),
    ):  # fmt: skip
        image = torch.rand(shape)
        cubes = image.unflatten(0, (-1, 6)).transpose(1, 2) if len(image) == 12 else image
        expected = (cubes.flatten(2)[..., index] * weight).sum(2)
        result = convert(image)
        given = image.to(memory_format=torch.channels_last)
        assert result.is_contiguous(memory_format=torch.channels_last) or channels in (2, 5)
        torch.testing.assert_close(convert(given), result)
        if len(image) == 2:
            result = result.unflatten(0, (-1, 6)).transpose(1, 2)
        torch.testing.assert_close(result.flatten(2).double(), expected, atol=2e-5, rtol=0)
        for dtype in (torch.bfloat16, torch.float16):
            result = convert(image.to(dtype))
            assert result.dtype == dtype
            torch.testing.assert_close(result.float(), convert(image), atol=1e-2, rtol=1e-2)


def test_gradients_in_single_precision_are_those_in_double():
    torch.manual_seed(0)
    for convert, shape in (
        (Equi2Cube(13, 27, 8), (2, 3, 13, 27)),
        (Cube2Equi(8, 13, 27), (12, 3, 8, 8)),
    ):
        image = torch.rand(shape, requires_grad=True)
        back = torch.rand_like(convert(image))
        single = torch.autograd.grad(convert(image), image, back)[0]
        image = image.detach().double().requires_grad_()
        double = torch.autograd.grad(convert(image), image, back.double())[0]
        torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_of_bytes_are_rounded(channels):
    """A level is 1/255; OpenCV rounds places in bytes to 1/32 of a pixel."""
    equi = (127.5 * (smooth_equi(120, 240)[:, :channels] + 1)).round().byte()
    faces = 127.5 * (smooth_faces(60)[:, :channels] + 1)
    convert, back = Equi2Cube(120, 240, 60), Cube2Equi(60, 120, 240)
    together = convert(equi.expand(2, -1, -1, -1))
    assert together.dtype == torch.uint8 and together.shape == (12, channels, 60, 60)
    assert (together.double() - faces.repeat(2, 1, 1, 1)).abs().max() < 1.2
    frame = equi.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # as it is decoded
    assert torch.equal(convert(frame), together[:6])
    assert (back(together)[1:].double() - equi.double()).abs().max() < 2
    white = torch.full((1, channels, 120, 240), 255, dtype=torch.uint8)
    assert (back(convert(white)) == 255).all()


def test_a_resampling_follows_to_another_precision_and_back():
    """What is laid out for one call must not stay for the next."""
    convert, image = Equi2Cube(12, 24, 6), torch.rand(1, 3, 12, 24)
    before = convert(image)
    after = convert.double()(image.double())
    torch.testing.assert_close(after.float(), before, atol=1e-5, rtol=0)
    torch.testing.assert_close(convert.float()(image), before)
