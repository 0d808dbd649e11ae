"""Saliency metrics on the sphere, chosen by name; (..., H, W) maps → (...) values."""

from common.components import METRICS
from metrics.protocol import Protocol
from metrics.saliency import Metric, auc_judd, cc, information_gain, kld, nss, sauc, sim

__all__ = [
    "METRICS",
    "Metric",
    "Protocol",
    "auc_judd",
    "cc",
    "information_gain",
    "kld",
    "nss",
    "sauc",
    "sim",
]
