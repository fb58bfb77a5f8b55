"""Two roads to the logits of a model with one more block removed, for one batch of windows.

`FastRoad` keeps the stream in front of each block and runs only what lies behind a removed one
(exact: what lies in front does not change). `ReferenceRoad` runs the whole model every time, as
the published code does; it is what the fast road is tested against and measured beside.
Neither leaves a mask on the model between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

import torch

from blockviz.models.model import BlockModel
from blockviz.models.stage import Head, Stage
from blockviz.types import BlockId, CalibrationBatch

Chunks = Iterator[tuple[slice, torch.Tensor]]


class Watcher(Protocol):
    """Who listens while the plan itself is run, before any candidate is."""

    def on_block(self, block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None: ...
    def around(self, model: BlockModel) -> AbstractContextManager[None]: ...


class FastRoad:
    """Prefix reuse and the chunked head. `memory_bytes` bounds the streams that are kept."""

    def __init__(
        self,
        model: BlockModel,
        batch: CalibrationBatch,
        removed: Iterable[BlockId],
        *,
        memory_bytes: int,
        watcher: Watcher | None = None,
    ) -> None:
        self.removed = frozenset(part for b in removed for part in b.parts)
        self.stage, self.head = Stage(model, batch), Head(model)
        self._valid = _valid_rows(batch, model.device)
        self._model = model
        n_layers = model.info.n_layers
        one = self.stage.stream.numel() * self.stage.stream.element_size()
        self._every = max(1, -(-n_layers * one // max(one, memory_bytes)))
        self._middles: dict[int, torch.Tensor] = {}
        keeps_middles = 2 * n_layers * one <= memory_bytes and not model.family.is_parallel

        def visit(block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
            if keeps_middles and block.part == "mlp":
                self._middles[block.layer] = before
            if watcher is not None:
                watcher.on_block(block, before, update)

        with ExitStack() as watching:
            if keeps_middles or watcher is not None:
                watching.enter_context(model.watch(visit))
            if watcher is not None:
                watching.enter_context(watcher.around(model))
            self._streams = self.stage.streams(self.removed, every=self._every)

    def chunks(self, candidate: BlockId | None) -> Chunks:
        """(rows, logits (rows, vocab)) over the valid positions, with `candidate` removed too."""
        hidden = self.head.hidden(self._last_stream(candidate))
        return self.head.chunks(hidden if self._valid is None else hidden[self._valid])

    def _last_stream(self, candidate: BlockId | None) -> torch.Tensor:
        if candidate is None:
            return self._streams[-1]
        gone = self.removed.union(candidate.parts)
        layer = candidate.layer
        if candidate.part == "mlp" and layer in self._middles:
            return self.stage.run(self._middles[layer], layer + 1, gone)
        start = layer - layer % self._every
        stream = self._streams[layer // self._every]
        if start < layer:
            stream = self.stage.run(stream, start, self.removed, stop=layer)
        return self.stage.run(stream, layer, gone)


class ReferenceRoad:
    """The whole model for every candidate, all logits at once: a plain batched forward."""

    def __init__(
        self,
        model: BlockModel,
        batch: CalibrationBatch,
        removed: Iterable[BlockId],
        *,
        memory_bytes: int = 0,
        watcher: Watcher | None = None,
    ) -> None:
        self.removed = frozenset(part for b in removed for part in b.parts)
        self._model, self._batch = model, batch
        self._valid = _valid_rows(batch, model.device)
        if watcher is not None:
            with model.watch(watcher.on_block), watcher.around(model), model.masked(self.removed):
                model.logits(batch)

    def chunks(self, candidate: BlockId | None) -> Chunks:
        """One chunk with every valid position."""
        parts = candidate.parts if candidate is not None else ()
        with self._model.masked(self.removed.union(parts)):
            logits = self._model.logits(self._batch).flatten(0, 1)
        if self._valid is not None:
            logits = logits[self._valid]
        yield slice(0, logits.shape[0]), logits


ROADS: dict[str, Callable[..., FastRoad | ReferenceRoad]] = {
    "fast": FastRoad,
    "reference": ReferenceRoad,
}


def _valid_rows(batch: CalibrationBatch, device: torch.device) -> torch.Tensor | None:
    """Indices of the positions that are not padding; None if all are."""
    mask = batch.attention_mask
    return None if bool(mask.all()) else mask.flatten().nonzero()[:, 0].to(device)
