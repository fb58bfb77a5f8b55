"""Block Influence: how much a block turns the residual stream."""

from __future__ import annotations

from dataclasses import dataclass

from blockviz.metrics.base import METRICS, ActivationMetric, weighted_mean_and_error
from blockviz.stats import StreamCosine
from blockviz.types import BlockStatistics, Scores


@METRICS.register
@dataclass(frozen=True)
class BlockInfluence(ActivationMetric):
    """BI = 1 - mean over tokens of cos(x, x + f(x)), in [0, 2]; ShortGPT, arXiv 2403.03853, Eq. 1.

    At block level the output is the residual-inclusive one (LLM-Drop, arXiv 2406.15786).
    """

    name = "bi"
    title = "Block influence"
    meaning = "How far the block turns the residual stream."
    reference = "https://arxiv.org/abs/2403.03853"
    unit_label = "1 - cosine"
    needs = (StreamCosine,)

    def score(self, source: BlockStatistics) -> Scores:
        means = {}
        for block, values in source.values.items():
            total, count = values["stream_cosine.sum"], values["stream_cosine.count"]
            means[block] = weighted_mean_and_error(count - total, count)
        return self.scores(means)
