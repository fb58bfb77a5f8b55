"""fold-ASC: the moments of ASC, met by what the last surviving block adds; it folds exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from blockviz.corrections.base import CORRECTIONS, Correction, Pair, Place, Where, Writing
from blockviz.stats.pairs import ChannelMoments, ChannelPairs, varies


@CORRECTIONS.register
@dataclass(frozen=True)
class FoldAsc(Correction):
    """u = r + o, o what the last block before the gap adds: o <- s o + b, channel by channel.

    s solves var(o) s^2 + 2 cov(r, o) s + var(r) = var(y): of its two roots the one nearer to 1, so
    that nothing changes where y = u. Where there is none, s = -cov(r, o) / var(o) comes closest,
    and the spread stays too large. b = mean(y) - mean(r) - s mean(o). The fold: rows of the writer
    times s, its bias s bias + b. A writer that has no place for a bias keeps s and drops b: then
    the spread is met and the mean is not. What is inflated need not be what is missing: where it is
    not, this is worse than doing nothing.
    """

    name = "fold_asc"
    title = "Activation statistics, folded"
    meaning = "Scales what the last surviving block adds until mean and spread are as they were."
    formula = (
        "ŷ = r + s ⊙ o + β,  Var(o) s^2 + 2 Cov(r, o) s + Var(r) = Var(y),  β = μ(y) − μ(r) − s"
        " · μ(o)\n"
        "o: what the last surviving block in front of the gap adds; r: the rest of the stream; "
        "y: the whole model's stream."
    )
    sees = (
        "The same mean and spread as activation statistics, reached through the one block whose"
        " weights can take it up."
    )
    misses = (
        "Blowing up what that block writes is not writing what is gone: the spread comes out "
        "right and the direction does not. Where the block has no bias the mean is not met "
        "either."
    )
    cost = "Nothing more is stored, nothing runs slower."
    citation = "blockviz, on Hu, Xu, Zhan, Findings of EACL 2026"
    folds = "weights of surviving blocks"

    @property
    def where(self) -> Where:
        return "writer"

    def fitter(self, place: Place) -> _Fitter:
        return _Fitter(place)


class _Fitter:
    def __init__(self, place: Place) -> None:
        self._place = place
        # o beside the rest of the stream, and beside the whole model's stream.
        self._rest, self._whole = (ChannelPairs(place.hidden_size) for _ in range(2))

    def add(self, pair: Pair) -> None:
        self._rest.add(pair.update, pair.u.double() - pair.update.double())
        self._whole.add(pair.update, pair.y)

    def result(self) -> Writing:
        place, rest, whole = self._place, self._rest.result(), self._whole.result()
        scale = matching_scale(rest, whole.var_y)
        weight = (scale[:, None] * place.weight.double()).float()
        if place.bias is None:
            return Writing(weight)
        shift = whole.mean_y - rest.mean_y - scale * rest.mean_u
        return Writing(weight, (scale * place.bias.double() + shift).float())


def matching_scale(rest: ChannelMoments, wanted: torch.Tensor) -> torch.Tensor:
    """(channel,) s nearest to 1 with var(s o + r) = wanted, or as close to it as s can bring it.

    rest: moments of (o, r). 1 where o does not vary.
    """
    is_safe = varies(rest.mean_u, rest.var_u)
    size = torch.where(is_safe, rest.var_u, 1.0)
    vertex = -rest.cov / size
    reach = (vertex.square() - (rest.var_y - wanted) / size).clamp_min(0).sqrt()
    nearer = torch.where(vertex <= 1, vertex + reach, vertex - reach)
    return torch.where(is_safe, nearer, 1.0)
