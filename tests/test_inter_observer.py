"""Inter-observer scores in closed form and by hand."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from datasets.gaze import gaussian_map
from metrics import Protocol
from metrics.inter_observer import density_cc, inter_observer
from projection import solid_angles
from projection.sphere import latitudes, longitudes

SIZE = 4, 8  # longitudes are columns and latitudes rows, for a count that is read at once


def count(columns, rows):
    counts = torch.zeros(SIZE)
    for column, row in zip(columns, rows):
        counts[int(row), int(column)] += 1
    return counts


def agreement(columns, rows, observers, others=None, seed=0):
    others = torch.ones(SIZE) if others is None else others
    places = (np.array(columns), np.array(rows), np.array(observers))
    random = np.random.default_rng(seed)
    return inter_observer(*places, others, Protocol("planar", *SIZE), count, count, random)


def test_observers_who_agree():
    """All at one of 32 pixels: each map is that pixel, whose standardized value is √31."""
    scores = agreement([3] * 5, [1] * 5, range(5))
    expected = {"cc": 1, "sim": 1, "kld": 0, "nss": math.sqrt(31), "auc_judd": 1, "sauc": 63 / 64}
    assert scores == pytest.approx(expected, abs=1e-9)


def test_nobody_predicts_themselves():
    """Four observers, each at a pixel of their own: the others never look there.

    The map of three pixels has mean 3/32 and standard deviation √(3·29)/32; every fixation is at
    one of the 29 pixels where it is zero, of which 28 are negatives; three are larger.
    """
    scores = agreement([0, 2, 4, 6], [0, 1, 2, 3], range(4))
    assert scores["nss"] == pytest.approx(-3 / math.sqrt(3 * 29))
    assert scores["auc_judd"] == pytest.approx(14 / 31)
    assert scores["sim"] == 0 and scores["cc"] == 0
    repeated = agreement([0, 2, 4, 6] * 3, [0, 1, 2, 3] * 3, [*range(4)] * 3)
    assert repeated == pytest.approx(scores)


def test_unknown_observers_count_as_one_each():
    known = agreement([0, 0, 5], [1, 1, 2], [7, 8, 9])
    assert agreement([0, 0, 5], [1, 1, 2], [-1, -1, -1]) == known


def test_leave_one_out_by_hand():
    """Observers at a, a and b: two are predicted by a + b, the third by two at a.

    NSS of a map with two pixels of 32: √15 where it is 1; with one pixel: −1/√31 elsewhere.
    """
    scores = agreement([0, 0, 5], [1, 1, 2], range(3))
    assert scores["nss"] == pytest.approx((2 * math.sqrt(15) - 1 / math.sqrt(31)) / 3)


def test_split_halves_by_hand():
    """Two observers, at a + b and at a: masses (½, ½) and (1, 0), in both directions.

    The KLD of (1, 0) from (½, ½) is ln 2; the other way, ½ of the mass is where nothing is
    predicted: ½ ln ½ + ½ ln(16 / 2⁻⁵²) = ½ (−1 + 4 + 52) ln 2.
    """
    scores = agreement([0, 5, 0], [1, 2, 1], [0, 0, 1])
    assert scores["sim"] == pytest.approx(1 / 2)
    assert scores["kld"] == pytest.approx((1 + 55 / 2) / 2 * math.log(2))


def test_reliability_by_hand():
    """Observers with n pixels each of 32 have variance n (32 − n) / 32².

    At a + b and at a, together 2a + b: variances 60, 31 and 5/32 − 9/32² = 151/32²; and of the
    pairs of fixations, 9 in all, 4 + 1 are of one observer each.
    """
    scores = agreement([0, 5, 0], [1, 2, 1], [0, 0, 1])
    assert scores["cc"] == pytest.approx(math.sqrt((1 - (60 + 31) / 151) / (1 - 5 / 9)))


@pytest.mark.parametrize("observers", [6, 16])
@pytest.mark.parametrize(
    "name, widths", [("sphere", (10,)), ("planar", (8, 15, 10)), ("sphere", (30, 25))]
)
def test_two_halves_were_no_ceiling(name, widths, observers):
    """The true density, blurred, is closer to the map of all than one half is to the other."""
    size, sigma, random = (16, 32), 7.0, np.random.default_rng(1)
    protocol = Protocol(name, *size)
    places = [(0.3, 0.1), (2.5, -0.3), (-1.5, 0.0)]
    density = sum(gaussian_map([x], [y], *size, s) / s for (x, y), s in zip(places, widths))
    mass = (density * solid_angles(*size)).flatten().double().numpy()
    x, y = (a.flatten() for a in np.meshgrid(longitudes(size[1]), latitudes(size[0])))
    truth = gaussian_map(x, y, *size, sigma, mass)
    draw, found, real, halves = partial(gaussian_map, height=16, width=32, sigma=sigma), [], [], []
    for _ in range(60):
        places = random.choice(len(mass), observers, p=mass / mass.sum())
        singles = torch.stack([draw([x[place]], [y[place]]) for place in places])
        both = torch.stack([half.sum(0) for half in singles.chunk(2)])
        real += protocol(truth[None], target=both.sum(0)[None])["cc"]
        halves += protocol(both[:1], target=both[1:])["cc"]
        found.append(density_cc(both.sum(0), singles[:16], np.ones(observers), protocol))
    assert np.mean(halves) < np.mean(real) - 0.05
    assert -(0.08 if observers >= 16 else 0.3) < np.mean(found) - np.mean(real) < 0.02


def test_halves_depend_on_the_seed_alone():
    places = [0, 1, 2, 3, 4, 4, 4, 4], [0] * 8, range(8)
    assert agreement(*places, seed=3) == agreement(*places, seed=3)
    assert len({agreement(*places, seed=seed)["sim"] for seed in range(9)}) > 1


def test_one_observer_is_too_few():
    assert agreement([0, 5], [1, 2], [4, 4]) == {}
    assert agreement([], [], []) == {}


def test_without_fixations_of_other_clips_there_is_no_shuffled_auc():
    scores = agreement([3, 3], [1, 1], [0, 1], torch.zeros(SIZE))
    assert math.isnan(scores["sauc"]) and scores["auc_judd"] == 1
