"""Mean only: what the removed blocks wrote on average is added in their place."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from blockviz.corrections.base import CORRECTIONS, Correction, Pair, Place
from blockviz.models.modeling_blockviz import Shift
from blockviz.stats.pairs import ChannelPairs


@CORRECTIONS.register
@dataclass(frozen=True)
class Mean(Correction):
    """y^ = u + E[y - u]; of a gap of one block the average of what it adds."""

    name = "mean"
    title = "Mean shift"
    meaning = "Adds what the removed blocks added on average."
    citation = "the emulated update of DeeperLook, at every gap"

    def fitter(self, place: Place) -> _Fitter:
        return _Fitter(place.hidden_size)


class _Fitter:
    def __init__(self, size: int) -> None:
        self._pairs = ChannelPairs(size)

    def add(self, pair: Pair) -> None:
        self._pairs.add(pair.u, pair.y)

    def result(self) -> nn.Module:
        found = self._pairs.result()
        return Shift(found.mean_y - found.mean_u)
