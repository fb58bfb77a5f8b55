"""Running accumulators: create one per block, add batches, read the result; no activation is kept.

Each reduces a block's positions to one number a position and keeps, per window, the float64 sum
of these numbers and the count of positions, so that a mean and its error over windows follow.
"""

from __future__ import annotations

from typing import ClassVar

import torch


class BlockStatistic:
    """Base of all position-wise statistics; a subclass gives `per_position`."""

    name: ClassVar[str]

    def __init__(self) -> None:
        self._sums: list[torch.Tensor] = []
        self._counts: list[torch.Tensor] = []

    def per_position(self, before: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
        """(batch, seq) float32 of float32 before, update (batch, seq, hidden)."""
        raise TypeError(f"{type(self).__name__} does not say what it measures")

    def add(self, before: torch.Tensor, update: torch.Tensor, mask: torch.Tensor) -> None:
        """Take in one batch: before, update (batch, seq, hidden); mask (batch, seq) bool."""
        # On the CPU before it is widened: not every device has float64.
        values = self.per_position(before.float(), update.float()).cpu().double()
        weights = mask.cpu()
        values = torch.where(weights, values, 0.0)  # a NaN on a padded position must not spread
        self._sums.append(values.sum(dim=-1))
        self._counts.append(weights.sum(dim=-1))

    def result(self) -> dict[str, torch.Tensor]:
        """{`sum`: (n_windows,) float64, `count`: (n_windows,) int64}."""
        return {"sum": torch.cat(self._sums), "count": torch.cat(self._counts)}


class StreamCosine(BlockStatistic):
    """cos(x, x + f(x)) per position, in [-1, 1]; a zero vector on both sides counts as 1."""

    name = "stream_cosine"

    def per_position(self, before: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
        after = before + update
        norms = before.norm(dim=-1) * after.norm(dim=-1)
        dots = (before * after).sum(dim=-1)
        is_same = (before == after).all(dim=-1)
        cosine = dots / norms.clamp_min(torch.finfo(torch.float32).tiny)
        return torch.where(is_same, 1.0, cosine.clamp(-1.0, 1.0))


class RelativeSize(BlockStatistic):
    """|f(x)| / |x + f(x)| per position, >= 0; 0/0 counts as 0."""

    name = "relative_size"

    def per_position(self, before: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
        size, whole = update.norm(dim=-1), (before + update).norm(dim=-1)
        return torch.where(size == 0, 0.0, size / whole.clamp_min(torch.finfo(torch.float32).tiny))
