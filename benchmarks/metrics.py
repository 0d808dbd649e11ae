"""Measure the metrics: milliseconds for each map, against plain numpy with a full sort.

    python -m benchmarks.metrics

The maps have 240×480 pixels and 100 fixations and are weighted by solid angles. One prediction is
smooth, the other is noise, in which every pixel has its own value. Both implementations run in
turn in one process; the median of the repeats is printed. The numpy implementation computes in
float64 and builds the ROC curve as scikit-learn does.
"""

import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

from metrics import METRICS
from projection import solid_angles

HEIGHT, WIDTH, FIXATIONS = 240, 480, 100


def shares(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return maps * weights / (maps * weights).sum()


def standardized(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    centred = maps - np.average(maps, weights=weights)
    return centred / np.sqrt(np.average(centred**2, weights=weights))


def plain_cc(pred, target, weights):
    return np.average(standardized(pred, weights) * standardized(target, weights), weights=weights)


def plain_sim(pred, target, weights):
    return np.minimum(shares(pred, weights), shares(target, weights)).sum()


def plain_kld(pred, target, weights):
    p, q = shares(pred, weights), shares(target, weights)
    eps = np.finfo(float).eps
    return (q * np.log(q / (p + eps) + eps)).sum()


def plain_nss(pred, fixations, weights):
    return np.average(standardized(pred, weights), weights=fixations)


def plain_auc(pred, fixations, weights):
    """Integrate the ROC curve by trapezoids, with one point for each distinct value."""
    pred, fixations, weights = (array.ravel() for array in (pred, fixations, weights))
    order = np.argsort(pred, kind="mergesort")[::-1]
    last = np.r_[np.flatnonzero(np.diff(pred[order])), pred.size - 1]
    hits = np.cumsum(fixations[order])[last]
    false_alarms = np.cumsum((weights * (fixations == 0))[order])[last]
    y, x = (np.r_[0, rate / rate[-1]] for rate in (hits, false_alarms))
    return (np.diff(x) * (y[1:] + y[:-1]) / 2).sum()


PLAIN = {
    "cc": plain_cc,
    "sim": plain_sim,
    "kld": plain_kld,
    "nss": plain_nss,
    "auc_judd": plain_auc,
}


def maps(seed: int, smooth: bool) -> dict[str, torch.Tensor]:
    """Return a prediction, a truth and fixations drawn from the truth: (H, W) float32."""
    generator = torch.Generator().manual_seed(seed)
    pred, target = (
        F.interpolate(coarse[None, None], (HEIGHT, WIDTH), mode="bilinear")[0, 0]
        for coarse in torch.rand(2, 8, 16, generator=generator)
    )
    if not smooth:
        pred = torch.rand(HEIGHT, WIDTH, generator=generator)
    at = (target**4).flatten().multinomial(FIXATIONS, generator=generator)
    fixations = torch.zeros(HEIGHT * WIDTH).index_fill(0, at, 1).view(HEIGHT, WIDTH)
    return {"pred": pred, "target": target, "fixations": fixations}


def seconds(function, *arguments) -> tuple[float, float]:
    """Return the time that a call took and its value."""
    start = time.perf_counter()
    value = function(*arguments)
    return time.perf_counter() - start, float(value)


def compare(kind: str, repeats: int) -> None:
    ours = maps(seed=0, smooth=kind == "smooth")
    weights = solid_angles(HEIGHT, WIDTH, torch.float64)
    numpy = {name: tensor.numpy().astype(np.float64) for name, tensor in ours.items()}
    numpy_weights = weights.expand(HEIGHT, WIDTH).numpy().copy()
    times, difference = {name: ([], []) for name in PLAIN}, 0.0
    for repeat in range(repeats + 1):
        for name, plain in PLAIN.items():
            metric = METRICS[name]
            truth = metric.needs[0]
            taken, value = seconds(metric.function, ours["pred"], ours[truth], weights)
            plain_taken, expected = seconds(plain, numpy["pred"], numpy[truth], numpy_weights)
            difference = max(difference, abs(value - expected))
            if repeat:  # the first warms up
                times[name][0].append(taken)
                times[name][1].append(plain_taken)
    times["all five"] = [[sum(run) for run in zip(*runs)] for runs in zip(*times.values())]
    for name, (taken, plain_taken) in times.items():
        print(
            f"{kind:7}{name:10}{1e3 * statistics.median(taken):7.2f} ms, "
            f"numpy {1e3 * statistics.median(plain_taken):6.2f} ms"
        )
    print(f"{kind:7}largest difference {difference:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=25, help="repeats of each measurement")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for kind in ("smooth", "noise"):
        compare(kind, args.repeats)


if __name__ == "__main__":
    main()
