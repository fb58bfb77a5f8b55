"""One ablation sweep: every candidate block left out once, every metric read off the same logits.

Batch by batch over the calibration windows, all candidates within a batch: what is kept of the
dense model is one batch's worth, and a sweep that is stopped has all blocks on fewer windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from blockviz.engine.reader import BatchReader
from blockviz.engine.roads import ROADS
from blockviz.engine.watching import DepthStatistic, Statistic, Watching
from blockviz.models.model import BlockModel
from blockviz.types import (
    AblationTable,
    BlockId,
    BlockStatistics,
    CalibrationBatch,
    CalibrationSet,
    Done,
    Events,
    LetterPrompts,
    Progress,
    Readout,
)


class OutputMetric(Protocol):
    """What the sweep asks of an ablation metric; see metrics.AblationMetric."""

    compares_logits: ClassVar[bool]

    def positions(self, readout: Readout) -> torch.Tensor: ...
    def remember(self, readout: Readout) -> dict[str, torch.Tensor]: ...
    def per_position(self, readout: Readout, kept: Mapping[str, torch.Tensor]) -> torch.Tensor: ...


class Kept(Protocol):
    """Evaluations of earlier runs: for one metric, batch and candidate the windows' means."""

    def get(
        self, metric: OutputMetric, batch: CalibrationBatch, candidate: BlockId | None
    ) -> torch.Tensor | None: ...

    def put(
        self,
        batch: CalibrationBatch,
        candidate: BlockId | None,
        found: Sequence[tuple[OutputMetric, torch.Tensor]],
    ) -> None: ...


@dataclass(frozen=True)
class SweepResult:
    """`tables`: one per metric, in the order given; `statistics`: of the dense model, or None.

    `n_windows`: how many calibration windows it covers (fewer than asked if it was stopped).
    `n_evaluated`, `n_reused`: candidates on a batch that were run, or known from earlier runs.
    """

    tables: tuple[AblationTable, ...]
    statistics: BlockStatistics | None
    n_windows: int
    n_evaluated: int = 0
    n_reused: int = 0


def sweep(
    model: BlockModel,
    calibration: CalibrationSet,
    metrics: Sequence[OutputMetric],
    *,
    candidates: Sequence[BlockId],
    statistics: Mapping[type[Statistic], Sequence[BlockId]] | None = None,
    passes: Mapping[DepthStatistic, Sequence[BlockId]] | None = None,
    prompts: LetterPrompts | None = None,
    removed: Sequence[BlockId] = (),
    engine: str = "fast",
    batch_tokens: int = 1024,
    memory_bytes: int = 1 << 30,
    kept: Kept | None = None,
) -> Events:
    """Done(SweepResult): each candidate left out of the model without `removed`, window by window.

    statistics, passes: what to gather of the model without `removed` in the same run of it, and
    for which blocks. Yields a Progress after every candidate; after every batch it carries the
    SweepResult so far.
    """
    if removed:
        kept = None  # what is kept is known by the candidate alone, not by a plan beneath it
    watching = Watching(
        model, calibration, statistics=statistics or {}, passes=passes or {}, prompts=prompts
    )
    if any(p.holds_streams for p in passes or ()):
        one_token = model.info.n_layers * model.info.hidden_size * model.dtype.itemsize
        batch_tokens = min(batch_tokens, memory_bytes // one_token)
    batch_size = max(1, batch_tokens // calibration.input_ids.shape[1])
    order = (None, *candidates) if metrics else (None,)
    pending = _Tables(metrics, order)
    n_batches = -(-len(calibration) // batch_size)
    total, done, n_windows = n_batches * len(order), 0, 0
    result: SweepResult | None = None
    for batch in calibration.batches(batch_size):
        visit = _Batch(model, batch, metrics, kept)
        if watching or not visit.is_known(order):
            watching.begin(batch)
            watcher = watching if watching else None
            visit.road = ROADS[engine](
                model, batch, removed, memory_bytes=memory_bytes, watcher=watcher
            )
            watching.end()
        for candidate in order:
            pending.add(candidate, visit.read(candidate))
            done += 1
            if candidate != order[-1]:
                yield Progress("scoring", done, total, str(candidate or "whole model"))
        n_windows += batch.input_ids.shape[0]
        pending.counts.append(visit.counts)
        found = watching.result(is_final=n_windows == len(calibration))
        pending.n_evaluated += visit.n_evaluated
        pending.n_reused += visit.n_reused
        result = SweepResult(
            pending.tables(), found, n_windows, pending.n_evaluated, pending.n_reused
        )
        yield Progress("scoring", done, total, "windows done", partial=result)
    yield Done(result)


class _Batch:
    """One batch on its road: each candidate's means, taken from earlier runs where they are known.

    The dense model is read anew as soon as one candidate has to be: what metrics keep of it is not
    stored.
    """

    def __init__(
        self,
        model: BlockModel,
        batch: CalibrationBatch,
        metrics: Sequence[OutputMetric],
        kept: Kept | None,
    ) -> None:
        self._batch, self._metrics, self._kept = batch, metrics, kept
        self._reader = BatchReader(batch, metrics)
        self.road: object | None = None
        self.n_evaluated = self.n_reused = 0
        self._is_dense_read = False

    @property
    def counts(self) -> list[torch.Tensor]:
        return self._reader.counts

    def is_known(self, order: Sequence[BlockId | None]) -> bool:
        """Whether no candidate has to be run."""
        return all(self._known(c) is not None for c in order)

    def read(self, candidate: BlockId | None) -> list[torch.Tensor]:
        """(n_windows,) float64 per metric: the mean over the window's positions that count."""
        if not self._metrics:
            return []
        known = self._known(candidate)
        if known is not None:
            self.n_reused += 1
            return known
        if candidate is not None and not self._is_dense_read:
            self._reader.read(self.road, None)
        self._is_dense_read = True
        means = self._reader.read(self.road, candidate)
        self.n_evaluated += 1
        if self._kept is not None:
            self._kept.put(self._batch, candidate, list(zip(self._metrics, means, strict=True)))
        return means

    def _known(self, candidate: BlockId | None) -> list[torch.Tensor] | None:
        if self._kept is None:
            return None
        found = [self._kept.get(m, self._batch, candidate) for m in self._metrics]
        return None if any(f is None for f in found) else found


class _Tables:
    """Per-window means as they come in, by metric and candidate."""

    def __init__(self, metrics: Sequence[OutputMetric], order: Sequence[BlockId | None]) -> None:
        self._order = order
        self._rows: list[dict[BlockId | None, list[torch.Tensor]]]
        self._rows = [{c: [] for c in order} for _ in metrics]
        self.counts: list[list[torch.Tensor]] = []
        self.n_evaluated = self.n_reused = 0

    def add(self, candidate: BlockId | None, means: Sequence[torch.Tensor]) -> None:
        for row, mean in zip(self._rows, means, strict=True):
            row[candidate].append(mean)

    def tables(self) -> tuple[AblationTable, ...]:
        return tuple(
            AblationTable(
                baseline=torch.cat(row[None]),
                values={c: torch.cat(row[c]) for c in self._order if c is not None},
                counts=torch.cat([batch[i] for batch in self.counts]),
            )
            for i, row in enumerate(self._rows)
        )
