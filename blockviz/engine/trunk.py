"""The streams of what a search has settled on: candidates of every removal branch off them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blockviz.types import RemovedSet


class Trunk:
    """Streams of one removed set in front of each layer, window by window, as many as fit.

    `follow` names the set; what another set has in common with it, up to the first layer in which
    they differ, stays.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._held = limit_bytes, 0
        self.removed: RemovedSet = frozenset()
        self._streams: dict[tuple[int, int], torch.Tensor] = {}

    def follow(self, removed: RemovedSet) -> None:
        changed = self.removed ^ removed
        if changed:
            first = min(b.layer for b in changed)
            self._keep({k: s for k, s in self._streams.items() if k[1] <= first})
        self.removed = removed

    def forget(self) -> None:
        """Let go of everything, and hold no more than half as much from now on."""
        self._keep({})
        self._limit //= 2

    def get(self, windows: Sequence[int], layer: int) -> torch.Tensor | None:
        """(window, seq, hidden) in front of a layer, None where that of some window is not held."""
        found = [self._streams.get((window, layer)) for window in windows]
        return torch.cat(found) if found and all(s is not None for s in found) else None

    def put(self, windows: Sequence[int], layer: int, stream: torch.Tensor) -> None:
        for window, row in zip(windows, stream.split(1), strict=True):
            size = row.numel() * row.element_size()
            if (window, layer) not in self._streams and self._held + size <= self._limit:
                self._streams[window, layer] = row.clone()
                self._held += size

    def _keep(self, streams: dict[tuple[int, int], torch.Tensor]) -> None:
        self._streams = streams
        self._held = sum(s.numel() * s.element_size() for s in streams.values())
