"""What listens to the dense pass of a sweep: statistics of single blocks, and of many depths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ClassVar, Protocol

import torch

from blockviz.models.model import BlockModel
from blockviz.types import (
    BlockId,
    BlockStatistics,
    CalibrationBatch,
    CalibrationSet,
    LetterPrompts,
)


class Statistic(Protocol):
    """What is asked of a statistic of single blocks; see stats.BlockStatistic."""

    name: ClassVar[str]

    def add(self, before: torch.Tensor, update: torch.Tensor, mask: torch.Tensor) -> None: ...
    def result(self) -> dict[str, torch.Tensor]: ...


class Listener(Protocol):
    """What is asked of a running statistic of many depths; see stats.RunningPass."""

    def begin(self, batch: CalibrationBatch) -> None: ...
    def around(self, model: BlockModel) -> AbstractContextManager[None]: ...
    def on_block(self, block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None: ...
    def end(self) -> None: ...
    def result(self) -> Any: ...


class DepthStatistic(Protocol):
    """A statistic of many depths before it runs; see stats.PassStatistic."""

    holds_streams: ClassVar[bool]
    is_costly: ClassVar[bool]

    def start(
        self,
        model: BlockModel,
        blocks: tuple[BlockId, ...],
        windows: CalibrationSet,
        prompts: LetterPrompts | None = None,
    ) -> Listener: ...


class Watching:
    """Everything that listens, as one watcher of the road."""

    def __init__(
        self,
        model: BlockModel,
        windows: CalibrationSet,
        *,
        statistics: Mapping[type[Statistic], Sequence[BlockId]],
        passes: Mapping[DepthStatistic, Sequence[BlockId]],
        prompts: LetterPrompts | None = None,
    ) -> None:
        self._running: dict[BlockId, list[Statistic]] = {}
        for kind, blocks in statistics.items():
            for block in blocks:
                self._running.setdefault(block, []).append(kind())
        self._passes = {
            asked: asked.start(model, tuple(blocks), windows, prompts)
            for asked, blocks in passes.items()
        }
        self._n_tokens = self._n_windows = 0
        self._mask = torch.empty(0)

    def __bool__(self) -> bool:
        return bool(self._running or self._passes)

    def begin(self, batch: CalibrationBatch) -> None:
        self._mask = batch.attention_mask
        for listener in self._passes.values():
            listener.begin(batch)

    @contextmanager
    def around(self, model: BlockModel) -> Iterator[None]:
        with ExitStack() as stack:
            for listener in self._passes.values():
                stack.enter_context(listener.around(model))
            yield

    def on_block(self, block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
        for statistic in self._running.get(block, ()):
            statistic.add(before, update, self._mask)
        for listener in self._passes.values():
            listener.on_block(block, before, update)

    def end(self) -> None:
        for listener in self._passes.values():
            listener.end()
        self._n_tokens += int(self._mask.sum())
        self._n_windows += self._mask.shape[0]

    def result(self, *, is_final: bool) -> BlockStatistics | None:
        """What was found so far; costly results only at the end."""
        if not self:
            return None
        values = {
            block: {f"{s.name}.{k}": v for s in running for k, v in s.result().items()}
            for block, running in self._running.items()
        }
        passes = {
            asked: listener.result()
            for asked, listener in self._passes.items()
            if is_final or not asked.is_costly
        }
        return BlockStatistics(values, self._n_tokens, self._n_windows, passes)
