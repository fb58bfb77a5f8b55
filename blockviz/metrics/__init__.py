"""Every importance metric: one small file each, registered by its name."""

from blockviz.metrics import bi, lds, ppl, rm
from blockviz.metrics.base import (
    METRICS,
    AblationMetric,
    ActivationMetric,
    Metric,
    parse_metric,
    parse_metrics,
)

__all__ = [
    "METRICS",
    "AblationMetric",
    "ActivationMetric",
    "Metric",
    "bi",
    "lds",
    "parse_metric",
    "parse_metrics",
    "ppl",
    "rm",
]
