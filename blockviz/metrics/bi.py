"""Block Influence: how much a block turns the residual stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from blockviz.metrics.base import (
    METRICS,
    ActivationMetric,
    weighted_mean_and_error,
    window_numbers,
)
from blockviz.stats import PassStatistic, StreamCosine, UpdateCosine
from blockviz.types import BlockStatistics, Scores, Unit


@METRICS.register
@dataclass(frozen=True)
class BlockInfluence(ActivationMetric):
    """BI = 1 - mean over tokens of cos(x, x + f(x)), in [0, 2]; ShortGPT, arXiv 2403.03853, Eq. 1.

    At block level the output is the residual-inclusive one (LLM-Drop, arXiv 2406.15786); with
    `residual` False it is 1 - cos(norm(x), f(x)), which compares what the block reads with what it
    adds, and is known for single blocks only.
    """

    residual: bool = field(default=True, metadata={"label": "Output with the residual stream"})

    name = "bi"
    title = "Block influence"
    meaning = "How far the block turns the residual stream."
    formula = (
        "BI(b) = 1 − mean_t cos( x_t, x_t + f_b(x_t) )\n"
        "x_t: the stream in front of the block at position t; f_b(x_t): what the block adds to "
        "it."
    )
    sees = "By what angle a block turns the stream, for all blocks out of one forward pass."
    misses = (
        "An update along the stream scores 0, however large. Nor does it know what comes "
        "behind: a small turn into a direction on which a later block depends looks like "
        "nothing."
    )
    reference = "https://arxiv.org/abs/2403.03853"
    unit_label = "1 - cosine"
    citation = "Men et al. 2024, ShortGPT, Eq. 1"
    needs = (StreamCosine,)

    def unit_for(self, unit: Unit) -> Unit:
        return unit if self.residual or unit != "layer" else "block"

    def passes(self) -> tuple[PassStatistic, ...]:
        return () if self.residual else (UpdateCosine(),)

    def score(self, source: BlockStatistics) -> Scores:
        found = source.values if self.residual else source.passes[UpdateCosine()]
        means, windows = {}, {}
        for block, values in found.items():
            total, count = values["stream_cosine.sum"], values["stream_cosine.count"]
            means[block] = weighted_mean_and_error(count - total, count)
            windows[block] = 1 - total / count
        return self.scores(means, per_window=window_numbers(windows))
