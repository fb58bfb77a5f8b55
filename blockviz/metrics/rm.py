"""Relative magnitude: how large a block's update is beside what it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

from blockviz.metrics.base import METRICS, ActivationMetric, weighted_mean_and_error, window_numbers
from blockviz.stats import RelativeSize
from blockviz.types import BlockStatistics, Scores


@METRICS.register
@dataclass(frozen=True)
class RelativeMagnitude(ActivationMetric):
    """RM = mean over tokens of |f(x)| / |x + f(x)|, >= 0; Samragh et al., arXiv 2312.09299.

    Sees an update along the stream, to which Block Influence is blind.
    """

    name = "rm"
    title = "Relative magnitude"
    meaning = "How much the block adds beside what the stream already holds."
    formula = (
        "RM(b) = mean_t ‖ f_b(x_t) ‖ / ‖ x_t + f_b(x_t) ‖\n"
        "x_t: the stream in front of the block at position t; f_b(x_t): what the block adds to "
        "it."
    )
    sees = (
        "How much is written beside what stands there afterwards, also along the stream, where "
        "block influence is blind."
    )
    misses = (
        "What is written, and who reads it: a large update that nobody uses ranks as important."
        " As the stream usually grows with depth, the same update counts for less in a late "
        "block."
    )
    reference = "https://arxiv.org/abs/2312.09299"
    unit_label = "ratio"
    citation = "Samragh et al. 2023, Weight subcloning"
    needs = (RelativeSize,)

    def score(self, source: BlockStatistics) -> Scores:
        means, windows = {}, {}
        for block, values in source.values.items():
            total, count = values["relative_size.sum"], values["relative_size.count"]
            means[block] = weighted_mean_and_error(total, count)
            windows[block] = total / count
        return self.scores(means, per_window=window_numbers(windows))
