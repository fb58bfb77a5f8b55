"""LinearPatch: every channel is scaled to the size it had, as it is or in a rotated basis."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from blockviz.corrections.base import CORRECTIONS, TOKENS, Correction, Pair, Place
from blockviz.corrections.hadamard_matrix import check_size, hadamard
from blockviz.corrections.scalar import Sizes
from blockviz.models.modeling_blockviz import Channels, Residual


@CORRECTIONS.register
@dataclass(frozen=True)
class Diag(Correction):
    """y^ = u * s, s_c = mean over windows of E_t|y_c| / E_t|u_c|: LinearPatch without rotation.

    Its mean over channels is the factor of Prune&Comp.
    """

    tokens: str = field(default="all", metadata=TOKENS)

    name = "diag"
    title = "Channel scales"
    meaning = "Scales every channel to the size that it had behind the removed blocks."
    formula = (
        "ŷ_c = s_c · u_c,  s_c = mean_k ( mean_t | y_c | / mean_t | u_c | )\n"
        "u, y: the stream behind a gap, of the pruned and of the whole model; k: windows, c: "
        "channels."
    )
    sees = "The size of every channel by itself."
    misses = (
        "Signs and means: a channel of the right size that points the wrong way is called "
        "repaired. Nothing is carried from one channel to another."
    )
    cost = "As many numbers a gap as the stream has channels."
    reference = "https://arxiv.org/abs/2505.24680"
    citation = "Chen et al. 2025, LinearPatch without rotation"

    def fitter(self, place: Place) -> _Diag:
        return _Diag(place.hidden_size)


@CORRECTIONS.register
@dataclass(frozen=True)
class Hadamard(Correction):
    """y^ = u P, P = H diag(s) H^T, s_c = mean over windows of E_t|(y H)_c| / E_t|(u H)_c|.

    H is an orthonormal Hadamard matrix, which spreads a few huge channels over all of them; where H
    is no power of two it need not be the authors'. UnsupportedModel for a hidden size without one.
    """

    tokens: str = field(default="all", metadata=TOKENS)

    name = "hadamard"
    title = "LinearPatch"
    meaning = "Scales the stream to its earlier size channel by channel, in a rotated basis."
    formula = (
        "ŷ = u H diag(s) H^T,  s_c = mean_k ( mean_t | (y H)_c | / mean_t | (u H)_c | )\n"
        "H: an orthonormal Hadamard matrix, which spreads every channel evenly over all; u, y: "
        "the stream behind a gap, pruned and whole."
    )
    sees = "Sizes in a basis in which no single huge channel drowns the rest."
    misses = (
        "Any direction that is in the data: H is the same for every model. As with plain "
        "scales, signs and means stay as they are."
    )
    cost = (
        "A square matrix of the stream's width a gap, and a product with it for every token. "
        "Some widths have no such H."
    )
    reference = "https://arxiv.org/abs/2505.24680"
    citation = "Chen et al. 2025, LinearPatch"

    def check(self, hidden_size: int) -> None:
        check_size(hidden_size)

    def fitter(self, place: Place) -> _Rotated:
        return _Rotated(place.hidden_size)


class _Diag:
    def __init__(self, size: int) -> None:
        self._sizes = Sizes(size)

    def add(self, pair: Pair) -> None:
        self._sizes.add(pair.u, pair.y, pair.window)

    def result(self) -> nn.Module:
        return Channels(self._sizes.mean_ratio())


class _Rotated:
    def __init__(self, size: int) -> None:
        self._sizes, self._turn = Sizes(size), hadamard(size)

    @torch.inference_mode()
    def add(self, pair: Pair) -> None:
        turn = self._turn.to(pair.u)
        self._sizes.add(pair.u @ turn, pair.y @ turn, pair.window)

    def result(self) -> nn.Module:
        # Written as what it adds to the stream: scales of 1 leave it as it is, bit for bit.
        change = (self._turn * (self._sizes.mean_ratio() - 1)) @ self._turn.T
        return Residual(change)
