"""Losses of many removed sets, each run from where it first differs from the one before."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from blockviz.evaluate.loss import next_token_nll
from blockviz.evaluate.perplexity import next_tokens
from blockviz.models.model import BlockModel
from blockviz.models.stage import Head, Stage
from blockviz.types import BlockId, CalibrationBatch, CalibrationSet


class SetRunner:
    """Mean next-token NLL of every window with a set of blocks removed.

    Per batch it keeps the streams of the set that was run last, as many as `memory_bytes` allow,
    and runs the next set from the first layer that is not the same in both. Exact: what lies in
    front does not change.
    """

    def __init__(
        self,
        model: BlockModel,
        windows: CalibrationSet,
        *,
        batch_tokens: int = 1024,
        memory_bytes: int = 1 << 30,
    ) -> None:
        size = max(1, batch_tokens // windows.input_ids.shape[1])
        one = windows.input_ids.shape[1] * size * model.info.hidden_size * model.dtype.itemsize
        self._model, self._batches = model, list(windows.batches(size))
        streams = max(1, memory_bytes // max(1, one * len(self._batches)))
        self._every = max(1, -(-model.info.n_layers // streams))
        self._runs: dict[int, _Run] = {}

    def __len__(self) -> int:
        """How many batches a set takes."""
        return len(self._batches)

    def batch(self, index: int) -> CalibrationBatch:
        return self._batches[index]

    def nll_of_batch(self, index: int, removed: Iterable[BlockId]) -> torch.Tensor:
        """(batch,) float64 nats of one batch's windows."""
        if index not in self._runs:
            self._runs[index] = _Run(self._model, self._batches[index], self._every)
        return self._runs[index].nll(frozenset(p for b in removed for p in b.parts))

    def nll(self, removed: Iterable[BlockId]) -> torch.Tensor:
        """(n_windows,) float64 nats."""
        removed = tuple(removed)
        return torch.cat([self.nll_of_batch(i, removed) for i in range(len(self))])


class _Run:
    """One batch with the streams in front of layers 0, every, 2 * every, ... of the last set."""

    def __init__(self, model: BlockModel, batch: CalibrationBatch, every: int) -> None:
        self._stage, self._head = Stage(model, batch), Head(model)
        self._n_layers, self._every = model.info.n_layers, every
        self._removed: frozenset[BlockId] = frozenset()
        self._streams = [self._stage.stream]
        targets, has_target = next_tokens(batch)
        self._rows = has_target.flatten().nonzero()[:, 0]
        self._targets = targets.flatten()[self._rows]
        self._has_target = has_target

    @torch.inference_mode()
    def nll(self, removed: frozenset[BlockId]) -> torch.Tensor:
        changed = [b.layer for b in self._removed ^ removed]
        first = min(changed, default=self._n_layers) // self._every
        del self._streams[first + 1 :]
        self._removed = removed
        start = (len(self._streams) - 1) * self._every
        stream = self._streams[-1]
        while start < self._n_layers:
            stop = min(start + self._every, self._n_layers)
            stream = self._stage.run(stream, start, removed, stop=stop)
            start = stop
            if start < self._n_layers:
                self._streams.append(stream)
        hidden = self._head.hidden(stream)
        nll = torch.zeros(self._has_target.numel(), dtype=torch.float64)
        wanted = hidden[self._rows.to(hidden.device)]
        for part, logits in self._head.chunks(wanted):
            targets = self._targets[part].to(logits.device)
            nll[self._rows[part]] = next_token_nll(logits, targets).cpu().double()
        nll = nll.view(self._has_target.shape)
        return nll.sum(dim=-1) / self._has_target.sum(dim=-1)
