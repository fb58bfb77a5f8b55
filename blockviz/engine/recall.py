"""What a metric keeps of the whole model at each position, held from one removal to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

Kept = Mapping[str, torch.Tensor]


class Recall:
    """Window -> {name: (position, ...)} of its positions that count, as many as fit.

    It saves the head's product with the whole model's stream, where a metric reads a few words of
    it only and those are known.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._held = limit_bytes, 0
        self._kept: dict[int, Kept] = {}

    def forget(self) -> None:
        """Let go of everything, and hold no more than half as much from now on."""
        self._kept, self._held = {}, 0
        self._limit //= 2

    def get(self, windows: Sequence[int]) -> Kept | None:
        """Of all positions of these windows in a row; None where that of some is not held."""
        found = [self._kept.get(window) for window in windows]
        if not found or any(kept is None for kept in found):
            return None
        return {name: torch.cat([kept[name] for kept in found]) for name in found[0]}

    def put(self, windows: Sequence[int], counts: Sequence[int], kept: Kept) -> None:
        """`kept` has `counts` positions of each window, one window after the other."""
        parts = {name: tensor.split(list(counts)) for name, tensor in kept.items()}
        for i, window in enumerate(windows):
            own = {name: rows[i].clone() for name, rows in parts.items()}
            size = sum(rows.numel() * rows.element_size() for rows in own.values())
            if window not in self._kept and self._held + size <= self._limit:
                self._kept[window] = own
                self._held += size
