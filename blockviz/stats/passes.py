"""Statistics that need several depths of the stream at once; equal ones are computed once.

A `PassStatistic` says what is wanted and is hashable; `start` gives the object that listens during
the dense pass over every batch and is asked for its result at the end.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch

from blockviz.models.model import BlockModel
from blockviz.types import BlockId, CalibrationBatch, CalibrationSet, LetterPrompts

# A place in the stream: ("in", l) in front of layer l (or behind the last one), ("mid", l) between
# attention and MLP, ("mlp", l) behind the MLP alone, which only a parallel layer has.
Point = tuple[str, int]


class RunningPass:
    """Listens to the dense model, batch by batch."""

    def begin(self, batch: CalibrationBatch) -> None:
        """A batch is about to be run."""

    def around(self, model: BlockModel) -> AbstractContextManager[None]:
        """Entered for the run of a batch: hooks beside those on the stream."""
        return nullcontext()

    def on_block(self, block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
        """A block (or whole layer) has run: before, update (batch, seq, hidden)."""

    def end(self) -> None:
        """The batch has been run."""

    def result(self) -> Any:
        raise TypeError(f"{type(self).__name__} does not say what it found")


class PassStatistic:
    """Base of what can be asked of one dense pass; subclasses are frozen dataclasses.

    `holds_streams`: it keeps the whole stream of a batch at many depths, so batches may have to be
    smaller. `is_costly`: its result is worked out once at the end, not after every batch.
    """

    holds_streams: ClassVar[bool] = False
    is_costly: ClassVar[bool] = False

    def start(
        self,
        model: BlockModel,
        blocks: tuple[BlockId, ...],
        windows: CalibrationSet,
        prompts: LetterPrompts | None = None,
    ) -> RunningPass:
        """What listens on behalf of `blocks` while `windows` go by (those of `prompts`, if any)."""
        raise TypeError(f"{type(self).__name__} does not say how it listens")


class StreamPoints(RunningPass):
    """Keeps something of the stream at the points that are wanted, for one batch.

    A subclass gives `take`, which is called with the stream (batch, seq, hidden) at each point.
    """

    def __init__(self, model: BlockModel, points: set[Point]) -> None:
        self.n_layers, self.is_parallel = model.info.n_layers, model.family.is_parallel
        self._points = points
        self.batch: CalibrationBatch

    def begin(self, batch: CalibrationBatch) -> None:
        self.batch = batch

    def take(self, point: Point, stream: torch.Tensor) -> None:
        raise TypeError(f"{type(self).__name__} does not say what it keeps")

    def on_block(self, block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
        layer = block.layer
        if block.part == "attn":
            self._offer(("in", layer), before)
            if not self.is_parallel:
                return  # what the MLP will read is the same stream
            if ("mid", layer) in self._points:
                self._offer(("mid", layer), before + update)
        elif block.part == "mlp" and self.is_parallel:
            if ("mlp", layer) in self._points:
                self._offer(("mlp", layer), before + update)
        elif block.part == "mlp":
            self._offer(("mid", layer), before)
        elif layer == self.n_layers - 1:
            self._offer(("in", layer + 1), before + update)

    def _offer(self, point: Point, stream: torch.Tensor) -> None:
        if point in self._points:
            self.take(point, stream)


def around_block(block: BlockId, *, is_parallel: bool) -> tuple[Point, Point]:
    """The points in front of and behind a block or layer."""
    layer = block.layer
    front, back = ("in", layer), ("in", layer + 1)
    if block.part == "attn":
        return front, ("mid", layer)
    if block.part == "mlp":
        return (front, ("mlp", layer)) if is_parallel else (("mid", layer), back)
    return front, back
