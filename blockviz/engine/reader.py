"""Reads every metric off one batch's logits, piece by piece, into per-window means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from blockviz.engine.roads import FastRoad, ReferenceRoad
from blockviz.evaluate.loss import next_token_nll
from blockviz.evaluate.perplexity import next_tokens
from blockviz.models.stage import piece_rows
from blockviz.types import BlockId, CalibrationBatch, Readout

if TYPE_CHECKING:
    from blockviz.engine.sweep import OutputMetric


class BatchReader:
    """`counts`: per metric (n_windows,) float64, the positions of each window that count.

    The first candidate that is read must be None, the dense model: metrics keep what they need of
    it, and where one compares logits its logits are kept, for this batch only.
    """

    def __init__(self, batch: CalibrationBatch, metrics: Sequence[OutputMetric]) -> None:
        self._metrics = metrics
        valid = batch.attention_mask.flatten().nonzero()[:, 0]
        targets, has_target = next_tokens(batch)
        self._targets = targets.flatten()[valid]
        self._has_target = has_target.flatten()[valid]
        self._window = valid // batch.input_ids.shape[1]
        self._n_windows = batch.input_ids.shape[0]
        self._compares = any(m.compares_logits for m in metrics)
        self._kept: dict[tuple[int, int], Mapping[str, torch.Tensor]] = {}
        self._dense: dict[int, Dense] = {}
        # Which positions count is asked of a readout without logits: they play no part in it.
        nothing = torch.zeros(len(self._targets), 0)
        blank = Readout(nothing, torch.zeros(len(nothing)), self._targets, self._has_target)
        self._counted = [metric.positions(blank) for metric in metrics]
        self.counts = [self._by_window(counted.double()) for counted in self._counted]

    @torch.inference_mode()
    def read(self, road: FastRoad | ReferenceRoad, candidate: BlockId | None) -> list[torch.Tensor]:
        """(n_windows,) float64 per metric: the mean over the window's positions that count."""
        values = torch.zeros(len(self._metrics), len(self._targets), dtype=torch.float64)
        for rows, logits in _pieces(road, candidate):
            readout = self._readout(rows, logits, is_dense=candidate is None)
            for i, metric in enumerate(self._metrics):
                if (i, rows.start) not in self._kept:
                    self._kept[i, rows.start] = metric.remember(readout)
                found = metric.per_position(readout, self._kept[i, rows.start])
                values[i, rows] = found.cpu().double()
        means = []
        for row, counted, count in zip(values, self._counted, self.counts, strict=True):
            means.append(self._by_window(torch.where(counted, row, 0.0)) / count)
        return means

    def _by_window(self, values: torch.Tensor) -> torch.Tensor:
        """(n_windows,) float64 sums of (position,) values."""
        total = torch.zeros(self._n_windows, dtype=torch.float64)
        return total.index_add_(0, self._window, values)

    def _readout(self, rows: slice, logits: torch.Tensor, *, is_dense: bool) -> Readout:
        device = logits.device
        where = self._targets[rows].to(device), self._has_target[rows].to(device)
        if self._compares and is_dense and rows.start not in self._dense:
            self._dense[rows.start] = Dense(logits, readout_of(logits, *where))
        dense = self._dense[rows.start].readout() if self._compares else None
        return readout_of(logits, *where, dense)


class Dense:
    """The dense model's output at some positions, widened for as long as one piece is read."""

    def __init__(self, logits: torch.Tensor, readout: Readout) -> None:
        self._logits, self._small = logits, replace(readout, logits=logits[:, :0])
        self._known = {"log_sum_exp": readout.log_sum_exp, "size": readout.size}

    def readout(self) -> Readout:
        found = replace(self._small, logits=self._logits.float())
        found.__dict__.update(self._known)  # where cached_property keeps its value
        return found


def readout_of(
    logits: torch.Tensor,
    targets: torch.Tensor,
    has_target: torch.Tensor,
    dense: Readout | None = None,
) -> Readout:
    """The readout of (position, vocab) logits; what its loss holds already is not done twice."""
    wide = logits.float()
    found = Readout(wide, next_token_nll(wide, targets), targets, has_target, dense)
    # The loss holds it already, and working it out takes as long as the loss does.
    at_target = wide.gather(-1, targets[:, None])[:, 0]
    found.__dict__["log_sum_exp"] = found.nll + at_target
    return found


def _pieces(
    road: FastRoad | ReferenceRoad, candidate: BlockId | None
) -> Iterator[tuple[slice, torch.Tensor]]:
    for rows, logits in road.chunks(candidate):
        size = piece_rows(logits.shape[-1], logits.device)
        for start in range(0, len(logits), size):
            piece = logits[start : start + size]
            first = rows.start + start
            yield slice(first, first + len(piece)), piece
