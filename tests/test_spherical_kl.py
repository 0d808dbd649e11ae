"""Spherical KL against the published values and by hand."""

import math

import numpy as np
import pytest
import torch

from losses import SphericalKLDivergence
from tests.shared import reference

spherical_kl = SphericalKLDivergence()


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


def test_shrinks_with_the_number_of_pixels():
    small, large = (
        spherical_kl(*(torch.from_numpy(m) for m in maps("blob0.1_", 1, *size))).item()
        for size in ((24, 32), (240, 320))
    )
    assert small / large == pytest.approx(100, rel=0.02)


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


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="differ"):
        spherical_kl(torch.rand(4, 8), torch.rand(4, 9))
