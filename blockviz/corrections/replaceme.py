"""ReplaceMe: a linear map of the last surviving update, folded into the map that writes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from blockviz.corrections.base import ANCHORED, CORRECTIONS, Correction, Pair, Place, Where, Writing
from blockviz.corrections.ridge import RIDGE
from blockviz.stats.pairs import LeastSquares


@CORRECTIONS.register
@dataclass(frozen=True)
class ReplaceMe(Correction):
    """u = r + o, o what the last block before the gap adds: o <- o T, T = argmin |r + o T - y|.

    toward=identity draws T towards leaving o as it is (ours); zero is the paper's ridge. The fold,
    W <- T^T W, is exact. Published for a gap behind an MLP; here any last writer serves.
    """

    tokens: str = field(default="anchored", metadata=ANCHORED)
    ridge: float = field(default=1e-2, metadata=RIDGE)
    toward: str = field(
        default="identity",
        metadata={"label": "What the ridge draws to", "choices": ("identity", "zero")},
    )

    name = "replaceme"
    title = "ReplaceMe"
    meaning = "Maps what the last surviving block adds to what it and the removed ones added."
    formula = (
        "ŷ = r + o T,  T = argmin ‖ r + o T − y ‖^2 + λ' ‖ T − I ‖^2,  then W ← T^T W\n"
        "o: what the last surviving block in front of the gap adds, written by W; r: the rest "
        "of the stream; λ': the ridge, as a share of the size of o."
    )
    sees = "What a linear map of that one block's output can make up for."
    misses = (
        "The rest of the stream: what the removed blocks would have read from earlier blocks is"
        " out of its reach."
    )
    cost = "Nothing more is stored, nothing runs slower."
    reference = "https://arxiv.org/abs/2505.02819"
    citation = "Shopkhoev et al. 2025, ReplaceMe"
    folds = "weights of surviving blocks"

    @property
    def where(self) -> Where:
        return "writer"

    def fitter(self, place: Place) -> _Fitter:
        return _Fitter(place, self.ridge, is_toward_zero=self.toward == "zero")


class _Fitter:
    def __init__(self, place: Place, ridge: float, *, is_toward_zero: bool) -> None:
        self._place, self._ridge, self._is_toward_zero = place, ridge, is_toward_zero
        self._sums = LeastSquares(place.hidden_size, place.hidden_size)

    def add(self, pair: Pair) -> None:
        self._sums.add(pair.update, self._targets(pair))
        if pair.anchor is not None:
            self._sums.anchor(pair.anchor.update, self._targets(pair.anchor))

    def _targets(self, pair: Pair) -> torch.Tensor:
        missing = pair.y - pair.u
        return missing + pair.update if self._is_toward_zero else missing

    def result(self) -> Writing:
        turn = self._sums.solve(self._ridge, is_centred=False)
        if not self._is_toward_zero:
            turn = turn + torch.eye(len(turn), dtype=turn.dtype)
        place = self._place
        bias = None if place.bias is None else (turn.T @ place.bias.double()).float()
        return Writing((turn.T @ place.weight.double()).float(), bias)
