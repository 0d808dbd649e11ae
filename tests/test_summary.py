"""Means over clips and what they say; the protocols; the human ceiling."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from datasets.gaze import fixation_map, gaussian_map
from metrics import METRICS, Protocol, kld
from metrics.human import HumanCeiling, sim_of_twice, spearman_brown
from metrics.summary import (
    FLOORS,
    Comparison,
    against_floor,
    mean_of_finite,
    number,
    over_clips,
    short,
    table,
    verdicts,
)
from projection import solid_angles

NAN = math.nan
UNIFORM, EQUATOR, TRAINING = FLOORS


def test_scores_that_are_not_finite_are_left_out():
    assert mean_of_finite([1, NAN, 3, math.inf]) == 2
    assert math.isnan(mean_of_finite([NAN])) and math.isnan(mean_of_finite([]))
    score = over_clips([0.5, NAN, 0.5])
    assert score == {"mean": 0.5, "low": 0.5, "high": 0.5, "clips": 2}


def test_one_clip_has_no_interval():
    score = over_clips([0.5, NAN])
    assert score["mean"] == 0.5 and score["clips"] == 1
    assert math.isnan(score["low"]) and math.isnan(score["high"])
    assert math.isnan(over_clips([])["mean"])


def test_interval_of_two_clips():
    """Means of two draws from 0 and 1 are 0, ½, 1 in 1, 2, 1 of 4 cases."""
    assert over_clips([0, 1]) == {"mean": 0.5, "low": 0, "high": 1, "clips": 2}


def test_interval_of_many_clips():
    """The mean of n draws has the standard deviation of the clips over √n, and is normal."""
    values = np.random.default_rng(1).normal(3, 2, 400)
    score = over_clips(values)
    half = 1.96 * values.std() / 20
    assert score["low"] == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert score["high"] == pytest.approx(values.mean() + half, abs=0.05 * half)
    assert over_clips(values) == score


def results(model: dict, floors: dict[str, dict]) -> dict:
    """As metrics.json has them, from the scores of each clip: metric → list."""
    predictors = {"ours": model, **floors}
    means = {p: {m: over_clips(v) for m, v in s.items()} for p, s in predictors.items()}
    count = len(next(iter(model.values())))
    clips = {
        f"clip {k}": {
            "frames": 9,
            "scores": {p: {m: v[k] for m, v in s.items()} for p, s in predictors.items()},
        }
        for k in range(count)
    }
    facts = {m: {"title": m.upper(), "higher_is_better": m != "kld"} for m in model}
    content = {"metrics": facts, "predictors": means, "clips": clips}
    return content | {"against_floor": against_floor(content)}


def test_difference_is_paired():
    """Clips differ by far more than model and floor, which differ by the same in each clip."""
    floor = [0.1, 0.3, 0.5, 0.7, 0.9, 0.2, 0.8]
    model = [score + 0.05 for score in floor]
    content = results({"cc": model, "kld": model}, {EQUATOR: {"cc": floor, "kld": floor}})
    intervals = [content["predictors"][p]["cc"] for p in ("ours", EQUATOR)]
    assert intervals[0]["low"] < intervals[1]["high"]
    expected = {"floor": EQUATOR, "difference": 0.05, "low": 0.05, "high": 0.05, "clips": 7}
    assert content["against_floor"] == {m: pytest.approx(expected) for m in ("cc", "kld")}
    kinds = [Comparison(m, content).verdict()[0] for m in ("cc", "kld")]
    assert kinds == ["beats", "behind"]
    assert verdicts(content).splitlines() == [
        "CC: ours beats the best floor, equator prior, by 0.050 (0.050 to 0.050). "
        "Better on 7 of 7 clips.",
        "KLD: ours is behind the best floor, equator prior, by 0.050 (0.050 to 0.050). "
        "Better on 0 of 7 clips.",
        "In brackets: 95\u00a0% interval of the mean difference over clips.",
    ]


def test_the_best_floor_is_that_of_the_metric():
    model = {"cc": [0.5, 0.5], "kld": [1.0, 1.0]}
    floors = {UNIFORM: {"cc": [0.0, 0.0], "kld": [1.5, 1.5]},
              EQUATOR: {"cc": [0.2, NAN], "kld": [2.0, 2.0]}}  # fmt: skip
    against = results(model, floors)["against_floor"]
    assert against["cc"]["floor"] == EQUATOR and against["kld"]["floor"] == UNIFORM
    assert against["cc"]["difference"] == pytest.approx(0.3)
    assert against["cc"]["clips"] == 1 and math.isnan(against["cc"]["low"])
    assert against["kld"]["difference"] == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("gains", "kind", "says"),
    [
        ([0.1, 0.2, 0.1, 0.2, 0.1, 0.2], "beats", "by 0.150 (0.117 to 0.183)."),
        ([0.1, 0.2, 0.1, 0.2, 0.1], "ahead", "; 5 clips tell little of others."),
        ([0.1], "ahead", ", by 0.100; one clip tells nothing of others."),
        ([0.4, -0.2, 0.4, -0.2, 0.4, -0.2, 0.4, -0.2], "ahead", "which may be chance."),
        ([0.2, -0.4, 0.2, -0.4, 0.2, -0.4, 0.2, -0.4], "behind", "which may be chance."),
        ([-0.1, -0.2, -0.1, -0.2, -0.1, -0.2], "behind", "by 0.150 (0.117 to 0.183)."),
        ([0.0] * 6, "behind", "scores the same as the best floor, equator prior (0.000 to 0.000)."),
        ([NAN], "unscored", "not scored."),
    ],
)
def test_verdicts(gains, kind, says):
    for metric, sign in (("cc", 1), ("kld", -1)):
        model, floor = [1 + sign * gain for gain in gains], [1.0] * len(gains)
        content = results({metric: model}, {EQUATOR: {metric: floor}})
        found, sentence = Comparison(metric, content).verdict()
        assert found == kind and says in sentence


def test_all_of_a_few_clips_agreeing_is_no_proof():
    """Without any difference, five signs agree in 2 of 32 cases, which is more than 5 %."""
    generator = np.random.default_rng(2)
    for clips, most in ((3, 0), (6, 0.2)):
        beats = 0
        for _ in range(30):
            gains = generator.normal(0, 1, clips).tolist()
            content = results({"cc": gains}, {UNIFORM: {"cc": [0.0] * clips}})
            beats += Comparison("cc", content).verdict()[0] == "beats"
        assert beats <= 30 * most


def test_table_fits_in_80_columns():
    titles = {"cc": "CC", "sim": "SIM", "kld": "KLD", "nss": "NSS", "auc_judd": "AUC-Judd"}
    titles["sauc"] = "sAUC"
    scores = {m: {"mean": 0.41, "low": 0.383, "high": 0.451, "clips": 24} for m in titles}
    scores["kld"] = {"mean": 2.5, "low": 2.25, "high": 12.75, "clips": 24}
    scores["sauc"] = {"mean": NAN, "low": NAN, "high": NAN, "clips": 0}
    content = {
        "metrics": {m: {"title": t, "higher_is_better": m != "kld"} for m, t in titles.items()},
        "predictors": {name: scores for name in ("cube_unet", *FLOORS, "human")},
        "clips": {},
    }
    lines = table(content).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 11
    assert lines[0].split() == ["CC", "↑", "SIM", "↑", "KLD", "↓", "NSS", "↑", "AUC-Judd", "↑",
                                "sAUC", "↑"]  # fmt: skip
    assert lines[1].split() == ["cube_unet", "0.410", "0.410", "2.500", "0.410", "0.410", "–"]
    assert lines[2].split()[1:3] == [".383–.451", "2.25–12.8"]
    ends = [{k for k, c in enumerate(line) if (line[k + 1 : k + 2] or " ") == " " != c}
            for line in lines[:3]]  # fmt: skip
    assert ends[2] <= ends[1] <= ends[0] | {8}  # columns end where their titles do


def test_table_of_one_clip_has_no_intervals():
    content = results({"cc": [0.5]}, {UNIFORM: {"cc": [0.0]}})
    assert table(content).splitlines() == ["          CC ↑", "ours     0.500", "uniform  0.000"]


def test_numbers():
    assert [number(x) for x in (-0.0004, -0.5, None, NAN)] == ["0.000", "−0.500", "–", "–"]
    assert [short(x) for x in (-0.5, 0.25, 2.345, 23.45)] == ["−.500", ".250", "2.35", "23.4"]


# Three rows at latitudes 60°, 0°, −60°, whose areas and cosines are as 1, 2, 1.
ROWS = {"pred": [1, 2, 4], "target": [1, 3, 2], "fixations": [0, 0, 1]}
BY_HAND = {
    # Weighted: deviations (−5, −1, 7)/4 and (−5, 3, −1)/4; masses (1, 4, 4)/9 and (1, 6, 2)/9;
    # one pixel of the last row, over areas of 1 + 1 + 2 + 2 and beside one of 1.
    "sphere": {"cc": 12 / math.sqrt(76 * 44), "sim": 7 / 9, "nss": 14 / math.sqrt(76),
               "auc_judd": 6.5 / 7},
    "planar": {"cc": 3 / math.sqrt(84), "sim": 16 / 21, "nss": 5 / math.sqrt(14),
               "auc_judd": 4.5 / 5},
    # The maps become (1, 4, 4)/2 and (1, 6, 2)/2: two rows tie.
    "sin": {"cc": 6 / math.sqrt(84), "sim": 7 / 9, "nss": 1 / math.sqrt(2), "auc_judd": 3.5 / 5},
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_protocols_by_hand(name):
    maps = {key: torch.tensor(rows).float()[None, :, None].repeat(2, 1, 2)
            for key, rows in ROWS.items()}  # fmt: skip
    maps["fixations"][..., 0] = 0
    values = Protocol(name, 3, 2)(**maps)
    assert list(values) == ["cc", "sim", "kld", "nss", "auc_judd"]
    for metric, expected in BY_HAND[name].items():
        assert values[metric] == pytest.approx([expected] * 2, abs=1e-6), metric


def test_protocols_take_what_is_known():
    maps = torch.rand(1, 4, 8)
    protocol = Protocol("sphere", 4, 8)
    assert list(protocol(maps, target=maps, fixations=None)) == ["cc", "sim", "kld"]
    assert list(protocol(maps, fixations=maps, others=maps)) == ["nss", "auc_judd", "sauc"]
    assert list(protocol(maps, target=maps, fixations=maps, others=maps)) == list(METRICS)
    assert math.isnan(protocol(maps, target=torch.zeros(1, 4, 8))["cc"][0])
    with pytest.raises(ValueError, match="negative"):
        protocol(-maps, target=maps)
    with pytest.raises(ValueError, match="sphere, planar, sin"):
        Protocol("cylinder", 4, 8)


def test_spearman_brown():
    """Correlation S / (S + N/k) of means of k people, with signal S and noise N of one person."""
    assert spearman_brown(2 / (2 + 6 / 4)) == pytest.approx(2 / (2 + 6 / 8))
    assert spearman_brown(-0.1) == -0.1


def poisson_overlap(m: float) -> float:
    """E min(X, Y) / m, as the sum over k of P(X ≥ k)²."""
    k = np.arange(200)
    chance = np.exp(k * math.log(m) - m - np.array([math.lgamma(n + 1) for n in k]))
    at_least = chance[::-1].cumsum()[::-1]
    return float((at_least[1:] ** 2).sum() / m)


@pytest.mark.parametrize("m", [0.01, 0.3, 2, 20])
def test_sim_of_twice_the_people(m):
    """The same m everywhere."""
    quarter, half, expected = (poisson_overlap(k * m) for k in (1, 2, 4))
    assert sim_of_twice(half, quarter) == pytest.approx(expected, abs=1e-5)
    assert sim_of_twice(half, half) == pytest.approx(half, abs=1e-5)
    assert math.isnan(sim_of_twice(NAN, quarter))


SIZE, SIGMA = (24, 48), 10.0


def ceiling(protocol="sphere", seed=0):
    count = partial(fixation_map, height=SIZE[0], width=SIZE[1])
    blur = partial(gaussian_map, height=SIZE[0], width=SIZE[1], sigma=SIGMA)
    prior = torch.ones(SIZE)
    return HumanCeiling(Protocol(protocol, *SIZE), solid_angles(*SIZE), prior, count, blur, seed)


def test_people_who_agree():
    """Each group predicts as all do: the map of the same place with a fifth of the prior."""
    human, people = ceiling(), np.arange(4)
    for place in (-2.0, 0.0, 1.0):
        human.add(np.full(4, place), np.full(4, 0.2), people, torch.ones(SIZE))
    scores = human.scores()
    gaussian = human.blur([0.0], [0.2])
    areas = solid_angles(*SIZE, torch.float64)
    density = gaussian.double() / (gaussian * areas).sum()
    expected = kld(4 * density + 1 / (4 * math.pi), density, areas)
    assert scores["kld"] == pytest.approx(expected.item(), abs=5e-3)
    assert scores["cc"] == pytest.approx(1, abs=1e-5)
    assert scores["sim"] == pytest.approx(0.8, abs=0.05)
    assert scores["auc_judd"] > 0.99 and scores["sauc"] <= 1


def test_nobody_predicts_himself():
    """Four people, each five times at a place of his own: the others never look there."""
    places = np.array([-2.0, -0.5, 0.8, 2.4]).repeat(5)
    alone, unknown = ceiling(), ceiling()
    for _ in range(10):
        alone.add(places, places * 0, np.arange(4).repeat(5), torch.ones(SIZE))
        unknown.add(places, places * 0, np.full(20, -1), torch.ones(SIZE))
    assert alone.scores()["nss"] < 0 and alone.scores()["cc"] < 0
    assert unknown.scores()["nss"] > 2 and unknown.scores()["cc"] > 0.8


def test_three_people_are_too_few():
    human = ceiling()
    human.add(np.zeros(6), np.zeros(6), np.arange(6) % 3, torch.ones(SIZE))
    human.add(np.zeros(0), np.zeros(0), np.zeros(0, int), torch.ones(SIZE))
    assert human.scores() == {}


def test_no_fixations_of_other_clips():
    human = ceiling()
    human.add(np.zeros(5), np.zeros(5), np.arange(5), torch.zeros(SIZE))
    assert math.isnan(human.scores()["sauc"]) and human.scores()["auc_judd"] > 0.99


def look(generator, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Where people look in a frame: most at one of three things, some anywhere."""
    things = np.array([[-2.2, 0.3], [0.1, -0.2], [1.2, 0.1]])
    places = things[generator.choice(3, people, p=(0.5, 0.3, 0.2))]
    longitudes, latitudes = (places + generator.normal(0, 0.25, (people, 2))).T
    astray = generator.random(people) < 0.2
    longitudes[astray] = generator.uniform(-math.pi, math.pi, astray.sum())
    latitudes[astray] = np.arcsin(generator.uniform(-1, 1, astray.sum()))
    return longitudes, latitudes


@pytest.mark.parametrize(("protocol", "people"), [("sphere", 24), ("sphere", 12)])
def test_ceiling_is_what_as_many_other_people_reach(protocol, people):
    """Within 0.03 of CC and SIM, 0.015 of AUC, 6 % of KLD and NSS; plain halves are farther off.

    Some of it is chance, and of the AUC the grid: 24 fixations leave out 2 % of its area.
    """
    generator, human = np.random.default_rng(3), ceiling(protocol)
    others = torch.ones(SIZE)
    direct: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for _ in range(80):
        groups = [look(generator, people) for _ in range(4)]
        maps, counts = (torch.stack([f(*g) for g in groups]) for f in (human.blur, human.count))
        one = human.prior * (maps[0] * human.areas).sum() / people
        truths = {"target": maps.roll(1, 0), "fixations": counts.roll(1, 0)}
        for metric, value in human.protocol(maps + one, **truths, others=others).items():
            direct[metric] += value
        for group in groups[:2]:
            human.add(*group, np.arange(people), others)
    scores = human.scores()
    tolerance = {"cc": 0.03, "sim": 0.03, "auc_judd": 0.015, "sauc": 0.015}
    for metric, values in direct.items():
        expected = float(np.mean(values))
        error = abs(scores[metric] - expected)
        assert error < tolerance.get(metric, 0.06 * expected), metric
        assert error < abs(mean_of_finite(human.by_half[metric]) - expected), metric
