"""Least squares channel by channel: the best that a scale and a shift of each can do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from blockviz.corrections.base import CORRECTIONS, Correction, Pair, Place
from blockviz.models.modeling_blockviz import Channels
from blockviz.stats.pairs import ChannelPairs, varies


@CORRECTIONS.register
@dataclass(frozen=True)
class DiagLeastSquares(Correction):
    """y^ = g u + b, g = cov(u, y) / var(u), b = mean(y) - g mean(u), channel by channel.

    Never further from y than ASC on what it was fitted on. A channel that does not vary is shifted.
    """

    name = "diag_ls"
    title = "Channel least squares"
    meaning = "The scale and shift of every channel that come closest to the whole model's."
    formula = (
        "ŷ_c = g_c · u_c + b_c,  g_c = Cov(u_c, y_c) / Var(u_c),  b_c = μ(y_c) − g_c · μ(u_c)\n"
        "u, y: the stream behind a gap, pruned and whole; c: channels."
    )
    sees = (
        "How well each channel still foretells itself: one that does not is drawn to its mean "
        "and not stretched."
    )
    misses = (
        "What a channel could learn from the others. The spread comes out smaller than it was, "
        "and the next blocks were trained on the larger one."
    )
    cost = "Two numbers a channel and gap."
    citation = "blockviz; least squares of each channel on itself"

    def fitter(self, place: Place) -> _Fitter:
        return _Fitter(place.hidden_size)


class _Fitter:
    def __init__(self, size: int) -> None:
        self._pairs = ChannelPairs(size)

    def add(self, pair: Pair) -> None:
        self._pairs.add(pair.u, pair.y)

    def result(self) -> nn.Module:
        found = self._pairs.result()
        is_safe = varies(found.mean_u, found.var_u)
        scale = torch.where(is_safe, found.cov / found.var_u, 1.0)
        return Channels(scale, found.mean_y - scale * found.mean_u)
