"""SST-Sal against the authors' numbers, against the plain formulation, and on the sphere."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.plain_sst_sal import PlainSSTSal, tile_grid
from losses import SphericalKLDivergence
from models import load, predict
from models.sphere_layers import ConvLSTMCell, SphereMaxPool2d, to_images, to_pixels
from models.sphere_taps import SphereTaps, tap_angles
from models.sst_sal import SSTSal
from tests.seeded_sst_sal import SEEDED, recipe, seeded_weights
from tests.shared import reference, shared

AUTHORS = {"SST_Sal": (6, 36), "SST_Sal_wo_OF": (3, 9)}
VARIANTS = AUTHORS | SEEDED  # input and hidden channels
GRIDS = ("24x32_s1", "24x32_s2", "120x160_s1", "240x320_s1", "240x320_s2")
FORWARDS = (
    "rand0_T3_32x64",
    "rand0_T6_24x32",
    *(f"{kind}_T6_{size}" for kind in ("rand0", "blob", "sine") for size in ("120x160", "240x320")),
    "blob_T20_120x160",
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(arrays) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(a) for k, a in dict(arrays).items() if a.dtype.kind in "fi"}


def stored(variant: str, part: str) -> dict[str, torch.Tensor]:
    """What a variant should compute: layers, maps, the last step or gradients."""
    if variant in AUTHORS:
        return tensors(np.load(shared(f"golden/sst_{variant}_{part}.npz")))
    return part_of("sst_sal.npz", f"{variant}/{part}/")


def part_of(name: str, prefix: str) -> dict[str, torch.Tensor]:
    found = tensors(reference(name))
    return {k.removeprefix(prefix): a for k, a in found.items() if k.startswith(prefix)}


def cases(authors, seeded) -> list[tuple[str, str]]:
    return [(v, n) for v in VARIANTS for n in (authors if v in AUTHORS else seeded)]


def reference_model(variant: str, height: int, width: int) -> SSTSal:
    channels, hidden = VARIANTS[variant]
    model = SSTSal(channels, hidden, sampling="reference", height=height, width=width)
    own = variant in SEEDED
    model.load_state_dict(seeded_weights(variant) if own else stored(variant, "state_dict"))
    return model.eval()


def convolve(image, weight, bias, taps: SphereTaps) -> torch.Tensor:
    """Convolution on the sphere: (B, C, H, W) → (B, out, H/stride, W/stride)."""
    samples = taps.read_all(to_pixels(image)).transpose(1, 2).flatten(2)
    matrix = weight.permute(0, 2, 3, 1).flatten(1)
    return to_images(F.linear(samples, matrix, bias), taps.out_size)


def gates(cell: ConvLSTMCell, image: torch.Tensor) -> torch.Tensor:
    """The cell's gates before activation, from its input and hidden state."""
    return convolve(image, cell.conv.weight, cell.conv.bias, cell.taps)


def pool_image(image: torch.Tensor, pool: SphereMaxPool2d) -> torch.Tensor:
    """(B, C, H, W) → (B, C, H/2, W/2)."""
    return to_images(pool(to_pixels(image)), pool.taps.out_size)


def run(model: SSTSal, clip: torch.Tensor) -> torch.Tensor:
    """clip: channels in the order that the weights expect, B, G, R of frames, then of flow."""
    return model(clip[:, :, :3].flip(2), clip[:, :, 3:].flip(2))


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1])


@pytest.mark.parametrize("name", GRIDS)
def test_taps_are_where_the_original_puts_them(name):
    if name.startswith("24x32"):
        known = part_of("sst_grids.npz", f"{name}/")
    else:
        known = tensors(np.load(shared(f"golden/sst_grid_{name}.npz")))
    height, width, stride = (int(known[k]) for k in ("h", "w", "stride"))
    rows = torch.arange(0, height, stride, dtype=torch.float64)
    latitude, east = tap_angles(rows, height, width, over_pole=False)
    row, offset = (math.pi / 2 - latitude) * height / math.pi - 0.5, east * width / (2 * math.pi)
    torch.testing.assert_close(row, known["row_pix"], atol=1e-11, rtol=0)
    torch.testing.assert_close(offset, known["col_offset_col5"], atol=1e-11, rtol=0)
    column = (offset + width) % width
    torch.testing.assert_close(column, known["col0_pix"], atol=1e-11, rtol=0)
    grid = tile_grid(height, width, stride)
    if "grid32_sub" in known:
        grid = grid.view(height // stride, 3, width // stride, 3, 2)[::8, :, ::16]
    expected = known.get("grid32", known.get("grid32_sub"))
    torch.testing.assert_close(grid, expected, atol=1e-15, rtol=0)  # −1e-16 for 0 in the middle


LAYERS = cases(["rand0_24x32", "blob_120x160", "rand0_240x320"], ["blob_12x16"])


@pytest.mark.parametrize("variant, name", LAYERS)
def test_layers_equal_the_original(variant, name):
    expected = stored(variant, f"layers_{name}")
    kind, size = name.split("_")
    height, width = map(int, size.split("x"))
    model = reference_model(variant, height, width)
    x = recipe(kind, 1, VARIANTS[variant][0], height, width)[:, 0]
    with torch.no_grad():
        zeros = x.new_zeros(1, model.encoder.lstm.hidden_channels, height, width)
        conv = gates(model.encoder.lstm, torch.cat([x, zeros], dim=1))
        h, c = model.encoder.lstm(to_pixels(x), None)
        h, c = (to_images(a, (height, width)) for a in (h, c))
        pool = pool_image(h, model.encoder.pool)
        dec_conv = gates(model.decoder.lstm, torch.cat([pool, pool[:, :1] * 0], dim=1))
        dec_h = to_images(model.decoder.lstm(to_pixels(pool), None)[0], model.half_size)
        got = {"conv": conv, "h": h, "c": c, "pool": pool, "dec_conv": dec_conv, "dec_h": dec_h}
        got["pool_of_input"] = pool_image(x, model.encoder.pool)
    h_channels = expected.get("h_channels")
    kept = {"conv": expected.get("conv_channels"), "h": h_channels, "c": h_channels}
    for layer in got.keys() & expected.keys():
        ours = got[layer]
        if ours.shape[1] != expected[layer].shape[1]:
            channels = kept.get(layer, h_channels)
            ours = ours[:, channels if len(channels) == expected[layer].shape[1] else slice(2)]
        torch.testing.assert_close(ours, expected[layer], atol=1e-5, rtol=0, msg=layer)


@pytest.mark.parametrize("variant, name", cases(FORWARDS, ["rand0_T6_24x32"]))
def test_forward_equals_the_original(variant, name):
    expected = stored(variant, "forward")[name]
    kind, frames, size = name.split("_")
    height, width = map(int, size.split("x"))
    clip = recipe(kind, int(frames[1:]), VARIANTS[variant][0], height, width)
    with torch.no_grad():
        maps = run(reference_model(variant, height, width), clip)
    assert maps.shape == (1, len(clip[0]), 1, height, width)
    assert torch.equal(maps[..., ::2, ::2], maps[..., 1::2, 1::2])
    ours = maps[..., ::2, ::2]
    error = (ours - expected).abs().amax((0, 2, 3, 4))
    assert error[:3].max() < 1e-5
    assert error[:6].max() < 2e-4
    for t in range(6, len(error)):  # the recurrence amplifies rounding
        assert (ours[0, t] - expected[0, t]).abs().mean() < 1e-3
        assert correlation(ours[0, t], expected[0, t]) >= 0.998


@pytest.mark.parametrize("variant, size", cases([(24, 32)], [(8, 8)]))
def test_last_step_from_the_originals_state(variant, size):
    height, width = size
    known = stored(variant, f"laststep_blob_T16_{height}x{width}")
    model = reference_model(variant, height, width)

    def state(part):
        h, c = known[f"{part}_h_before"], known[f"{part}_c_before"]
        return to_pixels(h), to_pixels(c)

    with torch.no_grad():
        h, c = model.encoder.lstm(to_pixels(known["x_last"]), state("enc"))
        pooled = model.encoder.pool(h)
        dec_h, dec_c = model.decoder.lstm(pooled, state("dec"))
        output = model.to_map(dec_h)
    for name, ours in {
        "enc_h_after": to_images(h, size),
        "enc_c_after": to_images(c, size),
        "pooled": to_images(pooled, model.half_size),
        "dec_h_after": to_images(dec_h, model.half_size),
        "dec_c_after": to_images(dec_c, model.half_size),
        "output": output,
    }.items():
        torch.testing.assert_close(ours, known[name], atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_and_one_step_of_sgd_equal_the_original(variant):
    known = stored(variant, "grads_rand0_T3_24x32")
    dtype = torch.float64 if variant in SEEDED else torch.float32
    model = reference_model(variant, 24, 32).train().to(dtype)
    clip = recipe("rand0", 3, VARIANTS[variant][0], 24, 32).to(dtype)
    truth = recipe("rand1000", 3, 1, 24, 32).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.8)
    loss = SphericalKLDivergence()(run(model, clip), truth)
    loss.backward()
    torch.testing.assert_close(loss.detach().float(), known["loss"], atol=1e-7, rtol=1e-5)
    for name, parameter in model.named_parameters():
        expected = known[f"grad.{name}"].flatten()
        some = parameter.grad.flatten()[:: parameter.numel() // len(expected)]
        error = (some - expected).abs().max() / expected.abs().max()
        assert error < 1e-4, name
    optimizer.step()
    after = SphericalKLDivergence()(run(model, clip), truth)
    stepped = known["loss_after_one_sgd_step_lr0.8"]
    torch.testing.assert_close(after.detach().float(), stepped, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("sampling", ["reference", "seamless"])
def test_gradients_by_differences(sampling):
    torch.manual_seed(0)
    taps = SphereTaps(4, 8, sampling=sampling).double()
    cell = ConvLSTMCell(1, 2, taps).double()
    pool = SphereMaxPool2d(SphereTaps(4, 8, stride=2, sampling=sampling)).double()
    h, c = torch.rand(2, 32, 2, 2).double()
    x = torch.rand(32, 2, 1).double()
    for leaf in (h, c, x):
        leaf.requires_grad_()

    def step(x, h, c, *_):
        return cell(x, (h, c))

    assert torch.autograd.gradcheck(step, (x, h, c, *cell.parameters()))
    image = torch.rand(2, 2, 4, 8).double().requires_grad_()
    weight, bias = torch.rand(3, 2, 3, 3).double(), torch.rand(3).double()
    kernel = weight.requires_grad_(), bias.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: convolve(*given, taps), (image, *kernel))
    assert torch.autograd.gradcheck(lambda image: pool_image(image, pool), image)


def test_blocks_change_nothing(monkeypatch):
    torch.manual_seed(0)
    model = SSTSal(3, 4, height=16, width=24)
    clip = torch.rand(2, 3, 3, 16, 24)
    with torch.no_grad():
        whole = run(model, clip)
        monkeypatch.setattr("models.sphere_taps.BLOCK_PIXELS", 7)
        torch.testing.assert_close(run(model, clip), whole, atol=1e-6, rtol=0)


def test_convolution_without_shift_finds_the_middle():
    """A symmetric kernel on a picture symmetric about a meridian and the equator keeps it so."""
    kernel = torch.tensor([[[[1.0, 2, 1], [3, 5, 3], [1, 2, 1]]]])
    image = torch.rand(1, 1, 16, 32)
    image = image + image.flip(-1)
    image = image + image.flip(-2)
    pool = SphereMaxPool2d(SphereTaps(16, 32, stride=2))
    for out in (convolve(image, kernel, None, SphereTaps(16, 32)), pool_image(image, pool)):
        torch.testing.assert_close(out, out.flip(-1))
        torch.testing.assert_close(out, out.flip(-2))


def test_convolution_crosses_the_pole():
    """North of the first row is the same row, half a turn away."""
    kernel = torch.zeros(1, 1, 3, 3)
    kernel[0, 0, 0, 1] = 1  # the northern neighbour
    image = torch.rand(1, 1, 16, 32)
    north = convolve(image, kernel, None, SphereTaps(16, 32))
    torch.testing.assert_close(north[..., 0, :], image[..., 0, :].roll(16, -1))
    torch.testing.assert_close(north[..., 1:, :], image[..., :-1, :])


@pytest.mark.parametrize("half_pixel", [False, True])
def test_rolling_the_input_rolls_the_output(half_pixel):
    torch.manual_seed(0)
    model = SSTSal(6, 8, half_pixel=half_pixel, height=24, width=48).eval()
    clip = torch.rand(1, 5, 6, 24, 48)
    with torch.no_grad():
        maps = run(model, clip)
        for shift in (2, 14, 24, 46):  # pooling halves the width, so even shifts
            rolled = run(model, clip.roll(shift, -1))
            assert (rolled - maps.roll(shift, -1)).abs().max() < 1e-4
    assert maps.min() >= 0 and maps.max() <= 2


@pytest.mark.parametrize("half_pixel", [False, True])
def test_the_seam_is_a_place_like_any_other(half_pixel):
    """Mean over all turns: the step across ±180° is that between any two values of the state.

    A value is two columns wide, enlarged linearly, so every second step is such a one.
    """
    torch.manual_seed(1)
    model = SSTSal(3, 4, half_pixel=half_pixel, height=24, width=32).eval()
    clip = torch.rand(1, 4, 3, 24, 32)
    turned = torch.cat([clip.roll(turn, dims=-1) for turn in range(32)])
    with torch.no_grad():
        maps = model(turned, turned[:, :, :0])
    steps = (maps - maps.roll(1, dims=-1)).abs().mean((0, 1, 2, 3))  # step 0 is the seam's
    assert torch.allclose(steps[::2], steps[0].expand(16), rtol=1e-3)
    assert steps[0] <= 1.3 * steps.mean()


def test_what_it_cannot_take_is_refused():
    with pytest.raises(ValueError, match="in_channels"):
        SSTSal(4)
    with pytest.raises(ValueError, match="sampling must be one of reference, seamless"):
        SSTSal(sampling="other", height=8, width=8)
    with pytest.raises(ValueError, match="multiple of 4"):
        SSTSal(height=24, width=30)
    model = SSTSal(height=8, width=16)
    with pytest.raises(ValueError, match="takes 6 channels of 8×16 pixels, got 3 of 8×16"):
        model(torch.rand(1, 1, 3, 8, 16), torch.rand(1, 1, 0, 8, 16))


def frames_of(clip: torch.Tensor):
    """A stream of frames for `predict`: clip (T, 3, H, W)."""
    for rgb in clip:
        yield SimpleNamespace(rgb=rgb, motion=rgb[:0])


def predicted(model: SSTSal, frames) -> torch.Tensor:
    """Maps of a stream of frames, (T, 1, H, W)."""
    return torch.stack([saliency for _, saliency in predict(model, frames)])


def test_reference_windows_are_the_originals():
    """Each starts with a fresh state, and the first four maps of a window are dropped.

    The authors' code leaves out windows whose exclusive end is the last frame or beyond it; ours
    goes on.
    """
    torch.manual_seed(0)
    model = SSTSal(3, 9, sampling="reference", height=24, width=32).eval()
    plain = PlainSSTSal(model.state_dict(), 24, 32)
    clip = torch.rand(50, 3, 24, 32)
    ours = predicted(model, frames_of(clip))
    assert ours.shape == (50, 1, 24, 32)
    with torch.no_grad():
        windows = [*reference("numbers.json")["sst_windows"]["50"], (32, 49)]
        for (first, last), drop in zip(windows, (0, 4, 4), strict=True):
            window = plain(clip[None, first : last + 1].flip(2))[0, drop:]
            torch.testing.assert_close(ours[first + drop : last + 1], window, atol=2e-4, rtol=0)


@pytest.mark.parametrize("variant", ["SST_Sal_wo_OF", "seeded_wo_OF"])
def test_a_static_scene_does_not_drift(variant):
    if variant in SEEDED:
        model = SSTSal(*SEEDED[variant], height=60, width=80).eval()
        model.load_state_dict(seeded_weights(variant))
    else:
        model = load(shared(f"official/{variant}.pth"), height=60, width=80)
    still = recipe("rand0", 1, 3, 60, 80)[0].expand(80, -1, -1, -1)
    maps = predicted(model, frames_of(still))
    assert correlation(maps[20], maps[-10]) > 0.97
    assert (maps[20:].mean((1, 2, 3)).std() / maps[20:].mean()) < 0.1
