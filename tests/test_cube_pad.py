"""Cube padding: the neighbours on all 24 edges, at every width."""

import pytest
import torch

from models import CubeUNet
from projection import CubePadding
from projection.cubemap import FACE_AXES, face_directions
from tests.shared import reference

FORMATS = [torch.contiguous_format, torch.channels_last]


def pixel_numbers(size):
    """Faces whose every pixel holds its own index: (6, 1, S, S) float64."""
    return torch.arange(6 * size * size, dtype=torch.float64).reshape(6, 1, size, size)


def pixel_of(code):
    """Decode face·10000 + row·100 + column of 8×8 faces to their index: (...) float64."""
    face, row, column = code // 10000, code // 100 % 100, code % 100
    return torch.from_numpy((face * 8 + row) * 8 + column).double()


def strips(padded, pad):
    """The four strips of each face, without the corners."""
    inner = slice(pad, -pad)
    horizontal = padded[..., :pad, inner], padded[..., -pad:, inner]
    return *horizontal, padded[..., inner, :pad], padded[..., inner, -pad:]


@pytest.mark.parametrize("size", [2, 3, 8, 15])
def test_strips_unfold_the_cube(size):
    """Beyond an edge the cube's surface goes on, unfolded: at depth d along the neighbour.

    A point of the face plane at u = 1 + d unfolds onto the cube at (1, v, 1 − d) in the
    face's axes: its coordinate along the edge stays, its height above the centre falls by d.
    """
    surface = face_directions(size).permute(0, 3, 1, 2)  # (6, 3, S, S): points of the cube
    for pad in range(1, size):
        padded = CubePadding(pad)(surface)
        local = torch.einsum("fkc,fcij->fkij", FACE_AXES, padded)  # u, v, depth of each
        centres = (torch.arange(-pad, size + pad, dtype=torch.float64) + 0.5) * 2 / size - 1
        for face in range(6):
            for i, v in enumerate(centres.tolist()):
                for j, u in enumerate(centres.tolist()):
                    if abs(u) > 1 and abs(v) > 1:
                        continue
                    depth = 1 - max(abs(u) - 1, 0) - max(abs(v) - 1, 0)
                    expected = [max(-1, min(1, u)), max(-1, min(1, v)), depth]
                    assert local[face, :, i, j].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("pad", [1, 2, 3])
def test_published_geometric_truth(pad):
    truth = reference("cube_padding.npz")[f"truth_pad{pad}"]
    known = torch.from_numpy(truth >= 0)
    found = CubePadding(pad)(pixel_numbers(8))[:, 0]
    assert torch.equal(found[known], pixel_of(truth)[known])
    assert known.sum() == 6 * (8 * 8 + 4 * 8 * pad)


def test_published_reference_at_width_one():
    published = pixel_of(reference("cube_padding.npz")["published_pad1"])[:, None]
    for ours, theirs in zip(strips(CubePadding(1)(pixel_numbers(8)), 1), strips(published, 1)):
        assert torch.equal(ours, theirs)


def test_the_reference_reverses_strips_at_width_two_and_we_do_not():
    """Regression: at p = 2 the published code turns the depth of 8 strips around."""
    theirs = pixel_of(reference("cube_padding.npz")["published_pad2"])[:, None]
    ours = CubePadding(2)(pixel_numbers(8))
    different = sum(
        int(not torch.equal(a[face], b[face]))
        for a, b in zip(strips(ours, 2), strips(theirs, 2))
        for face in range(6)
    )
    assert different == 8


@pytest.mark.parametrize("pad", [1, 2])
def test_corners_hold_the_mean_of_the_three_pixels_at_the_vertex(pad):
    size = 5
    x = torch.rand(12, 3, size, size, dtype=torch.float64)
    padded = CubePadding(pad)(x)
    last = size + pad - 1
    for block, own, beside, above in (
        ((slice(pad), slice(pad)), (pad, pad), (pad, pad - 1), (pad - 1, pad)),
        ((slice(pad), slice(-pad, None)), (pad, last), (pad, last + 1), (pad - 1, last)),
        ((slice(-pad, None), slice(pad)), (last, pad), (last, pad - 1), (last + 1, pad)),
        ((slice(-pad, None), slice(-pad, None)), (last, last), (last, last + 1), (last + 1, last)),
    ):
        mean = sum(padded[..., r, c] for r, c in (own, beside, above)) / 3
        expected = mean[..., None, None].expand(-1, -1, pad, pad)
        torch.testing.assert_close(padded[(..., *block)], expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("pad, late", [(1, False), (2, False), (1, True), (2, True)])
def test_a_pointwise_layer_is_the_same_before_a_padding_and_after(pad, late, memory_format):
    padding, x = CubePadding(pad, late), torch.rand(12, 3, 5, 5)
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU6())
    with torch.no_grad():
        after = layer(padding(x)).contiguous(memory_format=memory_format)
        torch.testing.assert_close(padding.fill_corners(after), padding(layer(x)))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("pad", [1, 2])
def test_gradcheck(pad, memory_format):
    x = torch.rand(12, 2, 3, 3, dtype=torch.float64).to(memory_format=memory_format)
    assert torch.autograd.gradcheck(CubePadding(pad), x.requires_grad_())


@pytest.mark.parametrize("memory_format", FORMATS)
def test_dtype_is_kept_and_the_format_is_channels_last(memory_format):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x = torch.rand(6, 4, 5, 5).to(dtype).to(memory_format=memory_format).requires_grad_()
        padded = CubePadding(1)(x)
        assert padded.dtype == dtype
        assert padded.is_contiguous(memory_format=torch.channels_last)


def test_a_padding_first_used_in_inference_mode_can_be_trained():
    """The index tensors are cached; those of inference mode once broke the next training step."""
    with torch.inference_mode():
        CubePadding(1)(torch.rand(6, 1, 7, 7))
    x = torch.rand(6, 1, 7, 7, requires_grad=True)
    CubePadding(1)(x).sum().backward()
    assert x.grad.sum() == 6 * (49 + 4 * 7) + 24


def test_no_padding_is_the_identity_and_what_can_not_be_padded_is_refused():
    wrong = {(5, 1, 4, 4): "B\\*6", (6, 1, 4, 5): "S, S", (6, 1, 2, 2): "pad 2"}
    for shape, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            CubePadding(2)(torch.rand(shape))
    assert CubePadding(0)(faces := torch.rand(6, 1, 4, 4)) is faces
    for pad, late, message in ((-1, False, "at least 0, got -1"), (0, True, "at least 1, got 0")):
        with pytest.raises(ValueError, match=message):
            CubePadding(pad, late)


@pytest.mark.slow
def test_compiles_without_a_break():
    """torch.compile once fell out of its graph at every padding."""
    model = CubeUNet(base_channels=2, height=68, width=136)
    whole = torch.compile(model, fullgraph=True, backend="aot_eager")
    clip = torch.rand(1, 1, 3, 68, 136), torch.rand(1, 1, 1, 68, 136)
    torch.testing.assert_close(whole(*clip), model(*clip), atol=1e-4, rtol=1e-4)  # places rounded
    whole(*clip).sum().backward()
    assert model.backbone.stem[1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize("channels", [1, 9])
@pytest.mark.parametrize("pad", [1, 2, 3])
def test_a_late_padding_lacks_the_first_row_and_column(pad, size, channels):
    """And its gradient, by which a pixel counts less often."""
    x = torch.rand(12, channels, size, size, requires_grad=True)
    late, whole = CubePadding(pad, late=True), CubePadding(pad)
    wanted = whole(x)[..., 1:, 1:]
    torch.testing.assert_close(late(x), wanted, atol=1e-6, rtol=0)
    weight = torch.rand_like(wanted)
    gradients = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (late(x), wanted))
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        torch.testing.assert_close(late(x), wanted, atol=1e-6, rtol=0)


def test_gradients_of_the_late_padding():
    x = torch.rand(6, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    for pad in 1, 2:
        assert torch.autograd.gradcheck(CubePadding(pad, late=True), x)
        assert torch.autograd.gradgradcheck(CubePadding(pad), x)
