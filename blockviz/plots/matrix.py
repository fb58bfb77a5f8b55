"""Metrics x blocks as plain arrays: what a heat map, its table twin and the grid are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from blockviz.types import BlockId, ModelInfo, Scores, ScoreTable

Shade = Literal["rank", "value"]
SHADES: tuple[Shade, ...] = ("rank", "value")


@dataclass(frozen=True)
class MetricMatrix:
    """Every metric's number for every block; NaN where a metric does not score that block.

    values (metric, block) float64, importance, higher = keep
    raw    (metric, block) float64, the paper's own number
    ranks  (metric, block) float64, 1 = first to remove
    """

    metrics: tuple[str, ...]
    titles: tuple[str, ...]
    units: tuple[str, ...]
    blocks: tuple[BlockId, ...]
    values: np.ndarray
    raw: np.ndarray
    ranks: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.metrics), len(self.blocks))
        if len(self.titles) != len(self.metrics) or len(self.units) != len(self.metrics):
            raise ValueError("one title and one unit per metric")
        for name in ("values", "raw", "ranks"):
            shape = getattr(self, name).shape
            if shape != expected:
                raise ValueError(f"{name} must be (metric, block) = {expected}, not {shape}")

    @classmethod
    def of(cls, table: ScoreTable, info: ModelInfo) -> MetricMatrix:
        """A score of a whole layer stands for both its blocks, with the layer's own rank."""
        blocks = tuple(b.id for b in info.blocks)
        scores = tuple(table.metrics.values())
        shape = (len(scores), len(blocks))
        return cls(
            metrics=tuple(s.metric for s in scores),
            titles=tuple(s.title for s in scores),
            units=tuple(s.unit_label for s in scores),
            blocks=blocks,
            values=np.array([_row(s.values, blocks) for s in scores]).reshape(shape),
            raw=np.array([_row(s.raw, blocks) for s in scores]).reshape(shape),
            ranks=np.array([_row(s.ranks(), blocks) for s in scores]).reshape(shape),
        )

    def tones(self, shade: Shade) -> np.ndarray:
        """(metric, block) float64 in [0, 1], 0 = most removable of its row; NaN stays NaN.

        `rank`: evenly spaced by rank. `value`: linear between the row's 5th and 95th percentile
        and clipped there, because one ruinous cut (often 0.mlp) would leave all others black.
        """
        if shade not in SHADES:
            raise ValueError(f"shade must be one of {SHADES}, not {shade!r}")
        return np.array([_tone(row, shade) for row in self._source(shade)]).reshape(
            self.values.shape
        )

    def _source(self, shade: Shade) -> np.ndarray:
        return self.ranks if shade == "rank" else self.values


def scores_of(scores: Scores, block: BlockId) -> tuple[float, float, int] | None:
    """(importance, raw, rank) of a block, or of its layer; None where it has no score."""
    for candidate in (block, BlockId(block.layer, "layer")):
        if candidate in scores.values:
            raw = scores.raw.get(candidate, scores.values[candidate])
            return scores.values[candidate], raw, scores.ranks()[candidate]
    return None


def _row(numbers: Mapping[BlockId, float], blocks: tuple[BlockId, ...]) -> list[float]:
    whole = {b: numbers.get(BlockId(b.layer, "layer"), float("nan")) for b in blocks}
    return [float(numbers.get(b, whole[b])) for b in blocks]


def _tone(row: np.ndarray, shade: Shade) -> np.ndarray:
    known = row[np.isfinite(row)]
    if known.size == 0:
        return row.copy()
    if shade == "rank":
        low, high = 1.0, float(known.max())
    else:
        low, high = (float(q) for q in np.percentile(known, (5, 95)))
    if high <= low:
        return np.where(np.isfinite(row), 0.5, np.nan)
    return np.clip((row - low) / (high - low), 0.0, 1.0)
