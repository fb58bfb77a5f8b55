"""What a block costs at decoding: seconds of its part of one token's pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from blockviz.models.model import BlockModel
from blockviz.models.stage import Head, Stage
from blockviz.types import BlockId, CalibrationBatch


@dataclass(frozen=True)
class BlockCosts:
    """Seconds of every attention and MLP block, and of all that is not a block, for one token."""

    blocks: Mapping[BlockId, float]
    rest: float

    @property
    def total(self) -> float:
        return self.rest + sum(self.blocks.values())


@torch.inference_mode()
def block_costs(model: BlockModel, *, repeats: int = 15) -> BlockCosts:
    """Medians over repeats in turn, of a pass without a cache: what a plan can save at decoding.

    A block's cost is that of its layer minus that of its layer without it, never below 0.
    """
    batch = CalibrationBatch(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1).bool())
    stage, head = Stage(model, batch), Head(model)
    layers = range(model.info.n_layers)
    ways = {part: frozenset([part]) for i in layers for part in BlockId(i, "layer").parts}
    whole: dict[int, list[float]] = {i: [] for i in layers}
    without: dict[BlockId, list[float]] = {part: [] for part in ways}
    rest: list[float] = []
    for _ in range(repeats):
        for i in layers:
            with _timed(model, whole[i]):
                stage.run(stage.stream, i, (), stop=i + 1)
            for part in BlockId(i, "layer").parts:
                with _timed(model, without[part]):
                    stage.run(stage.stream, i, ways[part], stop=i + 1)
        with _timed(model, rest):
            head.logits(head.hidden(stage.stream))
    layer = {i: statistics.median(seconds) for i, seconds in whole.items()}
    blocks = {
        part: max(0.0, layer[part.layer] - statistics.median(seconds))
        for part, seconds in without.items()
    }
    return BlockCosts(blocks, statistics.median(rest))


@contextmanager
def _timed(model: BlockModel, seconds: list[float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    seconds.append(time.perf_counter() - started)
