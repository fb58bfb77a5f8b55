"""Every importance metric: one small file a formula, registered by its name."""

# In the order in which they are listed everywhere: what is measured first, diagnostics last.
# isort: off
from blockviz.metrics import ppl, lds, drift, bi, rm, windows, tabp, weights, cka, shapley, cvr, acc

# isort: on
from blockviz.metrics.base import (
    METRICS,
    AblationMetric,
    ActivationMetric,
    Game,
    GameMetric,
    Metric,
    TaskMetric,
    WeightMetric,
)
from blockviz.metrics.parsing import parse_metric, parse_metrics

__all__ = [
    "METRICS",
    "AblationMetric",
    "ActivationMetric",
    "Game",
    "GameMetric",
    "Metric",
    "TaskMetric",
    "WeightMetric",
    "acc",
    "bi",
    "cka",
    "cvr",
    "drift",
    "lds",
    "parse_metric",
    "parse_metrics",
    "ppl",
    "rm",
    "shapley",
    "tabp",
    "weights",
    "windows",
]
