"""One ablation metric of many removed sets by the plain road: what the fast one is held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from blockviz.engine.reader import BatchReader
from blockviz.engine.roads import ReferenceRoad
from blockviz.models.model import BlockModel
from blockviz.types import CalibrationSet, RemovedSet

if TYPE_CHECKING:
    from blockviz.engine.measure import Measuring, WindowMetric

EMPTY: RemovedSet = frozenset()


class ReferenceMeter:
    """The same values the plain way, as published code does: the whole model for every set.

    What SetMeter is tested against and measured beside.
    """

    def __init__(
        self,
        model: BlockModel,
        windows: CalibrationSet,
        metric: WindowMetric,
        *,
        batch_tokens: int = 1024,
    ) -> None:
        self._model, self._windows, self._metric = model, windows, metric
        self._size = max(1, batch_tokens // windows.input_ids.shape[1])

    def values(self, sets: Sequence[RemovedSet], windows: Sequence[int]) -> Measuring:
        found = torch.empty(len(sets), len(windows), dtype=torch.float64)
        for start in range(0, len(windows), self._size):
            batch = self._windows.rows(windows[start : start + self._size])
            reader = BatchReader(batch, [self._metric])
            if self._metric.reads_dense:
                reader.read(ReferenceRoad(self._model, batch, EMPTY), None)
                yield
            for i, removed in enumerate(sets):
                (means,) = reader.read(ReferenceRoad(self._model, batch, removed), None)
                (counts,) = reader.counts
                values = self._metric.window_values(means, counts)
                found[i, start : start + self._size] = values
                yield
        return found
