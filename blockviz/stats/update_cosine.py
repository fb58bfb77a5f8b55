"""The cosine between what a block reads, its normed input, and what it adds to the stream."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from blockviz.models.model import BlockModel
from blockviz.models.writers import watch_inputs
from blockviz.stats.passes import PassStatistic, RunningPass
from blockviz.stats.running import BlockStatistic
from blockviz.types import BlockId, CalibrationBatch, CalibrationSet, LetterPrompts


@dataclass(frozen=True)
class UpdateCosine(PassStatistic):
    """cos(norm(x), f(x)) per position of every attention or MLP block; a zero vector counts as 1.

    Result: {BlockId: {`stream_cosine.sum`, `stream_cosine.count`: (n_windows,)}}.
    """

    def start(
        self,
        model: BlockModel,
        blocks: tuple[BlockId, ...],
        windows: CalibrationSet,
        prompts: LetterPrompts | None = None,
    ) -> _Running:
        return _Running(tuple(b for b in blocks if b.part != "layer"))


class _PairCosine(BlockStatistic):
    def per_position(self, before: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
        cosine = torch.nn.functional.cosine_similarity(before, update, dim=-1)
        # A block that adds nothing has no influence, whatever it reads.
        is_zero = (before == 0).all(dim=-1) | (update == 0).all(dim=-1)
        return torch.where(is_zero, 1.0, cosine.clamp(-1.0, 1.0))


class _Running(RunningPass):
    def __init__(self, blocks: tuple[BlockId, ...]) -> None:
        self._found = {block: _PairCosine() for block in blocks}
        self._read: dict[BlockId, torch.Tensor] = {}

    def begin(self, batch: CalibrationBatch) -> None:
        self._mask = batch.attention_mask

    def around(self, model: BlockModel) -> AbstractContextManager[None]:
        return watch_inputs(model, self._found, self._read.__setitem__)

    def on_block(self, block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
        if block in self._found:
            self._found[block].add(self._read.pop(block), update, self._mask)

    def result(self) -> dict[BlockId, dict[str, torch.Tensor]]:
        return {
            block: {f"stream_cosine.{k}": v for k, v in found.result().items()}
            for block, found in self._found.items()
        }
