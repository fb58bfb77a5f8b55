"""Many removed sets on the same windows, run together: what two of them share is run once.

Sets branch off one another at the first block in which they differ. Going through the model layer
by layer, all streams that need the same parts of a layer go through it together, so a few windows
of many sets fill the processor as well as many windows of one set do.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import torch

from blockviz.engine.trunk import Trunk
from blockviz.models.model import BlockModel
from blockviz.models.stage import Stage
from blockviz.types import BlockId, CalibrationBatch, RemovedSet

# Between two steps the caller may do something else; the streams come at the end.
Running = Generator[None, None, list[torch.Tensor]]


class Branches:
    """Runs removed sets over one batch of windows, `chunk_tokens` positions at a time.

    Sets hold attention and MLP blocks (`BlockId.parts`), never layers. `trunk`: streams held of one
    of them are not run again; `windows`: what the windows of the batch are called there.
    """

    def __init__(
        self,
        model: BlockModel,
        batch: CalibrationBatch,
        *,
        chunk_tokens: int = 1024,
        trunk: Trunk | None = None,
        windows: Sequence[int] = (),
    ) -> None:
        self._model, self._batch = model, batch
        self._trunk = Trunk(0) if trunk is None else trunk
        self._windows = windows or range(batch.input_ids.shape[0])
        self._n_layers = model.info.n_layers
        self._at_once = max(1, chunk_tokens // batch.input_ids.numel())
        self._stages: dict[int, Stage] = {}
        stream = self._stage(1).stream
        self.stream_bytes = stream.numel() * stream.element_size()

    def groups(
        self, sets: Sequence[RemovedSet], memory_bytes: int
    ) -> Iterator[tuple[RemovedSet, ...]]:
        """The sets, each once, in groups whose streams take `memory_bytes` at most (one at least).

        Sets with a long prefix in common stay together; each group runs its prefix anew.
        """
        ordered = sorted(dict.fromkeys(sets), key=lambda s: sorted(map(_place, s)))
        size = max(1, memory_bytes // self.stream_bytes - 1)
        n_groups = max(1, -(-len(ordered) // size))
        for i in range(n_groups):
            first, last = (len(ordered) * k // n_groups for k in (i, i + 1))
            yield tuple(ordered[first:last])

    def run(self, sets: Sequence[RemovedSet]) -> Running:
        """For each set (batch, seq, hidden) behind the last layer; steps after every chunk."""
        streams = [self._stage(1).stream]
        members = [list(range(len(sets)))]
        trunk: int | None = 0
        for layer in range(self._n_layers):
            streams, members, trunk = yield from self._layer(layer, sets, streams, members, trunk)
        found = {i: s for s, those in zip(streams, members, strict=True) for i in those}
        return [found[i] for i in range(len(sets))]

    def _layer(
        self,
        layer: int,
        sets: Sequence[RemovedSet],
        streams: list[torch.Tensor | None],
        members: list[list[int]],
        trunk: int | None,
    ) -> Generator[None, None, tuple[list[torch.Tensor], list[list[int]], int | None]]:
        """The streams behind a layer, for each the sets that share it, and which is the trunk's."""
        ways: dict[RemovedSet, list[tuple[int, list[int]]]] = {}
        both = frozenset(BlockId(layer, "layer").parts)
        for at, those in enumerate(members):
            here: dict[RemovedSet, list[int]] = {}
            for i in those:
                here.setdefault(both & sets[i], []).append(i)
            for gone, group in here.items():
                ways.setdefault(gone, []).append((at, group))
        out: list[torch.Tensor] = []
        shared: list[list[int]] = []
        known, on = self._trunk.get(self._windows, layer + 1), None
        # The whole layer comes last and lets go of its inputs: all others are few.
        for gone in sorted(ways, key=len, reverse=True):
            jobs = ways[gone]
            if gone == both & self._trunk.removed:
                # The trunk's own stream comes first among its like.
                jobs.sort(key=lambda job: job[0] != trunk)
                on = len(out) if jobs[0][0] == trunk else None
            shared += [group for _, group in jobs]
            if on == len(out) and known is not None:
                out.append(known)
                jobs = jobs[1:]
            if gone == both:
                out += [streams[at] for at, _ in jobs]
                continue
            for part in _even(jobs, self._at_once):
                inputs = torch.cat([streams[at] for at, _ in part])
                if not gone:
                    for at, _ in part:
                        streams[at] = None
                stage = self._stage(len(part))
                after = stage.run(inputs, layer, gone, stop=layer + 1)
                out += after.split(self._batch.input_ids.shape[0])
                yield
        if on is not None and known is None:
            self._trunk.put(self._windows, layer + 1, out[on])
        return out, shared, on

    def _stage(self, n: int) -> Stage:
        """What layers are called with for `n` copies of the windows side by side."""
        if n not in self._stages:
            ids, mask = self._batch.input_ids, self._batch.attention_mask
            copies = CalibrationBatch(ids.repeat(n, 1), mask.repeat(n, 1))
            self._stages[n] = Stage(self._model, copies)
        return self._stages[n]


def _place(block: BlockId) -> tuple[int, bool]:
    return block.layer, block.part == "mlp"


def _even(jobs: list, size: int) -> Iterator[list]:
    """The jobs in as few parts of at most `size` as can be, all about as long."""
    n = -(-len(jobs) // size)
    for i in range(n):
        yield jobs[len(jobs) * i // n : len(jobs) * (i + 1) // n]
