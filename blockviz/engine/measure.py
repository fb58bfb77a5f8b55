"""One ablation metric of many removed sets, window by window: what a search asks of a model."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from blockviz.engine.branches import Branches
from blockviz.engine.positions import sample
from blockviz.engine.reader import Dense, readout_of
from blockviz.engine.recall import Recall
from blockviz.engine.sweep import OutputMetric
from blockviz.engine.trunk import Trunk
from blockviz.evaluate.perplexity import next_tokens
from blockviz.models.model import BlockModel
from blockviz.models.stage import Head, Stage
from blockviz.types import CalibrationBatch, CalibrationSet, Readout, RemovedSet

log = logging.getLogger(__name__)

EMPTY: RemovedSet = frozenset()
# What a layer holds of each position while it is run, in widths of the stream.
LAYER_WIDTHS = 16
# One part in so many of the memory is for the streams of what a search has settled on.
TRUNK_PART = 8
# And one in so many for what a metric keeps of the whole model, if that is little.
RECALL_PART = 32
# Logits that are made at once; what reads them holds several of their size.
HEAD_BYTES, HEAD_PART = 48 << 20, 20


class WindowMetric(OutputMetric, Protocol):
    """What is asked of a metric beyond what a sweep asks; see metrics.AblationMetric."""

    @property
    def reads_dense(self) -> bool: ...
    def picks(self, kept: Mapping[str, torch.Tensor]) -> torch.Tensor | None: ...
    def of_picked(self, logits: torch.Tensor, kept: Mapping[str, torch.Tensor]) -> torch.Tensor: ...
    def window_values(self, means: torch.Tensor, counts: torch.Tensor) -> torch.Tensor: ...


# Steps in between; at the end (set, window) float64, the lower the better.
Measuring = Generator[None, None, torch.Tensor]


class SetMeter:
    """Window values of removed sets under one metric, each stretch of the model run once.

    `memory_bytes` bounds the streams that are alive at once. What a metric compares with is always
    the whole model, not what a search has left of it: `whole`, where `model` has been changed.
    `n_positions`: only so many positions of each window are read, the same of all sets, drawn by
    `seed`.
    """

    def __init__(
        self,
        model: BlockModel,
        windows: CalibrationSet,
        metric: WindowMetric,
        *,
        chunk_tokens: int = 1024,
        memory_bytes: int = 1 << 30,
        n_positions: int | None = None,
        seed: int = 0,
        whole: BlockModel | None = None,
    ) -> None:
        self._model, self._windows, self._metric = model, windows, metric
        self._original = whole
        share = HEAD_PART * (2 if metric.compares_logits else 1)
        self._head = Head(model, chunk_bytes=min(HEAD_BYTES, memory_bytes // share))
        self._n_layers = model.info.n_layers
        self._chunk_tokens, self._memory_bytes = chunk_tokens, memory_bytes
        self._sampled = sample(windows, n_positions, seed)
        self._trunk = Trunk(memory_bytes // TRUNK_PART)
        # Of the whole model, only what the head reads.
        self._whole = Trunk(memory_bytes // TRUNK_PART if metric.reads_dense else 0)
        self._recall = Recall(memory_bytes // RECALL_PART)

    def __len__(self) -> int:
        return len(self._windows)

    def values(self, sets: Sequence[RemovedSet], windows: Sequence[int]) -> Measuring:
        """(set, window) float64 of the named windows; a set with a NaN logit has NaN there.

        Where memory runs out, less is run at once, from there on.
        """
        found = torch.empty(len(sets), len(windows), dtype=torch.float64)
        self._trunk.follow(frozenset.intersection(*sets))
        start = 0
        while start < len(windows):
            size = max(1, self._chunk_tokens // self._windows.input_ids.shape[1])
            part = list(windows[start : start + size])
            try:
                values = yield from self._batch(part, sets)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error) or self._chunk_tokens <= 1:
                    raise
                log.warning("Out of memory; going on with half as much at once.")
                self._chunk_tokens //= 2
                self._memory_bytes //= 2
                self._trunk.forget()
                self._whole.forget()
                self._recall.forget()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            for i, removed in enumerate(sets):
                found[i, start : start + len(part)] = values[removed]
            start += len(part)
        return found

    def _batch(
        self, windows: list[int], sets: Sequence[RemovedSet]
    ) -> Generator[None, None, dict[RemovedSet, torch.Tensor]]:
        batch = self._windows.rows(windows)
        read = None if self._sampled is None else self._sampled[windows]
        branches = Branches(
            self._model,
            batch,
            chunk_tokens=self._chunk_tokens,
            trunk=self._trunk,
            windows=windows,
        )
        reader = _Reader(self._head, batch, self._metric, read)
        reader.kept = self._recall.get(windows)
        found: dict[RemovedSet, torch.Tensor] = {}
        dense = self._whole.get(windows, self._n_layers)
        reads_dense = self._metric.reads_dense and reader.kept is None
        if dense is None and reads_dense and self._original is not None:
            stage = Stage(self._original, batch)
            dense = stage.run(stage.stream, 0, EMPTY)
            self._whole.put(windows, self._n_layers, dense)
            yield
        for group in branches.groups(sets, self._for_streams()):
            wants_dense = reads_dense and dense is None
            streams = yield from branches.run([EMPTY, *group] if wants_dense else list(group))
            if wants_dense:
                dense, *streams = streams
                self._whole.put(windows, self._n_layers, dense)
            hidden = [self._head.hidden(stream) for stream in streams]
            del streams
            whole = None if dense is None else self._head.hidden(dense)
            means = yield from reader.read(hidden, whole)
            found |= zip(group, means, strict=True)
        if reader.kept is not None:
            self._recall.put(windows, reader.counts, reader.kept)
        return found

    def _for_streams(self) -> int:
        """What is left of the budget beside a layer's and the head's own needs and the trunk."""
        info, size = self._model.info, self._model.dtype.itemsize
        layer = self._chunk_tokens * LAYER_WIDTHS * info.hidden_size * size
        head = self._head.transient_bytes * (2 if self._metric.compares_logits else 1)
        trunk = self._memory_bytes // TRUNK_PART * (2 if self._metric.reads_dense else 1)
        return max(0, self._memory_bytes - layer - head - trunk)


@dataclass(frozen=True)
class _Piece:
    """A few rows: `inner` of the product, `outer` of all; what is kept of the dense model there."""

    inner: slice
    outer: slice
    kept: Mapping[str, torch.Tensor]
    picks: torch.Tensor | None
    dense: Dense | None


class _Reader:
    """Reads one metric off the hidden states of many sets, the same positions of all in turn.

    kept: what the metric keeps of the whole model at every position that counts, once that is known
    and where it reads no more of the whole model than this.
    """

    def __init__(
        self,
        head: Head,
        batch: CalibrationBatch,
        metric: WindowMetric,
        read: torch.Tensor | None = None,
    ) -> None:
        self._head, self._metric = head, metric
        targets, has_target = (t.flatten() for t in next_tokens(batch))
        valid = batch.attention_mask.flatten()
        nothing = torch.zeros(len(targets), 0)
        blank = Readout(nothing, torch.zeros(len(targets)), targets, has_target)
        counted = metric.positions(blank) & valid
        if read is not None:
            counted &= read.flatten()
        self._rows = counted.nonzero()[:, 0]
        self._targets, self._has_target = targets[self._rows], has_target[self._rows]
        self._n_windows = batch.input_ids.shape[0]
        self._window = self._rows // batch.input_ids.shape[1]
        self._counts = self._by_window(torch.ones(len(self._rows), dtype=torch.float64))
        self.kept: Mapping[str, torch.Tensor] | None = None

    @property
    def counts(self) -> list[int]:
        """Positions of each window that count."""
        return [int(n) for n in self._counts]

    @torch.inference_mode()
    def read(
        self, hidden: Sequence[torch.Tensor], dense: torch.Tensor | None
    ) -> Generator[None, None, list[torch.Tensor]]:
        """For each of hidden (position, hidden) its (window,) values; steps after every product.

        The head multiplies many rows at once, the metric reads few: as many as the cache holds.
        """
        values = torch.zeros(len(hidden), len(self._rows), dtype=torch.float64)
        size, new = self._head.chunk_rows, []
        for start in range(0, len(self._rows), size):
            rows = self._rows[start : start + size].to(hidden[0].device)
            pieces = self._pieces(start, len(rows), None if dense is None else dense[rows])
            if pieces[0].picks is not None:
                new += [piece.kept for piece in pieces] if self.kept is None else []
                for piece in pieces:
                    states = torch.stack([h[rows[piece.inner]] for h in hidden], dim=1)
                    logits = self._head.logits_at(states, piece.picks).float()
                    for i in range(len(hidden)):
                        found = self._metric.of_picked(logits[:, i], piece.kept)
                        values[i, piece.outer] = found.cpu().double()
                    yield
                continue
            for i, h in enumerate(hidden):
                logits = self._head.logits(h[rows])
                for piece in pieces:
                    base = piece.dense.readout() if piece.dense is not None else None
                    readout = readout_of(logits[piece.inner], *self._wanted(piece.outer), base)
                    found = self._metric.per_position(readout, piece.kept)
                    values[i, piece.outer] = found.cpu().double()
                del logits
                yield
        if new:
            self.kept = {name: torch.cat([kept[name] for kept in new]) for name in new[0]}
        means = [self._by_window(row) / self._counts for row in values]
        return [self._metric.window_values(m, self._counts) for m in means]

    def _pieces(self, start: int, n_rows: int, dense: torch.Tensor | None) -> list[_Piece]:
        """The rows from `start` on in pieces, with what is kept of the dense model at each."""
        is_known = dense is None or self.kept is not None
        logits = None if is_known else self._head.logits(dense)
        size = self._head.piece_rows
        pieces = []
        for first in range(0, n_rows, size):
            inner = slice(first, min(first + size, n_rows))
            outer = slice(start + inner.start, start + inner.stop)
            kept = {name: rows[outer] for name, rows in (self.kept or {}).items()}
            base = None
            if logits is not None:
                readout = readout_of(logits[inner], *self._wanted(outer))
                kept = self._metric.remember(readout)
                base = Dense(logits[inner], readout) if self._metric.compares_logits else None
            pieces.append(_Piece(inner, outer, kept, self._metric.picks(kept), base))
        return pieces

    def _wanted(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        device = self._head.device
        return self._targets[rows].to(device), self._has_target[rows].to(device)

    def _by_window(self, values: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(self._n_windows, dtype=torch.float64)
        return total.index_add_(0, self._window, values)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed: torch says so in three ways."""
    is_named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_named or "allocate memory" in str(error) or "not enough memory" in str(error)
