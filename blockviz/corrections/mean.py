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
    formula = (
        "ŷ = u + mean_t( y − u )\n"
        "u, y: the stream behind a gap, of the pruned and of the whole model."
    )
    sees = "What the removed blocks added at every token alike."
    misses = "All that hangs on the token, which is what most blocks are for."
    cost = "As many numbers a gap as the stream has channels."
    reference = "https://arxiv.org/abs/2407.16286"
    citation = "Siddiqui et al. 2024, A deeper look at depth pruning; at every gap: blockviz"

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
