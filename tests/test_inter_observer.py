"""Inter-observer scores in closed form and by hand."""

import math

import numpy as np
import pytest
import torch

from metrics import Protocol
from metrics.inter_observer import inter_observer

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
    assert scores["sim"] == 0 and scores["cc"] == pytest.approx(-1 / 15)
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
    assert scores["cc"] == pytest.approx(math.sqrt(15 / 31))
    assert scores["kld"] == pytest.approx((1 + 55 / 2) / 2 * math.log(2))


def test_halves_depend_on_the_seed_alone():
    places = [0, 1, 2, 3, 4, 4, 4, 4], [0] * 8, range(8)
    assert agreement(*places, seed=3) == agreement(*places, seed=3)
    assert len({agreement(*places, seed=seed)["cc"] for seed in range(9)}) > 1


def test_one_observer_is_too_few():
    assert agreement([0, 5], [1, 2], [4, 4]) == {}
    assert agreement([], [], []) == {}


def test_without_fixations_of_other_clips_there_is_no_shuffled_auc():
    scores = agreement([3, 3], [1, 1], [0, 1], torch.zeros(SIZE))
    assert math.isnan(scores["sauc"]) and scores["auc_judd"] == 1
