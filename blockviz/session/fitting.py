"""Which metrics a model can have, and which statistics belong to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from blockviz.errors import UnsupportedModel
from blockviz.metrics import ActivationMetric, Metric
from blockviz.models.model import BlockModel
from blockviz.types import BlockId, BlockStatistics, CalibrationSet


def possible(
    model: BlockModel, windows: CalibrationSet, metrics: Mapping[str, Metric], asked: Sequence[str]
) -> dict[str, Metric]:
    """The metrics without those that only `all` stands for and this model cannot have."""
    if "all" not in asked:
        return dict(metrics)
    named = {text.partition(":")[0].strip() for text in asked}
    return {n: m for n, m in metrics.items() if m.name in named or _fits(model, windows, m)}


def _fits(model: BlockModel, windows: CalibrationSet, metric: Metric) -> bool:
    """Whether a metric that `all` stands for can look into this model's blocks."""
    blocks = model.info.units(metric.unit_for("block"))
    try:
        for asked in metric.passes() if isinstance(metric, ActivationMetric) else ():
            asked.start(model, blocks, windows)
    except UnsupportedModel:
        return False
    return True


def only(found: BlockStatistics, blocks: Sequence[BlockId]) -> BlockStatistics:
    """The statistics of these blocks alone: another metric may have asked for others."""
    values = {b: found.values[b] for b in blocks if b in found.values}
    return replace(found, values=values)
