"""The equator prior: its density, its map and its fit to head directions."""

import math

import numpy as np
import pytest
import torch

from common.errors import InputError
from models.equator_prior import (
    CONCENTRATION,
    EYE_SPREAD,
    FRONT_SHARE,
    LATITUDE_WIDTH,
    EquatorPrior,
    equator_prior,
    gaze_density,
    head_density,
)
from projection.sphere import directions, latitudes, longitudes, solid_angles
from recipes import head_prior
from tests.shared import shared

SIZE = 60, 120
HEAD_DATA = "data/gaze360/nasrabadi_mmsys19_head_5hz.npz"


def quantiles(count: int) -> torch.Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def cauchy_heights(u, s):
    """Inverse of the distribution function of the Cauchy density of half width s on [−1, 1]."""
    return s * ((2 * u - 1) * math.atan(1 / s)).tan()


def wrapped_cauchy_longitudes(u, r):
    """Inverse of the distribution function ½ + arctan((1 + ρ)/(1 − ρ) tan(λ/2)) / π."""
    return 2 * ((1 - r) / (1 + r) * ((u - 0.5) * math.pi).tan()).atan()


def vectors(y, longitude):
    across = (1 - y * y).sqrt()
    return torch.stack([across * longitude.sin(), y, across * longitude.cos()], dim=-1)


def head_directions(s, w, r, count, seed=0):
    """(N, 3) drawn from the density of equator_prior.head_density with other numbers."""
    random = torch.Generator().manual_seed(seed)
    u = torch.rand(4, count, generator=random, dtype=torch.float64)
    y = cauchy_heights(u[0], s)
    uniform, front = (2 * u[1] - 1) * math.pi, wrapped_cauchy_longitudes(u[2], r)
    longitude = torch.where(u[3] < w, front, uniform)
    return vectors(y, longitude)


def test_head_density_integrates_to_one():
    latitude, longitude = latitudes(720)[:, None], longitudes(1440)
    areas = solid_angles(720, 1440, torch.float64)
    assert (areas * head_density(latitude, longitude)).sum().item() == pytest.approx(1, abs=1e-5)


def test_head_density_by_hand():
    """Straight ahead, and at right angles to it on the equator, where cos λ = 0."""
    s, w, r = LATITUDE_WIDTH, FRONT_SHARE, CONCENTRATION
    equator = 1 / (2 * s * math.atan(1 / s) * 2 * math.pi)
    ahead, aside, half = (
        head_density(*torch.tensor(angles, dtype=torch.float64)).item()
        for angles in ((0, 0), (0, math.pi / 2), (math.asin(s), 0))
    )
    assert ahead == pytest.approx(equator * (1 - w + w * (1 + r) / (1 - r)), rel=1e-12)
    assert aside == pytest.approx(equator * (1 - w + w * (1 - r**2) / (1 + r**2)), rel=1e-12)
    assert half == pytest.approx(ahead / 2, rel=1e-12)


def test_gaze_density_integrates_to_one_and_has_the_fit_s_moments_in_longitude():
    """Mean of cos nλ: wρⁿ of the head's density, times exp(−n²σ²/2) after a Gaussian blur."""
    mass = solid_angles(*SIZE, torch.float64) * gaze_density(*SIZE)
    assert mass.sum().item() == pytest.approx(1, abs=1e-12)
    for n in (1, 2, 3):
        expected = FRONT_SHARE * CONCENTRATION**n
        expected *= math.exp(-((n * EYE_SPREAD) ** 2) / 2)
        moment = (mass * (n * longitudes(SIZE[1])).cos()).sum().item()
        assert moment == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [(60, 120), (61, 123), (240, 480), (1, 1)])
def test_map_is_symmetric_and_at_most_one(size):
    saliency = equator_prior(*size)
    assert saliency.shape == size
    assert saliency.dtype == torch.float32
    assert saliency.max() == 1
    assert saliency.min() > 0
    torch.testing.assert_close(saliency, saliency.flip(1))
    torch.testing.assert_close(saliency, saliency.flip(0))


def test_model_sees_nothing_of_the_frames():
    model = EquatorPrior()
    for size in ((40, 80), (33, 70)):
        frames = torch.rand(2, 3, 3, *size)
        maps = model(frames, torch.empty(2, 3, 0, *size))
        assert maps.shape == (2, 3, 1, *size)
        assert (maps == equator_prior(*size)).all()
    assert not list(model.parameters())
    assert model.spec.motion == "none"
    assert (model.spec.height, model.spec.width) == (240, 480)


@pytest.mark.parametrize("numbers", [(0.12, 0.57, 0.63), (0.3, 0.9, 0.4), (0.05, 0.3, 0.8)])
def test_fit_finds_the_numbers_of_the_density(numbers):
    """From its quantiles: samples without their scatter."""
    s, w, r = numbers
    count = 10_000
    y = cauchy_heights(quantiles(count), s)
    front = wrapped_cauchy_longitudes(quantiles(round(w * count)), r)
    uniform = (2 * quantiles(count - len(front)) - 1) * math.pi
    fitted = head_prior.fit(vectors(y, torch.cat([front, uniform])))
    assert fitted == pytest.approx(numbers, rel=2e-3)


def test_fitted_and_drawn_densities_are_the_same():
    """The two files write the density each in its own way."""
    points = directions(12, 24, torch.float64).view(-1, 3)
    logit = torch.tensor([FRONT_SHARE, CONCENTRATION]).double().logit()
    width = torch.tensor(LATITUDE_WIDTH).double().log()
    longitude = head_prior.longitude_of(points)
    log_ratio = head_prior.cauchy(points[:, 1], width)
    log_ratio = log_ratio + head_prior.wrapped_cauchy(longitude, *logit)
    expected = head_density(points[:, 1].asin(), longitude)
    torch.testing.assert_close(log_ratio.exp() / (4 * math.pi), expected)


def test_gain_is_the_divergence_from_uniform():
    """Cauchy: ∫ p ln 2p = −ln(s a) − E[ln(1 + tan²θ)], θ uniform in ±a = ± atan(1/s)."""
    s = 0.1
    a = math.atan(1 / s)
    y = cauchy_heights(quantiles(30_000), s)
    expected = -math.log(s * a) + 2 * (a * quantiles(30_000)).cos().log().mean().item()
    videos = list(y.view(-1, 3).t())
    assert head_prior.gain(head_prior.LATITUDE, videos) == pytest.approx(expected, abs=2e-3)


def test_the_numbers_are_those_of_the_data():
    videos = head_prior.read_directions(shared(HEAD_DATA))
    assert len(videos) == 28
    fitted = head_prior.fit(torch.cat(list(videos.values())))
    shipped = [LATITUDE_WIDTH, FRONT_SHARE, CONCENTRATION]
    assert [round(number, 3) for number in fitted] == shipped


def test_only_directions_after_the_start_are_read(tmp_path):
    ahead = np.tile(np.float32([0, 0, 1]), (2, 60, 1))
    ahead[:, :50] = 0, 1, 0  # ten seconds
    np.savez(tmp_path / "head.npz", a=ahead, b=ahead, v_Intro=np.zeros((1, 60, 3)))
    videos = head_prior.read_directions(tmp_path / "head.npz")
    assert list(videos) == ["a", "b"]
    assert (videos["a"] == torch.tensor([0.0, 0, 1])).all()
    assert videos["a"].shape == (20, 3)


BAD = {
    "shape": np.ones((2, 60, 2)),
    "integers": np.ones((2, 60, 3), int),
    "length": np.ones((2, 60, 3)),
    "nan": np.full((2, 60, 3), np.nan),
    "pickle": np.array([{}]),
    "short": np.tile(np.float32([0, 0, 1]), (2, 50, 1)),
}


@pytest.mark.parametrize("kind", [*BAD, "text", "missing", "array"])
def test_other_files_are_refused(kind, tmp_path):
    path = tmp_path / "head.npz"
    if kind in BAD:
        np.savez(path, a=BAD[kind], b=BAD[kind])
    elif kind == "text":
        path.write_text("not an archive")
    elif kind == "array":
        with open(path, "wb") as file:
            np.save(file, np.ones((2, 60, 3)))
    with pytest.raises(InputError, match="head.npz"):
        head_prior.read_directions(path)
