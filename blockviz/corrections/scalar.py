"""Prune&Comp: one factor that gives the stream behind a gap the size it had."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from blockviz.corrections.base import CORRECTIONS, TOKENS, Correction, Pair, Place
from blockviz.models.modeling_blockviz import Channels


@CORRECTIONS.register
@dataclass(frozen=True)
class Scalar(Correction):
    """y^ = alpha u, alpha = mean over channels and windows of E_t|y| / E_t|u|, as published.

    pool=ratio_of_means (ours): one ratio of the mean |y| to the mean |u| over windows, positions
    and channels, in which large channels count for more. A norm takes any factor off again, so
    behind the last block it does nothing.
    """

    tokens: str = field(default="all", metadata=TOKENS)
    pool: str = field(
        default="mean_of_ratios",
        metadata={"label": "How sizes are pooled", "choices": ("mean_of_ratios", "ratio_of_means")},
    )

    name = "scalar"
    title = "One factor"
    meaning = "Scales the stream to the size that it had behind the removed blocks."
    formula = (
        "ŷ = α · u,  α = mean_{k,c} ( mean_t | y_c | / mean_t | u_c | )\n"
        "u: the pruned model's stream behind a gap; y: the whole model's there; k: windows, c: "
        "channels."
    )
    sees = "That the stream behind a gap is smaller or larger than it was."
    misses = (
        "Direction. The next norm takes any factor off again; all that remains is how the "
        "stream compares with what later blocks add to it, and behind the last block nothing "
        "remains."
    )
    cost = (
        "One number a gap. It goes into the embedding and the weights in front: nothing more is"
        " stored, nothing runs slower."
    )
    reference = "https://arxiv.org/abs/2507.18212"
    citation = "Chen et al. 2026, Prune&Comp"
    folds = "embedding and weights of the blocks in front"

    def fitter(self, place: Place) -> _Fitter:
        return _Fitter(place.hidden_size, self.pool)


class _Fitter:
    def __init__(self, size: int, pool: str) -> None:
        self._sizes, self._pool = Sizes(size), pool

    def add(self, pair: Pair) -> None:
        self._sizes.add(pair.u, pair.y, pair.window)

    def result(self) -> nn.Module:
        if self._pool == "mean_of_ratios":
            factor = self._sizes.mean_ratio().mean()
        else:
            factor = ratio(*self._sizes.total().sum(-1))
        return Channels(factor.reshape(1))


class Sizes:
    """Sums of |u| and |y|, window by window and channel by channel, in float64.

    A window has as many rows of the one as of the other, so that ratios of sums are those of means.
    """

    def __init__(self, size: int) -> None:
        self._none = torch.zeros(2, size, dtype=torch.float64)
        self._windows: dict[int, torch.Tensor] = {}

    def add(self, u: torch.Tensor, y: torch.Tensor, window: torch.Tensor) -> None:
        """u, y: (token, channel); window: (token,) which window a row is of."""
        for number in window.unique().tolist():
            rows = window == number
            sums = [x[rows].abs().sum(0, dtype=torch.float64).cpu() for x in (u, y)]
            self._windows[number] = self._windows.get(number, self._none) + torch.stack(sums)

    def mean_ratio(self) -> torch.Tensor:
        """(channel,) mean over windows of E_t|y| / E_t|u|."""
        sums = torch.stack(list(self._windows.values()) or [self._none], dim=1)
        return ratio(*sums).mean(0)

    def total(self) -> torch.Tensor:
        """(2, channel) sums of |u| and of |y| over all windows."""
        return sum(self._windows.values(), self._none)


def ratio(u: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """y / u for sizes, and 1 where u is 0: nothing makes an empty channel larger."""
    return torch.where(u > 0, y / u.clamp_min(torch.finfo(u.dtype).tiny), 1.0)
