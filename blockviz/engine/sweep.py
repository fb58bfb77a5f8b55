"""One ablation sweep: every candidate block left out once, every metric read off the same logits.

Batch by batch over the calibration windows, all candidates within a batch: what is kept of the
dense model is one batch's worth, and a sweep that is stopped has all blocks on fewer windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from blockviz.engine.roads import ROADS, FastRoad, ReferenceRoad
from blockviz.evaluate.loss import next_token_nll
from blockviz.evaluate.perplexity import next_tokens
from blockviz.models.model import BlockModel
from blockviz.types import (
    AblationTable,
    BlockId,
    BlockStatistics,
    CalibrationBatch,
    CalibrationSet,
    Done,
    Events,
    Progress,
    Readout,
)


class OutputMetric(Protocol):
    """What the sweep asks of an ablation metric; see metrics.AblationMetric."""

    def positions(self, readout: Readout) -> torch.Tensor: ...
    def remember(self, readout: Readout) -> dict[str, torch.Tensor]: ...
    def per_position(self, readout: Readout, kept: Mapping[str, torch.Tensor]) -> torch.Tensor: ...


class Statistic(Protocol):
    """What the sweep asks of a one-pass statistic; see stats.BlockStatistic."""

    name: str

    def add(self, before: torch.Tensor, update: torch.Tensor, mask: torch.Tensor) -> None: ...
    def result(self) -> dict[str, torch.Tensor]: ...


@dataclass(frozen=True)
class SweepResult:
    """`tables`: one per metric, in the order given; `statistics`: of the dense model, or None.

    `n_windows`: how many calibration windows it covers (fewer than asked if it was stopped).
    """

    tables: tuple[AblationTable, ...]
    statistics: BlockStatistics | None
    n_windows: int


def sweep(
    model: BlockModel,
    calibration: CalibrationSet,
    metrics: Sequence[OutputMetric],
    *,
    candidates: Sequence[BlockId],
    statistics: Sequence[type[Statistic]] = (),
    statistic_blocks: Sequence[BlockId] = (),
    removed: Sequence[BlockId] = (),
    engine: str = "fast",
    batch_tokens: int = 1024,
    memory_bytes: int = 1 << 30,
) -> Events:
    """Done(SweepResult): each candidate left out of the model without `removed`, window by window.

    Yields a Progress after every candidate; after every batch it carries the SweepResult so far.
    """
    batch_size = max(1, batch_tokens // calibration.input_ids.shape[1])
    candidates = tuple(candidates) if metrics else ()
    pending = _Tables(metrics, candidates)
    collector = _Collector(statistics, statistic_blocks)
    n_batches = -(-len(calibration) // batch_size)
    total, done, result = n_batches * (len(candidates) + 1), 0, None
    n_windows = n_tokens = 0
    for batch in calibration.batches(batch_size):
        collector.mask = batch.attention_mask
        road = ROADS[engine](
            model,
            batch,
            removed,
            memory_bytes=memory_bytes,
            on_block=collector.add if statistics else None,
        )
        reader = _BatchReader(road, batch, metrics)
        for candidate in (None, *candidates):
            if metrics:
                pending.add(candidate, reader.read(candidate))
            done += 1
            if candidate != (None, *candidates)[-1]:
                yield Progress("scoring", done, total, str(candidate or "whole model"))
        n_windows += batch.input_ids.shape[0]
        n_tokens += int(batch.attention_mask.sum())
        result = SweepResult(pending.tables(), collector.result(n_tokens, n_windows), n_windows)
        yield Progress("scoring", done, total, "windows done", partial=result)
    yield Done(result)


class _BatchReader:
    """Reads every metric off one batch's logits, chunk by chunk, into per-window means."""

    def __init__(
        self,
        road: FastRoad | ReferenceRoad,
        batch: CalibrationBatch,
        metrics: Sequence[OutputMetric],
    ) -> None:
        self._road, self._metrics = road, metrics
        valid = batch.attention_mask.flatten().nonzero()[:, 0]
        targets, has_target = next_tokens(batch)
        self._targets = targets.flatten()[valid]
        self._has_target = has_target.flatten()[valid]
        self._window = valid // batch.input_ids.shape[1]
        self._n_windows = batch.input_ids.shape[0]
        self._kept: dict[tuple[int, int], dict[str, torch.Tensor]] = {}

    @torch.inference_mode()
    def read(self, candidate: BlockId | None) -> list[torch.Tensor]:
        """(n_windows,) float64 per metric: the mean over the window's positions that count."""
        sums = torch.zeros(2, len(self._metrics), self._n_windows, dtype=torch.float64)
        for rows, logits in self._road.chunks(candidate):
            readout = self._readout(rows, logits)
            for i, metric in enumerate(self._metrics):
                if candidate is None and (i, rows.start) not in self._kept:
                    self._kept[i, rows.start] = metric.remember(readout)
                values = metric.per_position(readout, self._kept[i, rows.start])
                counts = metric.positions(readout).cpu()
                values = torch.where(counts, values.cpu().double(), 0.0)
                sums[0, i].index_add_(0, self._window[rows], values)
                sums[1, i].index_add_(0, self._window[rows], counts.double())
        return list(sums[0] / sums[1])

    def _readout(self, rows: slice, logits: torch.Tensor) -> Readout:
        logits = logits.float()
        targets = self._targets[rows].to(logits.device)
        return Readout(
            logits=logits,
            nll=next_token_nll(logits, targets),
            targets=targets,
            has_target=self._has_target[rows].to(logits.device),
        )


class _Tables:
    """Per-window means as they come in, by metric and candidate."""

    def __init__(self, metrics: Sequence[OutputMetric], candidates: Sequence[BlockId]) -> None:
        self._candidates = candidates
        self._rows: list[dict[BlockId | None, list[torch.Tensor]]]
        self._rows = [{c: [] for c in (None, *candidates)} for _ in metrics]

    def add(self, candidate: BlockId | None, means: Sequence[torch.Tensor]) -> None:
        for row, mean in zip(self._rows, means, strict=True):
            row[candidate].append(mean)

    def tables(self) -> tuple[AblationTable, ...]:
        return tuple(
            AblationTable(
                baseline=torch.cat(row[None]),
                values={c: torch.cat(row[c]) for c in self._candidates},
            )
            for row in self._rows
        )


class _Collector:
    """The one-pass statistics of the blocks that are asked for."""

    def __init__(self, kinds: Sequence[type[Statistic]], blocks: Sequence[BlockId]) -> None:
        self._running = {b: [kind() for kind in kinds] for b in blocks}
        self.mask: torch.Tensor = torch.empty(0)

    def add(self, block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
        for statistic in self._running.get(block, ()):
            statistic.add(before, update, self.mask)

    def result(self, n_tokens: int, n_windows: int) -> BlockStatistics | None:
        if not self._running:
            return None
        values = {
            block: {f"{s.name}.{k}": v for s in running for k, v in s.result().items()}
            for block, running in self._running.items()
        }
        return BlockStatistics(values, n_tokens, n_windows)
