"""How little the stream turns over a run of layers, of any length."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from blockviz.metrics.base import METRICS, ActivationMetric, mean_and_error
from blockviz.stats import LayerCosines, PassStatistic
from blockviz.types import BlockId, BlockStatistics, Scores


class _Windows(ActivationMetric):
    """Scores runs of n layers from l by comparing the streams X_l and X_{l+n}; values are n = 1."""

    units = ("layer",)

    def window_scores(self, table: torch.Tensor, *, is_redundancy: bool) -> Scores:
        """Scores of (n_windows, L + 1, L + 1): number [l, m] compares X_l with X_m."""
        n_layers = table.shape[-1] - 1
        means = {BlockId(i, "layer"): mean_and_error(table[:, i, i + 1]) for i in range(n_layers)}
        mean = table.mean(dim=0)
        sign = -1.0 if is_redundancy else 1.0
        return self.scores(
            means,
            is_redundancy=is_redundancy,
            windows={
                (first, n): float(mean[first, first + n])
                for n in range(1, n_layers + 1)
                for first in range(n_layers - n + 1)
            },
            per_window={b: tuple((sign * table[:, b.layer, b.layer + 1]).tolist()) for b in means},
        )


@METRICS.register
@dataclass(frozen=True)
class AngularDistance(_Windows):
    """d(l, n) = arccos(cos(X_l, X_{l+n})) / pi in [0, 1]; Gromov et al., arXiv 2403.17887, Eq. 9.

    At the last token of each window, as published, or averaged over all of them. The stream behind
    the last layer is taken before the final norm.
    """

    tokens: str = field(
        default="last", metadata={"label": "Tokens compared", "choices": ("last", "all")}
    )

    name = "ang_win"
    title = "Angular distance"
    meaning = "The angle between the streams in front of and behind a run of layers."
    formula = (
        "d(l, n) = arccos( cos( X_l, X_{l+n} ) ) / π\n"
        "X_l: the stream in front of layer l, at the last token of a window; averaged over "
        "windows. A layer's score is d(l, 1)."
    )
    sees = (
        "The net turn over a run of layers: two layers that undo each other show up as a run "
        "that does nothing."
    )
    misses = (
        "With one token a window there are as many numbers as windows, which is few. Attention "
        "and MLP of a layer are judged together only, and a turn is not the same as a loss."
    )
    reference = "https://arxiv.org/abs/2403.17887"
    citation = "Gromov et al. 2024"
    unit_label = "angle / pi"

    def passes(self) -> tuple[PassStatistic, ...]:
        return (LayerCosines("last" if self.tokens == "last" else "tokens"),)

    def score(self, source: BlockStatistics) -> Scores:
        (asked,) = self.passes()
        return self.window_scores(source.passes[asked]["angle"], is_redundancy=False)


@METRICS.register
@dataclass(frozen=True)
class WindowCosine(_Windows):
    """1/2 + 1/2 cos(X_l, X_{l+n}) averaged over all tokens, in [0, 1]; arXiv 2403.19135.

    High = the layers can go. `cos_axis=channel` compares each channel as a vector over the
    window's tokens instead, as the code of LinearPatch (arXiv 2505.24680) and Prune&Comp does.
    """

    cos_axis: str = field(
        default="token", metadata={"label": "What is compared", "choices": ("token", "channel")}
    )

    name = "cos_win"
    title = "Window cosine"
    meaning = "How alike the streams in front of and behind a run of layers are."
    formula = (
        "c(l, n) = ½ + ½ · mean_t cos( X_{l,t}, X_{l+n,t} ),  high = removable\n"
        "X_{l,t}: the stream in front of layer l at position t."
    )
    sees = "How alike the stream is in front of a run of layers and behind it, at every token."
    misses = (
        "The size of the stream. Between neighbouring layers the cosine is close to 1 "
        "throughout, so that the order hangs on small differences; halves of layers cannot be "
        "told apart."
    )
    reference = "https://arxiv.org/abs/2403.19135"
    citation = "Chen et al. 2024, LLM-Streamline"
    unit_label = "1/2 + 1/2 cosine"

    def passes(self) -> tuple[PassStatistic, ...]:
        return (LayerCosines("tokens" if self.cos_axis == "token" else "channels"),)

    def score(self, source: BlockStatistics) -> Scores:
        (asked,) = self.passes()
        cosine = source.passes[asked]["mean"]
        return self.window_scores((1 + cosine) / 2, is_redundancy=True)
