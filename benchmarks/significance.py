"""Measure error rate and power of the significance test in evaluation/summary.py.

    python -m benchmarks.significance [--runs 5000]

In each run, four models have scores of seven metrics on some clips: a clip's difficulty, a part
that all metrics of a model share, and one of their own, all normal, skewed (exponential) or
heavy-tailed (Student's t, 3 degrees of freedom). False: runs in which some of a metric's six
comparisons of equally good models is significant. Shown: runs in which a model that is better by
1.5 standard deviations of a difference is shown to be better than another, by this test and by what
it replaced, a test for each comparison, corrected for all 42 (Holm 1979). Last: false ones of a
single comparison whose differences are themselves skewed, which the test assumes they are not, and
runs in which the 95 % interval of a model's mean holds it, and in which one would that is corrected
for bias and skewness (BCa, Efron 1987). What is not false is of every fifth run.
"""

import argparse
from itertools import combinations
from statistics import NormalDist

import numpy as np

from evaluation.summary import RESAMPLES, SIGNIFICANT, max_t, over_clips

LAWS = {
    "normal": lambda random, size: random.normal(size=size),
    "skewed": lambda random, size: random.exponential(size=size) - 1,
    "heavy-tailed": lambda random, size: random.standard_t(3, size=size) / 3**0.5,
}
CLIPS = 6, 8, 10, 12, 20
METRICS, MODELS, EFFECT = 7, 4, 1.5
PAIRS = list(combinations(range(MODELS), 2))
EVERY = 5  # runs, of one of which all is computed


def scores(law: str, clips: int, random: np.random.Generator) -> np.ndarray:
    """Return scores of models that are equally good: (METRICS, clips, MODELS)."""
    draw = LAWS[law]
    shared = draw(random, (clips, 1)) + draw(random, (clips, MODELS))
    return shared + 0.5 * draw(random, (METRICS, clips, MODELS))


def differences(values: np.ndarray) -> np.ndarray:
    """Return the differences of all pairs of models: (..., clips, pairs)."""
    return np.stack([values[..., a] - values[..., b] for a, b in PAIRS], axis=-1)


def alone(values: np.ndarray) -> np.ndarray:
    """Return p-values of sign flips of each comparison by itself: (clips, n) → (n,)."""
    clips = len(values)
    if clips <= 16:
        bits = np.arange(2**clips)[:, None] >> np.arange(clips) & 1
    else:
        bits = np.random.default_rng(0).integers(2, size=(10_000, clips))
        bits[0] = 0
    sums = np.abs((1.0 - 2.0 * bits) @ values)
    return (sums >= sums[0] - 1e-12).mean(0)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number (Holm 1979)."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty_like(p_values)
    corrected[order] = np.maximum.accumulate(np.minimum(1, factors * p_values[order]))
    return corrected


def bca(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean, corrected for bias and skewness."""
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    means, law = values[drawn].mean(1), NormalDist()
    bias = law.inv_cdf(np.clip((means < values.mean()).mean(), 1e-6, 1 - 1e-6))
    off = values - values.mean()  # a jackknife's means deviate by −off / (n − 1)
    skew = (off**3).sum() / (6 * (off**2).sum() ** 1.5)
    ends = (bias + law.inv_cdf(share) for share in (0.025, 0.975))
    low, high = np.quantile(means, [law.cdf(bias + z / (1 - skew * z)) for z in ends])
    return low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5000, help="runs of each case")
    runs = parser.parse_args().runs
    print("| clips | scores | false | shown | with Holm | false, skewed | interval | BCa |")
    print("|---|---|---|---|---|---|---|---|")
    for clips in CLIPS:
        for law in LAWS:
            random = np.random.default_rng(clips)
            false, skewed, shown, before, held, corrected = [], [], [], [], [], []
            for run in range(runs):
                values = scores(law, clips, random)
                false.append(max_t(differences(values)[0]).min() < SIGNIFICANT)
                if run % EVERY:
                    continue
                score, (low, high) = over_clips(values[0, :, 0]), bca(values[0, :, 0])
                held.append(score["low"] <= 0 <= score["high"])
                corrected.append(low <= 0 <= high)
                values[..., 0] += EFFECT * 1.25**0.5 * 2**0.5
                better = differences(values)
                shown.append(max_t(better[0])[0] < SIGNIFICANT)
                before.append(holm(alone(np.concatenate(better, axis=-1)))[0] < SIGNIFICANT)
                one_sided = random.exponential(size=(clips, 1)) - 1
                skewed.append(max_t(one_sided)[0] < SIGNIFICANT)
            found = false, shown, before, skewed, held, corrected
            rates = " | ".join(f"{np.mean(cases):.3f}" for cases in found)
            print(f"| {clips} | {law} | {rates} |", flush=True)


if __name__ == "__main__":
    main()
