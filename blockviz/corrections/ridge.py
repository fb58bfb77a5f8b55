"""Ridge: a linear map of the stream, by least squares drawn towards leaving it as it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from blockviz.corrections.base import ANCHORED, CORRECTIONS, Correction, Pair, Place
from blockviz.models.modeling_blockviz import Residual
from blockviz.stats.pairs import LeastSquares

RIDGE = {"label": "Ridge, as a share of the mean variance", "min": 0.0, "max": 1e6}


@CORRECTIONS.register
@dataclass(frozen=True)
class Ridge(Correction):
    """y^ = u + (u - mu_u) A + E[y - u], A = (G + ridge tr(G)/d I)^-1 C on centred u and y - u.

    A large ridge leaves the mean shift, never a dead stream.
    """

    tokens: str = field(default="anchored", metadata=ANCHORED)
    ridge: float = field(default=1e-3, metadata=RIDGE)

    name = "ridge"
    title = "Ridge map"
    meaning = "The linear map of the stream that comes closest to the whole model's."
    formula = (
        "ŷ = u + (u − μ_u) A + mean_t( y − u ),  A = ( G + λ · tr(G)/d · I )^{−1} C\n"
        "G, C: products of the centred stream u with itself and with what is missing, y − u; d:"
        " its width; λ = 0.001 unless set."
    )
    sees = (
        "Every linear trace in the stream of what the removed blocks did, from any channel to "
        "any other."
    )
    misses = (
        "What attention would have fetched from other positions, and all that is not linear. It"
        " has the square of the width to fit: with too few tokens it learns chance, which only "
        "held-out windows show."
    )
    cost = (
        "A square matrix of the stream's width a gap, and a product with it for every token; a "
        "stock model has no place for it."
    )
    reference = "https://arxiv.org/abs/2605.15491"
    citation = "Ghosted Layers 2026, there without centring; centred and in any gap: blockviz"

    def fitter(self, place: Place) -> RidgeFitter:
        return RidgeFitter(place.hidden_size, self.ridge)


@CORRECTIONS.register
@dataclass(frozen=True)
class LowRank(Correction):
    """The ridge map at a lower rank: A V V^T, V the first eigenvectors of A^T G A.

    Reduced-rank regression: on what it was fitted on no map of that rank comes closer.
    """

    tokens: str = field(default="anchored", metadata=ANCHORED)
    ridge: float = field(default=1e-3, metadata=RIDGE)
    rank: int = field(default=64, metadata={"label": "Rank", "min": 0, "max": 1 << 16})

    name = "lowrank"
    title = "Low-rank map"
    meaning = "The ridge map along few directions only."
    formula = (
        "ŷ = u + (u − μ_u) A V V^T + shift\n"
        "A: the ridge map; V: the first r eigenvectors of A^T G A, r = 64 unless set; the shift"
        " makes the mean right."
    )
    sees = (
        "The few directions in which the ridge map changes the stream most, with less room to "
        "fit chance."
    )
    misses = "A change that is spread thinly over many directions: it is cut off with the chance."
    cost = (
        "Few directions, but kept here as the whole square matrix: it takes as much room and "
        "time as the ridge map."
    )
    citation = "blockviz; reduced-rank regression"

    def fitter(self, place: Place) -> RidgeFitter:
        return RidgeFitter(place.hidden_size, self.ridge, rank=self.rank)


@CORRECTIONS.register
@dataclass(frozen=True)
class NormRidge(Correction):
    """y^ = u + (x - mu_x) A + E[y - u] with x = Norm(u), the norm of the gap's last MLP.

    An MLP block computes just that if its gate is held open, so that a gap with a removed MLP can
    have it in that place.
    """

    tokens: str = field(default="anchored", metadata=ANCHORED)
    ridge: float = field(default=1e-2, metadata=RIDGE)

    name = "norm_ridge"
    title = "Ridge map of the normed stream"
    meaning = "A linear map of what a removed MLP would have read."
    formula = (
        "ŷ = u + (x − μ_x) A + mean_t( y − u ),  x = Norm(u)\n"
        "A: by least squares with a ridge as in the ridge map; Norm: that of the removed MLP."
    )
    sees = (
        "The same as the ridge map, of the stream as blocks read it: every token counts alike, "
        "however large its stream is."
    )
    misses = (
        "How large the stream is at a token: the norm has taken that off, and no linear map "
        "brings it back."
    )
    cost = (
        "A square matrix of the stream's width a gap; where an MLP was removed and the "
        "architecture allows it, an export writes it in that place."
    )
    citation = "blockviz"

    def fitter(self, place: Place) -> RidgeFitter:
        return RidgeFitter(place.hidden_size, self.ridge, norm=place.norm)


class RidgeFitter:
    """`norm`: what the regression reads the stream through; rank None: the whole map."""

    def __init__(
        self, size: int, ridge: float, *, rank: int | None = None, norm: nn.Module | None = None
    ) -> None:
        self._sums, self._ridge = LeastSquares(size, size), ridge
        self._rank, self._norm = rank, norm

    @torch.inference_mode()
    def add(self, pair: Pair) -> None:
        self._sums.add(self._features(pair), pair.y - pair.u)
        if pair.anchor is not None:
            self._sums.anchor(self._features(pair.anchor), pair.anchor.y - pair.anchor.u)

    def _features(self, pair: Pair) -> torch.Tensor:
        return pair.u if self._norm is None else self._norm(pair.u)

    def result(self) -> nn.Module:
        sums = self._sums
        matrix = sums.solve(self._ridge, is_centred=True)
        if self._rank is not None:
            gram = sums.gram(is_centred=True)
            _, vectors = torch.linalg.eigh(matrix.T @ gram @ matrix)
            kept = vectors[:, vectors.shape[1] - min(self._rank, vectors.shape[1]) :]
            matrix = matrix @ kept @ kept.T
        return Residual(matrix, sums.mean_t - sums.mean_x @ matrix, self._norm)
