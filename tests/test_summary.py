"""Means over clips, their comparison with baselines, and the protocols."""

import csv
import io
import math

import numpy as np
import pytest
import torch

from evaluation.summary import (
    BASELINES,
    differences,
    max_t,
    mean_of_finite,
    over_clips,
    verdicts,
)
from evaluation.tables import csv_text, latex_table, markdown_table, text_table
from metrics import METRICS, Protocol

NAN = math.nan
UNIFORM, EQUATOR, TRAINING = BASELINES


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


def results(model: dict, baselines: dict[str, dict]) -> dict:
    """As metrics.json has them, from the scores of each clip: metric → list."""
    predictors = {"ours": model, **baselines}
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
    content = {"models": ["ours"], "metrics": facts, "predictors": means, "clips": clips}
    return content | {"differences": differences(content)}


def test_difference_is_paired():
    """Clips differ by far more than model and baseline, which differ by the same in each clip."""
    baseline = [0.1, 0.3, 0.5, 0.7, 0.9, 0.2, 0.8]
    model = [score + 0.05 for score in baseline]
    content = results({"cc": model, "kld": model}, {EQUATOR: {"cc": baseline, "kld": baseline}})
    intervals = [content["predictors"][p]["cc"] for p in ("ours", EQUATOR)]
    assert intervals[0]["low"] < intervals[1]["high"]
    for metric, better, found in zip(("cc", "kld"), (7, 0), differences(content), strict=True):
        names = [found.pop(key) for key in ("metric", "model", "other")]
        assert names == [metric, "ours", EQUATOR]
        by = pytest.approx(0.05)
        p = pytest.approx(2 / 2**7)  # two of 128 choices of signs
        counts = {"clips": 7, "better": better}
        assert found == {"difference": by, "low": by, "high": by, "p": p, **counts}
    assert verdicts(content) == [
        "CC ↑  ours − equator prior: +0.050* (0.050 to 0.050), p = 0.016, better on 7 of 7 clips",
        "KLD ↓  ours − equator prior: +0.050* (0.050 to 0.050), p = 0.016, better on 0 of 7 clips",
        "Mean differences over clips; *: p < 0.05 of sign flips, corrected for the comparisons of "
        "the metric (max-T).",
    ]


def test_the_best_baseline_is_that_of_the_metric():
    model = {"cc": [0.5, 0.5], "kld": [1.0, 1.0]}
    baselines = {UNIFORM: {"cc": [0.0, 0.0], "kld": [1.5, 1.5]},
              EQUATOR: {"cc": [0.2, NAN], "kld": [2.0, 2.0]}}  # fmt: skip
    cc, kld = differences(results(model, baselines))
    assert cc["other"] == EQUATOR and kld["other"] == UNIFORM
    assert cc["difference"] == pytest.approx(0.3)
    assert cc["clips"] == 1 and math.isnan(cc["low"])
    assert kld["difference"] == pytest.approx(-0.5)


def test_models_are_compared_in_pairs():
    """Two models differ by far less than clips do, yet by the same in each clip."""
    scores = [0.1, 0.3, 0.5, 0.7, 0.9, 0.2, 0.8]
    better = {"cc": [score + 0.02 for score in scores]}
    content = results({"cc": scores}, {UNIFORM: {"cc": [0.0] * 7}, "theirs": better})
    content["models"] = ["ours", "theirs"]
    found = [(d["model"], d["other"], round(d["difference"], 3)) for d in differences(content)]
    assert found == [("ours", UNIFORM, 0.5), ("theirs", UNIFORM, 0.52), ("ours", "theirs", -0.02)]
    assert differences(content)[-1]["high"] == pytest.approx(-0.02)
    assert verdicts(content | {"differences": differences(content)}) == [
        "CC ↑    − uniform   − ours  − theirs",
        "ours      +0.500*        –   −0.020*",
        "theirs    +0.520*  +0.020*         –",
        "",
        "Mean differences over clips; *: p < 0.05 of sign flips, corrected for the comparisons of "
        "the metric (max-T).",
    ]


@pytest.mark.parametrize("gains, says", [
    ([0.1, 0.2, 0.1, 0.2, 0.1, 0.2], "0.150* (0.117 to 0.183), p = 0.031, better on 6 of 6"),
    ([0.1, 0.2, 0.1, 0.2, 0.1], "p = 0.062, better on 5 of 5 clips"),
    ([0.1], "0.100, better on 1 of 1 clips"),
    ([0.4, -0.2, 0.4, -0.2, 0.4, -0.2, 0.4, -0.2], "better on 4 of 8 clips"),
    ([-0.1, -0.2, -0.1, -0.2, -0.1, -0.2], "0.150* ("),
    ([1e-6] * 6, "0.000 (0.000 to 0.000), p = "),
    ([0.0] * 6, "0.000 (0.000 to 0.000), p = 1.000"),
])  # fmt: skip
def test_verdicts(gains, says):
    for metric, sign in (("cc", 1), ("kld", -1)):
        model, baseline = [1 + sign * gain for gain in gains], [1.0] * len(gains)
        found = verdicts(results({metric: model}, {EQUATOR: {metric: baseline}}))
        assert says.replace("0.117 to 0.183", "") in found[0].replace(
            "0.117 to 0.183" if sign > 0 else "−0.183 to −0.117", ""
        )
        few = "5 clips are too few to show any difference; 6 are enough."
        assert (few in found) == (len(gains) == 5)


def test_a_model_without_a_score_is_not_compared():
    content = results({"cc": [NAN]}, {EQUATOR: {"cc": [1.0]}})
    assert content["differences"] == verdicts(content) == []


def p_value(gains) -> float:
    return max_t(np.array(gains)[:, None])[0]


def test_signs_are_flipped_in_all_ways():
    """The means of ±1 ±2 ±4 are as far from zero as 5 in 4 of 8 cases: ±7 and ±5."""
    assert p_value([1.0, 4.0, NAN, 2.0]) == 2 / 8 and p_value([-1.0, 4.0, 2.0]) == 4 / 8
    assert p_value([0.0] * 6) == 1 == p_value([0.3])
    many = p_value(np.random.default_rng(0).normal(0.4, 1, 40))  # against the normal law
    z = np.random.default_rng(0).normal(0.4, 1, 40)
    normal = math.erfc(abs(z.mean()) / (z.std() / math.sqrt(40)) / math.sqrt(2))
    assert many == pytest.approx(normal, abs=0.01) and many == p_value(z)


@pytest.mark.parametrize("clips", [6, 10, 20])
def test_differences_that_are_not_there_are_shown_in_at_most_five_of_a_hundred_cases(clips):
    random = np.random.default_rng(clips)
    runs = 400 if clips <= 16 else 100
    found = np.mean([p_value(random.normal(0, 1, clips)) < 0.05 for _ in range(runs)])
    assert found < 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_p_values_are_corrected_jointly_by_hand():
    """In 2 of 8 choices of signs, (3, 3, 3) has its T of √3; the others' are at most √2, 7/√19."""
    differences = np.array([[3.0, 3, 1], [3, 3, -1], [3, -1, 0]])
    assert max_t(differences)[0] == 2 / 8
    # Step 2, without the first one: 5/√19 = 1.15 is reached in all, by 7/√19, itself or √2.
    assert max_t(differences).tolist() == [2 / 8, 1, 1]
    assert max_t(differences[:, :1]) == [2 / 8] and max_t(differences[:, 1:2]) == [4 / 8]


def test_twelve_models_and_seven_metrics_could_never_show_a_difference():
    """With 546 comparisons at once, the smallest corrected p of 10,000 draws was 0.0546."""
    random = np.random.default_rng(0)
    scores = random.normal(0, 1, (20, 1)) + random.normal(0, 0.1, (20, 13))
    scores[:, 0] += 5
    p = max_t(np.stack([scores[:, a] - scores[:, b] for a in range(13) for b in range(a)], -1))
    first = [k for k, (a, b) in enumerate((a, b) for a in range(13) for b in range(a)) if b == 0]
    assert (p[first] < 0.001).all() and (np.delete(p, first) > 0.05).all()


def test_table_of_one_clip_has_no_intervals():
    content = results({"cc": [0.5]}, {UNIFORM: {"cc": [0.0]}})
    assert text_table(content) == "          CC ↑\nours     0.500\nuniform  0.000"


def test_a_name_with_a_line_break_broke_the_rows_of_tables():
    content = results({"cc": [0.5]}, {"a\n| b\r\n[x](javascript:1) ~~c~~": {"cc": [0.0]}})
    text, markdown, latex = (f(content) for f in (text_table, markdown_table, latex_table))
    assert text.splitlines()[2] == r"a\x0a| b\x0d\x0a[x](javascript:1) ~~c~~  0.000"
    assert markdown.splitlines()[3] == (
        r"| a\\x0a\| b\\x0d\\x0a\[x\](javascript:1) \~\~c\~\~ | 0.000 |"
    )
    slash, tildes = r"\textbackslash{}", r"\textasciitilde{}" * 2
    broken = f"a{slash}x0a| b{slash}x0d{slash}x0a{{[}}x{{]}}(javascript:1) {tildes}c{tildes}"
    assert latex.splitlines()[5] == rf"{broken} & 0.000 \\"


@pytest.mark.parametrize("before", ["", "\t", "\r", "\n", " \t\r\n"])
def test_a_formula_after_a_tab_was_one_to_spreadsheets(before):
    for formula in ("=1+2", "+1", "-1", "@SUM(1)"):
        [[cell]] = csv.reader(io.StringIO(csv_text([[before + formula]]), newline=""))
        assert cell == f"'{before}{formula}"


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
    assert list(protocol(maps, target=maps)) == ["cc", "sim", "kld"]
    assert list(protocol(maps, fixations=maps, others=maps)) == ["nss", "auc_judd", "sauc"]
    truths = {"target": maps, "fixations": maps, "others": maps, "prior": maps}
    assert list(protocol(maps, **truths)) == list(METRICS)
    assert math.isnan(protocol(maps, target=torch.zeros(1, 4, 8))["cc"][0])
    with pytest.raises(ValueError, match="negative"):
        protocol(-maps, target=maps)
    assert not protocol.state_dict() and protocol.to("meta").weights.is_meta
    with pytest.raises(ValueError, match="sphere, planar, sin"):
        Protocol("cylinder", 4, 8)
