"""Losses by hand and against the published implementations, the spherical KL among them."""

import math

import numpy as np
import pytest
import torch

from losses import LOSSES, MSE, SMSE, DensityLoss, SphericalKLDivergence
from tests.shared import reference

spherical_kl = SphericalKLDivergence()


def test_smse_of_a_constant_error_is_its_square_times_the_sphere():
    for shape in ((1, 1, 6, 12), (3, 1, 7, 9), (2, 4, 1, 5, 10)):
        target = torch.rand(shape, dtype=torch.float64)
        assert math.isclose(SMSE()(target + 0.5, target).item(), math.pi, rel_tol=1e-9)


def test_smse_by_hand_on_two_rows():
    """Each of the 2×2 pixels covers π steradians; one is off by 2: 4π."""
    target = torch.zeros(1, 1, 2, 2)
    pred = torch.tensor([[[[0.0, 2.0], [0.0, 0.0]]]])
    assert math.isclose(SMSE()(pred, target).item(), 4 * math.pi, rel_tol=1e-6)


def test_smse_weighs_a_polar_cap_by_its_area():
    """An error of 1 within 30° of a pole counts 2π(1 − cos 30°)."""
    pred = torch.zeros(1, 1, 90, 180)
    pred[..., :15, :] = 1
    cap = 2 * math.pi * (1 - math.cos(math.radians(30)))
    assert math.isclose(SMSE()(pred, torch.zeros_like(pred)).item(), cap, rel_tol=1e-5)


@pytest.mark.parametrize("case", range(3))
def test_smse_of_the_published_code(case):
    """Theirs is ours times h / tan h, h = π/2H: the trapezoid rule's error, in every row."""
    golden = reference("numbers.json")["smse"][case]
    shape = (golden["B"], 1, golden["H"], golden["W"])
    random = np.random.RandomState(golden["seed"])
    pred, target = (torch.from_numpy(random.rand(*shape).astype(np.float32)) for _ in range(2))
    ours = SMSE()(pred, target).item()
    half = math.pi / (2 * golden["H"])
    assert math.isclose(ours * half / math.tan(half), golden["smse"], rel_tol=1e-5)
    if golden["H"] >= 120:
        assert math.isclose(ours, golden["smse"], rel_tol=2e-4)


def test_mse_had_gradients_4_pi_times_smaller_than_smse():
    """It is that of a flat picture, in steradians: a learning rate means the same with both."""
    pred, target = torch.rand(2, 3, 1, 7, 9, dtype=torch.float64).unbind()
    expected = 4 * math.pi * torch.nn.functional.mse_loss(pred, target)
    torch.testing.assert_close(LOSSES["mse"]()(pred, target), expected)
    assert math.isclose(SMSE()(target + 0.5, target), MSE()(target + 0.5, target))


def test_losses_refuse_maps_that_only_broadcast():
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match="differ"):
            loss()(torch.rand(2, 1, 4, 8), torch.rand(2, 1, 4, 1))


def test_smse_is_summed_in_float32():
    pred = torch.full((1, 1, 240, 480), 0.5, dtype=torch.bfloat16)
    loss = SMSE()(pred, torch.zeros_like(pred))
    assert loss.dtype == torch.float32
    assert math.isclose(loss.item(), math.pi, rel_tol=1e-5)


def test_density_loss_by_hand_on_four_quarters():
    """2×2 pixels of π steradians. Truth (1, 0, 0, 0): density 4 in one quarter, 0 elsewhere.
    Prediction (1, 1, 0, 0): density 2 in two quarters. KLD = ln 2. CC: deviations (3, −1, −1,
    −1) and (1, 1, −1, −1): 4 / √(12 · 4) = 1/√3. SMSE: one error of 1 on π steradians.
    """
    target = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    pred = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    expected = math.log(2) + (1 - 3**-0.5) / 2 + math.pi
    assert math.isclose(DensityLoss()(pred, target).item(), expected, rel_tol=1e-5)


def test_density_loss_is_zero_for_the_truth_and_finite_for_any_map():
    target = torch.rand(2, 1, 12, 24) ** 8
    assert abs(DensityLoss()(target, target).item()) < 1e-5
    for pred in (torch.zeros(2, 1, 12, 24), torch.ones(2, 1, 12, 24)):
        pred.requires_grad_()
        loss = DensityLoss()(pred, target)
        loss.backward()
        assert loss.isfinite() and pred.grad.isfinite().all()


def test_density_loss_sees_scale_only_through_its_squared_error():
    pred, target = torch.rand(2, 1, 1, 12, 24).unbind()
    differ = [DensityLoss()(p, target) - SMSE()(p, target) for p in (pred, 0.1 * pred)]
    assert torch.isclose(*differ, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_areas_are_a_buffer_where_the_size_is_given(name):
    """The same value as with areas made at the call; maps of another size are taken, too."""
    pred, target = torch.rand(2, 3, 1, 12, 24).unbind()
    built = LOSSES[name](12, 24)
    assert [tuple(buffer.shape) for buffer in built.buffers()] == [(12, 1)]
    assert not built.state_dict()
    assert torch.equal(built(pred, target), LOSSES[name]()(pred, target))
    other = torch.rand(2, 3, 1, 6, 9).unbind()
    assert torch.equal(built(*other), LOSSES[name]()(*other))


def test_the_trained_spherical_kl_is_that_of_240_by_320_pixels():
    pred, target = torch.rand(2, 1, 1, 24, 32).unbind()
    trained, published = (
        LOSSES["spherical_kl"]()(pred, target),
        SphericalKLDivergence()(pred, target),
    )
    torch.testing.assert_close(trained, published / 100)


def blob(frames, height, width, x0=0.2, y0=0.3):
    t = np.arange(frames)[:, None, None]
    y, x = ((np.arange(height) + 0.5) / height)[:, None], (np.arange(width) + 0.5) / width
    dx, dy = (x - (x0 + 0.1 * t) + 0.5) % 1 - 0.5, y - (y0 + 0.05 * t)
    return np.exp(-(dx**2) / (2 * 0.06**2) - dy**2 / (2 * 0.1**2))[None]


def maps(name: str, frames: int, height: int, width: int):
    """Prediction and ground truth of a golden entry, (1, T, H, W) each."""
    if name.startswith("blob"):
        shift = float(name.removeprefix("blob").split("_")[0])
        return blob(frames, height, width), blob(frames, height, width, 0.2 + shift, 0.4)
    if name == "identical_120x160":
        return (blob(frames, height, width, 0.5, 0.4),) * 2
    if name.startswith("constant"):
        truth = np.random.RandomState(0).rand(2, 1, 1, height, width)[1]
        pair = np.full_like(truth, 0.5), truth
        return pair if "pred" in name else pair[::-1]
    seed = 3 if name.startswith("neg") else int(name[4])
    pred, truth = np.random.RandomState(seed).rand(2, 1, frames, height, width).astype(np.float32)
    return (2 * pred - 1 if name.startswith("neg") else pred), truth


NAMES = (
    *("rand0_24x32", "rand1_120x160", "rand2_240x320", "blob0.05_240x320", "blob0.3_120x160"),
    *("identical_120x160", "constant_pred_24x32", "constant_gt_24x32", "neg_pred_24x32"),
)


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_published_values(name):
    stored = reference("numbers.json")["spherical_kl"][name]
    pred, truth = (torch.from_numpy(m.astype(np.float32)) for m in maps(name, *stored["shape"][1:]))
    expected = torch.tensor(stored["per_frame"])
    divergences = torch.stack([spherical_kl(p, t) for p, t in zip(pred[0], truth[0])])
    torch.testing.assert_close(divergences, expected, atol=1e-8, rtol=2e-5)
    total = spherical_kl(pred.unsqueeze(2), truth.unsqueeze(2))
    torch.testing.assert_close(total, torch.tensor(stored["sum"]), atol=3e-8, rtol=2e-5)


def test_by_hand():
    """Two rows, one column: p = (0, 1), q = (1, 0), weight (π/2)·2π·(0 + 1)/2 = π²/2 each."""
    pred, truth = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]])
    expected = math.pi**2 / 2 * math.log(1e8)
    assert spherical_kl(pred.double(), truth.double()).item() == pytest.approx(expected, rel=1e-6)


def test_scale_and_offset_of_the_prediction_do_not_matter():
    pred, truth = torch.rand(2, 1, 8, 16).double(), torch.rand(2, 1, 8, 16).double()
    expected = spherical_kl(pred, truth).item()
    assert spherical_kl(3 * pred - 1, truth).item() == pytest.approx(expected, rel=1e-5)


def test_gradient_is_finite_and_right():
    pred = torch.rand(1, 4, 8, dtype=torch.float64, requires_grad=True)
    truth = torch.rand(1, 4, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: spherical_kl(p, truth), pred)
    constant = torch.full((1, 4, 8), 0.5, requires_grad=True)
    spherical_kl(constant, truth).backward()
    assert constant.grad.isfinite().all()
