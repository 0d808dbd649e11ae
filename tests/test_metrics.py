"""Metrics by hand on 2×2 pixels, in closed form on the sphere, and between observers."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.gaze import gaussian_map
from metrics import METRICS, Protocol, auc_judd, cc, information_gain, kld, nss, sauc, sim
from metrics.inter_observer import density_cc, inter_observer
from projection import directions, solid_angles
from projection.sphere import latitudes, longitudes

DOUBLE = torch.float64
PRED = [[1, 2], [3, 4]]
TARGET = [[1, 3], [2, 4]]
FIXATIONS = [[0, 1], [0, 2]]
OTHERS = [[1, 0], [0, 3]]
ROWS = [[1], [3]]  # weights

BY_HAND = {
    # Deviations (−3, −1, 1, 3)/2 and (−3, 1, −1, 3)/2: covariance 4 over variances 5 (all ×4).
    "cc": (cc, [TARGET], None, 4 / 5),
    # Means 24/8 and 22/8, deviations (−2, −1, 0, 1) and (−7, 1, −3, 5)/4, weights (1, 1, 3, 3):
    # 14/4 − 1/4 + 15/4 = 7; 4 + 1 + 3 = 8; (49 + 1 + 27 + 75)/16 = 9.5.
    "cc weighted": (cc, [TARGET], ROWS, 7 / math.sqrt(8 * 9.5)),
    # Masses (1, 2, 3, 4)/10 and (1, 3, 2, 4)/10.
    "sim": (sim, [TARGET], None, (1 + 2 + 2 + 4) / 10),
    # Masses (1, 2, 9, 12)/24 and (1, 3, 6, 12)/22.
    "sim weighted": (sim, [TARGET], ROWS, (1 + 2 + 12) / 24 + 6 / 22),
    # q ln(q/p) = 0, 0.3 ln 3/2, 0.2 ln 2/3, 0.
    "kld": (kld, [TARGET], None, 0.1 * math.log(1.5)),
    # q/p is 24/22 times 1, 3/2, 2/3, 1.
    "kld weighted": (kld, [TARGET], ROWS, math.log(24 / 22) - 3 / 22 * math.log(1.5)),
    # Mean 2.5, variance 1.25; −0.5 once and 1.5 twice.
    "nss": (nss, [FIXATIONS], None, 2.5 / 3 / math.sqrt(1.25)),
    # Mean 3, variance 8/8; −1 once and 1 twice, a fixation is not weighted.
    "nss weighted": (nss, [FIXATIONS], ROWS, 1 / 3),
    # 2 is above 1, not above 3; 4, twice, is above both: 1 + 2·2 of 3·2 pairs.
    "auc": (auc_judd, [FIXATIONS], None, 5 / 6),
    # The 1 weighs 1, the 3 weighs 3: 1 + 2·(1 + 3) of 3·4.
    "auc weighted": (auc_judd, [FIXATIONS], ROWS, 9 / 12),
    # 2 is above the 1 alone, 4, twice, ties with three: 1 + 2·(1 + 3/2) of 3·4 pairs.
    "sauc": (sauc, [FIXATIONS, OTHERS], None, 6 / 12),
    "sauc weighted": (sauc, [FIXATIONS, OTHERS], ROWS, 6 / 12),
    # A prior of TARGET: 2 and 3 in units of 2.5 once, 4 and 4 twice.
    "gain": (information_gain, [FIXATIONS, TARGET], None, math.log2(2 / 3) / 3),
    # The units are 24/8 and 22/8, for all three fixations.
    "gain weighted":
        (information_gain, [FIXATIONS, TARGET], ROWS, math.log2(2 / 3) / 3 + math.log2(22 / 24)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", (torch.float32, DOUBLE, torch.uint8, torch.bfloat16))
@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case, dtype):
    metric, truths, weights, expected = BY_HAND[case]
    pred, *truths = (torch.tensor(values, dtype=dtype) for values in (PRED, *truths))
    value = metric(pred, *truths, weights=None if weights is None else torch.tensor(weights))
    assert value.shape == () and value.dtype == DOUBLE
    assert value.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", [case for case in BY_HAND if "weighted" in case])
def test_weights_of_any_shape_and_scale(case):
    metric, truths, weights, expected = BY_HAND[case]
    pred, *truths = (torch.tensor(values) for values in (PRED, *truths))
    for shape in ((2, 1), (2, 2), (1, 2, 2)):
        weights = 7.5 * torch.tensor(ROWS).expand(shape)
        value = metric(pred[None], *(t[None] for t in truths), weights=weights)
        assert value.item() == pytest.approx(expected, abs=1e-12)
    columns = [t.mT[None] for t in (pred, *truths)]
    value = metric(*columns, weights=torch.tensor([1, 3]))
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_ties_by_hand():
    """2 against 1, 2 and 4: one and a half of three; with rows of 1 and 3: 1 + 3/2 of 7."""
    pred, fixations = torch.tensor([[1.0, 2.0], [2.0, 4.0]]), torch.tensor([[0, 1], [0, 0]])
    assert auc_judd(pred, fixations).item() == pytest.approx(1 / 2)
    assert auc_judd(pred, fixations, torch.tensor(ROWS)).item() == pytest.approx(5 / 14)


def test_kld_of_separate_maps_does_not_depend_on_the_resolution():
    """All truth in a quarter where nothing is predicted: ln(4 / 2⁻⁵²) = 54 ln 2."""
    for size in (1, 3, 8):
        pred, target = torch.zeros(2, 2 * size, 2 * size)
        pred[:size, :size] = target[size:, size:] = 1
        assert kld(pred, target).item() == pytest.approx(54 * math.log(2), rel=1e-12)


def test_closed_forms_on_the_sphere():
    """With y = sin φ, which is uniform in [−1, 1] on the sphere."""
    height, width = 512, 32
    weights, y = solid_angles(height, width, DOUBLE), directions(height, width, DOUBLE)[..., 1]
    one, row = torch.ones_like(y), 100
    fixations = torch.zeros_like(y)
    fixations[row, 1] = 1
    at = y[row, 0].item()
    # var y² = 4/45, var y⁴ = 16/225, covariance 1/7 − 1/15 = 8/105
    assert cc(y**2, y**4, weights).item() == pytest.approx(math.sqrt(10125) / 105, abs=1e-4)
    # ½ ∫ min(1, 1 + y) dy
    assert sim(one, 1 + y, weights).item() == pytest.approx(3 / 4, abs=1e-4)
    # ½ ∫ (1 + y) ln(1 + y) dy
    assert kld(one, 1 + y, weights).item() == pytest.approx(math.log(2) - 1 / 2, abs=1e-4)
    expected = (at**2 - 1 / 3) / math.sqrt(4 / 45)
    assert nss(y**2, fixations, weights).item() == pytest.approx(expected, abs=1e-4)
    assert auc_judd(y, fixations, weights).item() == pytest.approx((1 + at) / 2, abs=1e-4)


def smooth_maps(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    return smooth(directions(height, width, DOUBLE))


def smooth(direction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and truth at (..., 3) unit vectors: two blobs each, one of them shared."""
    x, y, z = direction.unbind(-1)
    return (2 * x + y).exp() + 3 * (3 * z - 3).exp(), (x + 3 * y - 2).exp() + (2 * z - 1).exp()


def count(pixels: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    counts = torch.bincount(pixels.flatten(), minlength=shape[0] * shape[1])
    return counts.view(shape).to(torch.float32)


def test_weighted_on_the_grid_is_plain_on_equal_areas():
    """200 000 points of a Fibonacci lattice, in which every one stands for the same area."""
    height, width, n = 180, 360, 200_000
    k = torch.arange(n, dtype=DOUBLE) + 0.5
    y, turn = 1 - 2 * k / n, math.pi * (1 + math.sqrt(5)) * k
    radius = (1 - y * y).sqrt()
    lattice = torch.stack([radius * turn.cos(), y, radius * turn.sin()], dim=-1)
    pixels, others = torch.randint(height * width, (2, 50), generator=seeded(0))
    grid = directions(height, width, DOUBLE).view(-1, 3)
    nearest, nearest_others = ((grid[p] @ lattice.T).argmax(1) for p in (pixels, others))
    pred, target = smooth(lattice)
    pred[nearest], pred[nearest_others] = smooth(grid[pixels])[0], smooth(grid[others])[0]

    on_grid = dict(zip(("pred", "target"), smooth_maps(height, width)))
    on_lattice = {"pred": pred[None], "target": target[None]}
    on_grid["prior"], on_lattice["prior"] = on_grid["target"] + 0.5, on_lattice["target"] + 0.5
    for name, p, q in (("fixations", pixels, nearest), ("others", others, nearest_others)):
        on_grid[name], on_lattice[name] = count(p, (height, width)), count(q, (1, n))
    weights = solid_angles(height, width, DOUBLE)
    for name, metric in METRICS.items():
        expected = evaluate(metric, on_lattice)
        assert evaluate(metric, on_grid, weights) == pytest.approx(expected, abs=5e-4), name
        if name != "sauc":
            assert abs(evaluate(metric, on_grid) - expected) > 5e-3, f"planar {name} is no test"


def evaluate(metric, maps: dict, weights=None):
    truths = (maps[name] for name in metric.needs)
    value = metric.function(maps["pred"], *truths, weights=weights)
    return value.item() if value.ndim == 0 else value


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(seed: int, *shape: int) -> dict[str, torch.Tensor]:
    generator = seeded(seed)
    return {
        "pred": torch.rand(shape, generator=generator),
        "target": torch.rand(shape, generator=generator) ** 2,
        "fixations": torch.poisson(torch.full(shape, 0.2), generator=generator),
        "others": torch.poisson(torch.full(shape, 0.3), generator=generator),
        "prior": torch.rand(shape, generator=generator) + 0.1,
    }


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.integers(-20, 20))
def test_turning_the_head_changes_nothing(seed, shift):
    maps, weights = noise(seed, 7, 13), solid_angles(7, 13)
    rolled = {name: tensor.roll(shift, -1) for name, tensor in maps.items()}
    for metric in METRICS.values():
        before = evaluate(metric, maps, weights)
        assert evaluate(metric, rolled, weights) == pytest.approx(before, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", METRICS)
def test_a_batch_is_its_maps_one_by_one(name):
    metric, maps, weights = METRICS[name], noise(1, 2, 3, 6, 11), solid_angles(6, 11)
    maps["fixations"][0, 1] = 0
    maps["target"][1, 0] = maps["pred"][1, 2] = 0
    together = evaluate(metric, maps, weights)
    single = [
        evaluate(metric, {key: tensor[i, j] for key, tensor in maps.items()}, weights)
        for i in range(2)
        for j in range(3)
    ]
    expected = torch.tensor(single, dtype=DOUBLE).view(2, 3)
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-12, equal_nan=True)
    assert evaluate(metric, {key: t[:0] for key, t in maps.items()}, weights).shape == (0, 3)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_auc_counts_pairs(data):
    """Small integers, so that many tie, and the area of each pixel an integer too."""
    shape = height, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))

    def draw(low: int, high: int) -> torch.Tensor:
        size = height * width
        drawn = data.draw(st.lists(st.integers(low, high), min_size=size, max_size=size))
        return torch.tensor(drawn, dtype=torch.float32).view(shape)

    pred, fixations, others, weights = draw(-2, 3), draw(0, 2), draw(0, 2), draw(1, 3)
    for value, negatives in (
        (auc_judd(pred, fixations, weights), weights * (fixations == 0)),
        (sauc(pred, fixations, others, weights), others),
    ):
        won = pairs = 0
        for x, positive in zip(pred.flatten().tolist(), fixations.flatten().tolist()):
            for y, negative in zip(pred.flatten().tolist(), negatives.flatten().tolist()):
                pairs += positive * negative
                won += positive * negative * (1 if x > y else 0.5 if x == y else 0)
        expected = won / pairs if pairs else math.nan
        assert value.item() == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_auc_tells_neighbouring_numbers_apart():
    """0, the smallest number above it, the largest finite one: no tie where there is none."""
    tiny, huge = 2.0**-149, torch.finfo(torch.float32).max
    pred = torch.tensor([[0.0, tiny, 2 * tiny, huge]])
    for fixated, expected in enumerate((0, 1 / 3, 2 / 3, 1)):
        fixations = torch.zeros(1, 4).index_fill(1, torch.tensor(fixated), 1)
        assert auc_judd(pred, fixations).item() == pytest.approx(expected)
    assert auc_judd(pred, torch.tensor([[0, 1, 1, 0]])).item() == pytest.approx(1 / 2)


def test_the_original_auc_is_larger_by_up_to_half_a_fixation():
    """Its trapezoids through n thresholds add the false alarms at the last of them over 2n."""
    pred, n = torch.rand(20, 30, generator=seeded(3), dtype=DOUBLE), 10
    fixations = count(torch.randperm(600, generator=seeded(4))[:n], (20, 30))
    thresholds = pred[fixations > 0].sort(descending=True).values
    false_alarms = (pred[fixations == 0] >= thresholds[:, None]).double().mean(1)
    x = torch.cat([torch.zeros(1), false_alarms, torch.ones(1)])
    y = torch.cat([torch.arange(n + 1) / n, torch.ones(1)])
    original = torch.trapezoid(y, x).item()
    expected = original - false_alarms[-1].item() / (2 * n)
    assert auc_judd(pred, fixations).item() == pytest.approx(expected, abs=1e-6)


def test_gain_of_the_truth_over_a_prior_is_their_divergence():
    """With fixations in proportion to masses q: Σ q log₂(q/b), the KLD of q from b in bits."""
    target = torch.tensor([[3.0, 1.0], [0.0, 4.0]])
    prior = torch.tensor([[2.0, 2.0], [1.0, 3.0]])
    bits = information_gain(target, target, prior).item()
    assert bits == pytest.approx(kld(prior, target).item() / math.log(2), abs=1e-9)
    assert information_gain(prior, target, 7 * prior).item() == 0
    assert information_gain(target, torch.tensor([[0, 0], [1, 0]]), prior).item() < -50


def test_constant_predictions_are_scored():
    """0.1 is no sum of powers of two: no rounding may turn into a score."""
    maps, weights = noise(6, 9, 17), solid_angles(9, 17)
    share = (weights / weights.sum() / 17).double().expand(9, 17)
    q = maps["target"].double() * share / (maps["target"] * share).sum()
    expected = {
        "cc": 0,
        "sim": torch.minimum(q, share).sum().item(),
        "kld": (q * (q / share).log()).sum().item(),
        "nss": 0,
        "auc_judd": 0.5,
        "sauc": 0.5,
    }
    prior = maps["prior"].double() / (maps["prior"] * share).sum()
    counts = maps["fixations"].double()
    expected["information_gain"] = -((counts * prior.log2()).sum() / counts.sum()).item()
    for constant in (0.1, 0.0, 3e-30, 1e30):
        maps["pred"] = torch.full((9, 17), constant)
        for name, metric in METRICS.items():
            value = evaluate(metric, maps, weights)
            tolerance = {"cc": 0, "nss": 0, "auc_judd": 1e-12, "sauc": 1e-12}.get(name, 1e-6)
            assert value == pytest.approx(expected[name], abs=tolerance), (name, constant)


NOT_SCORED = (
    *((name, "target", 0) for name in ("cc", "sim", "kld")),
    ("cc", "target", 0.1),  # constant
    *((name, "fixations", 0) for name in ("nss", "auc_judd", "sauc", "information_gain")),
    ("information_gain", "prior", 0),
    ("sauc", "others", 0),
    ("auc_judd", "fixations", 2),  # everywhere: no negatives
)


@pytest.mark.parametrize("name, truth, value", NOT_SCORED)
def test_what_cannot_be_scored_is_nan(name, truth, value):
    for pred in (torch.rand(4, 6, generator=seeded(7)), torch.zeros(4, 6)):
        maps = {**noise(8, 4, 6), "pred": pred, truth: torch.full((4, 6), float(value))}
        assert math.isnan(evaluate(METRICS[name], maps, solid_angles(4, 6)))


@pytest.mark.parametrize("name", METRICS)
def test_programming_errors_are_refused(name):
    metric, good = METRICS[name], noise(9, 4, 6)
    for key in ("pred", *metric.needs):
        for spoilt in (math.nan, math.inf, -math.inf):
            maps = {**good, key: good[key].clone()}
            maps[key][2, 3] = spoilt
            with pytest.raises(ValueError, match=f"{key} is not finite"):
                evaluate(metric, maps)
    with pytest.raises(ValueError, match=rf"pred \(4, 6\) and {metric.needs[0]} \(4, 5\)"):
        evaluate(metric, {**good, metric.needs[0]: torch.rand(4, 5)})
    with pytest.raises(ValueError, match=r"\(\.\.\., H, W\)"):
        evaluate(metric, {key: tensor[0] for key, tensor in good.items()})
    with pytest.raises(ValueError, match=r"\(\.\.\., H, W\)"):
        evaluate(metric, {key: tensor[:, :0] for key, tensor in good.items()})


@pytest.mark.parametrize("name", [name for name in METRICS if name != "sauc"])
def test_weights_that_are_no_areas_are_refused(name):
    for weights in (torch.zeros(4, 1), -torch.ones(4, 1), torch.full((4, 1), math.nan)):
        with pytest.raises(ValueError, match="weights must be finite"):
            evaluate(METRICS[name], noise(9, 4, 6), weights)
    for shape in ((5, 1), (2, 4, 6)):
        with pytest.raises(ValueError, match=r"weights .* can't be broadcast to \(4, 6\)"):
            evaluate(METRICS[name], noise(9, 4, 6), torch.ones(shape))


def test_only_densities_and_counts_must_not_be_negative():
    maps = noise(10, 4, 6)
    for name, metric in METRICS.items():
        for key in ("pred", *metric.needs):
            negative = {**maps, key: maps[key] - 0.5}
            if (key == "pred" or name == "cc") and name not in ("sim", "kld", "information_gain"):
                assert evaluate(metric, negative) == pytest.approx(evaluate(metric, maps))
            else:
                with pytest.raises(ValueError, match=f"{key} holds negative"):
                    evaluate(metric, negative)


@pytest.mark.parametrize("scale", (2.0**-700, 2.0**-20, 2.0**700))
def test_the_scale_of_a_map_does_not_matter(scale):
    """2^±700 squared is no double."""
    maps = {name: tensor.double() for name, tensor in noise(11, 5, 8).items()}
    for metric in METRICS.values():
        scaled = {**maps, "pred": maps["pred"] * scale, "target": maps["target"] / scale}
        expected = evaluate(metric, maps)
        assert evaluate(metric, scaled) == pytest.approx(expected, rel=1e-12)


def test_a_pixel_without_weight_is_left_out():
    """A column of nonsense with weight zero: the same as without the column."""
    maps = noise(12, 5, 8)
    wider = {name: torch.nn.functional.pad(tensor, (0, 1)) for name, tensor in maps.items()}
    wider["pred"][:, -1], wider["target"][:, -1] = 50, 70
    weights = solid_angles(5, 9).expand(5, 9) * (torch.arange(9) < 8)
    for name, metric in METRICS.items():
        expected = evaluate(metric, maps, solid_angles(5, 8))
        assert evaluate(metric, wider, weights) == pytest.approx(expected, rel=1e-6), name
    constant = torch.full((5, 9), 0.1).index_fill(1, torch.tensor(8), 1.0)
    assert cc(constant, wider["target"], weights) == 0
    assert nss(constant, wider["fixations"], weights) == 0


def test_precision_of_large_maps():
    """2 million pixels i and i² in row i, whose sums of powers are integers; in float32, exact."""
    n, width = 1024, 2048
    row = torch.arange(n, dtype=torch.float32)[:, None].expand(n, width)
    s1, s2, s3, s4 = (sum(i**power for i in range(n)) for power in (1, 2, 3, 4))
    expected = (n * s3 - s1 * s2) / math.sqrt((n * s2 - s1**2) * (n * s4 - s2**2))
    assert cc(row + 2**23, row**2).item() == pytest.approx(expected, abs=1e-10)
    fixations = count(torch.arange(n * width - 3, n * width), (n, width))
    spread = math.sqrt(n * s2 - s1**2)
    expected = (n * (n - 1) - s1) / spread
    assert nss(row + 2**23, fixations).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", METRICS)
def test_the_same_on_a_gpu(name):
    maps, weights = noise(15, 3, 60, 120), solid_angles(60, 120)
    value = evaluate(METRICS[name], {key: t.cuda() for key, t in maps.items()}, weights)
    assert value.is_cuda
    torch.testing.assert_close(value.cpu(), evaluate(METRICS[name], maps, weights))


SIZE = 4, 8  # longitudes are columns and latitudes rows, for a count that is read at once


def count_at(columns, rows):
    counts = torch.zeros(SIZE)
    for column, row in zip(columns, rows):
        counts[int(row), int(column)] += 1
    return counts


def agreement(columns, rows, observers, others=None, seed=0):
    others = torch.ones(SIZE) if others is None else others
    places = (np.array(columns), np.array(rows), np.array(observers))
    random = np.random.default_rng(seed)
    return inter_observer(*places, others, Protocol("planar", *SIZE), count_at, count_at, random)


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
