"""What the writers read: the variance of every input channel, beside the matrix it meets."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from blockviz.models.model import BlockModel
from blockviz.models.writers import watch_writers, writer, writer_weight
from blockviz.stats.passes import PassStatistic, RunningPass
from blockviz.types import BlockId, CalibrationBatch, CalibrationSet, LetterPrompts


@dataclass(frozen=True)
class WriterInputs(PassStatistic):
    """Population variance of every input channel of each block's writer over all tokens.

    Result: {BlockId: (weight (out, in) of the model's dtype, variance (in,) float64)}.
    """

    def start(
        self,
        model: BlockModel,
        blocks: tuple[BlockId, ...],
        windows: CalibrationSet,
        prompts: LetterPrompts | None = None,
    ) -> _Running:
        return _Running(model, blocks)


class _Running(RunningPass):
    def __init__(self, model: BlockModel, blocks: tuple[BlockId, ...]) -> None:
        self._model = model
        self._blocks = tuple(dict.fromkeys(part for b in blocks for part in b.parts))
        for block in self._blocks:
            writer(model, block)  # a model without one is refused before anything is run
        self._count = 0
        self._mean: dict[BlockId, torch.Tensor] = {}
        self._square: dict[BlockId, torch.Tensor] = {}

    def begin(self, batch: CalibrationBatch) -> None:
        self._mask = batch.attention_mask

    def around(self, model: BlockModel) -> AbstractContextManager[None]:
        return watch_writers(model, self._blocks, self._add)

    def _add(self, block: BlockId, features: torch.Tensor) -> None:
        """Chan's update of the mean and the sum of squared deviations of a batch."""
        rows = features[self._mask.to(features.device)].float()
        n, seen = rows.shape[0], self._count
        mean = rows.mean(dim=0)
        square = (rows - mean).square().sum(dim=0).cpu().double()
        mean = mean.cpu().double()
        if block in self._mean:
            step = mean - self._mean[block]
            square += self._square[block] + step.square() * (seen * n / (seen + n))
            mean = self._mean[block] + step * (n / (seen + n))
        self._mean[block], self._square[block] = mean, square

    def end(self) -> None:
        self._count += int(self._mask.sum())

    def result(self) -> dict[BlockId, tuple[torch.Tensor, torch.Tensor]]:
        return {
            block: (writer_weight(self._model, block).detach(), square / self._count)
            for block, square in self._square.items()
        }
