"""Saliency metrics on the sphere, chosen by name; (..., H, W) maps → (...) values."""

from common.errors import InputError
from common.own_code import find_own
from metrics.protocol import Protocol
from metrics.saliency import METRICS, Metric, auc_judd, cc, information_gain, kld, nss, sauc, sim

__all__ = [
    "METRICS",
    "Metric",
    "Protocol",
    "auc_judd",
    "cc",
    "find_metric",
    "information_gain",
    "kld",
    "nss",
    "sauc",
    "sim",
]


def find_metric(name: str) -> Metric:
    """Return a metric by name, or a user-defined "package.module:NAME". Raises as find_own."""
    metric = find_own(name, METRICS, "metric", Metric, "an instance of metrics.Metric", True)
    truths = sorted({need for other in METRICS.values() for need in other.needs})
    if not metric.needs or not {*metric.needs} <= {*truths}:
        raise InputError(f"{name}: needs {metric.needs}; give it some of {', '.join(truths)}")
    return METRICS.setdefault(name, metric)
