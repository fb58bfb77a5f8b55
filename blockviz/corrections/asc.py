"""ASC: the mean and the standard deviation of every channel are made what they were."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from blockviz.corrections.base import CORRECTIONS, Correction, Pair, Place, Where
from blockviz.corrections.scalar import Sizes, ratio
from blockviz.models.modeling_blockviz import Channels
from blockviz.stats.pairs import ChannelPairs, varies

SHRINK = {"label": "Share of the correction that is applied", "min": 0.0, "max": 1.0}
CLIP = {"label": "Largest factor, its inverse the smallest", "min": 1.0, "max": 1e9}


@CORRECTIONS.register
@dataclass(frozen=True)
class Asc(Correction):
    """y^ = g u + b, g = sd(y) / sqrt(var(u) + eps), b = mean(y) - g mean(u), channel by channel.

    The abstract says no more than "mean and variance"; the rest is our reading. site: the stream
    behind a gap, what the blocks behind it read, or the stream in front of every surviving block.
    granularity=scalar: moments over all channels at once, one g and one b; stat=absmean: g is the
    ratio of mean magnitudes and b is 0. g is kept within [1/clip, clip]; shrink moves g towards 1
    and b towards 0. The mean square error is 2 var(y) (1 - rho) where least squares has var(y)
    (1 - rho^2): where u and y hardly correlate this is worse than doing nothing.
    """

    site: str = field(
        default="gap",
        metadata={"label": "Place", "choices": ("gap", "norm_out", "every_block")},
    )
    granularity: str = field(
        default="channel", metadata={"label": "Moments of", "choices": ("channel", "scalar")}
    )
    stat: str = field(
        default="meanvar", metadata={"label": "What is matched", "choices": ("meanvar", "absmean")}
    )
    shrink: float = field(default=1.0, metadata=SHRINK)
    clip: float = field(default=5.0, metadata=CLIP)
    eps: float = field(
        default=1e-6, metadata={"label": "Added to the variance", "min": 0.0, "max": 1.0}
    )

    name = "asc"
    title = "Activation statistics"
    meaning = "Gives every channel the mean and spread that it had behind the removed blocks."
    formula = (
        "ŷ_c = γ_c · u_c + β_c,  γ_c = σ(y_c) / √( σ^2(u_c) + ε ),  β_c = μ(y_c) − γ_c · μ(u_c)\n"
        "u, y: the stream behind a gap, pruned and whole; μ, σ: mean and standard deviation of "
        "channel c over tokens."
    )
    sees = "Mean and spread of every channel, both of which are right afterwards."
    misses = (
        "Whether the channel still moves as it did: where it hardly correlates with what it was, "
        "stretching it stretches noise, and to do nothing would have been better."
    )
    cost = "Two numbers a channel and gap."
    reference = "https://aclanthology.org/2026.findings-eacl.193/"
    citation = "Hu, Xu, Zhan, Findings of EACL 2026"

    @property
    def where(self) -> Where:
        return self.site

    def fitter(self, place: Place) -> _MeanVar | _AbsMean:
        return (_MeanVar if self.stat == "meanvar" else _AbsMean)(self, place.hidden_size)

    def limited(self, scale: torch.Tensor) -> torch.Tensor:
        """The scale within [1/clip, clip]."""
        return scale.clamp(1 / self.clip, self.clip)


class _MeanVar:
    def __init__(self, how: Asc, size: int) -> None:
        self._how, self._pairs = how, ChannelPairs(size)

    def add(self, pair: Pair) -> None:
        self._pairs.add(pair.u, pair.y)

    def result(self) -> nn.Module:
        found, how = self._pairs.result(), self._how
        u, y = (found.mean_u, found.var_u), (found.mean_y, found.var_y)
        if how.granularity == "scalar":
            u, y = _over_channels(*u), _over_channels(*y)
        scale = how.limited(torch.where(varies(*u), (y[1] / (u[1] + how.eps)).sqrt(), 1.0))
        shift = y[0] - scale * u[0]
        return Channels(1 + how.shrink * (scale - 1), how.shrink * shift)


class _AbsMean:
    def __init__(self, how: Asc, size: int) -> None:
        self._how, self._sizes = how, Sizes(size)

    def add(self, pair: Pair) -> None:
        self._sizes.add(pair.u, pair.y, pair.window)

    def result(self) -> nn.Module:
        sizes = self._sizes.total()
        if self._how.granularity == "scalar":
            sizes = sizes.sum(-1, keepdim=True)
        scale = self._how.limited(ratio(*sizes))
        return Channels(1 + self._how.shrink * (scale - 1))


def _over_channels(mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(1,) mean and variance of all channels' numbers together."""
    overall = mean.mean(-1, keepdim=True)
    return overall, (variance + (mean - overall).square()).mean(-1, keepdim=True)
