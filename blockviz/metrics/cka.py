"""Representation similarity across a block, and between any two layers."""

from __future__ import annotations

from dataclasses import dataclass, field

from blockviz.metrics.base import METRICS, ActivationMetric
from blockviz.stats import PassStatistic, StreamCka
from blockviz.types import BlockStatistics, Matrix, Scores


@METRICS.register
@dataclass(frozen=True)
class Similarity(ActivationMetric):
    """Score 1 - CKA(x, x + f(x)) in [0, 1], with the map of all layers; arXiv 2502.19159.

    Linear CKA, arXiv 1905.00414. That paper only draws the map; the score is our reading of it.
    `rows=sequences` takes each whole window as one sample, as its code does (there debiased and
    rounded, which is left out here).
    """

    rows: str = field(
        default="tokens", metadata={"label": "Samples", "choices": ("tokens", "sequences")}
    )
    n_rows: int = field(default=1024, metadata={"label": "Most samples", "min": 3, "max": 8192})

    name = "cka"
    title = "CKA change"
    meaning = "How much the block changes which tokens look alike."
    formula = (
        "1 − CKA(X, Y),  CKA = ‖ Y^T X ‖_F^2 / ( ‖ X^T X ‖_F · ‖ Y^T Y ‖_F )\n"
        "X, Y: the stream of the sampled tokens in front of and behind the block, one row a "
        "token, columns centred."
    )
    sees = (
        "Whether the same tokens still look alike behind the block. A rotation of the whole "
        "stream, or another scale, does not change that and costs nothing."
    )
    misses = (
        "Later blocks do notice a rotation, as they read fixed directions. A few channels with "
        "huge numbers can fill the whole comparison, and only a sample of tokens enters."
    )
    reference = "https://arxiv.org/abs/2502.19159"
    citation = "Ding et al. 2025, Sliding Layer Merging"
    unit_label = "1 - CKA"

    def passes(self) -> tuple[PassStatistic, ...]:
        return (StreamCka(rows=self.rows, n_rows=self.n_rows),)

    def score(self, source: BlockStatistics) -> Scores:
        (asked,) = self.passes()
        found = source.passes[asked]
        table = found["layers"].tolist()
        labels = tuple(str(i) for i in range(len(table)))
        return self.scores(
            {b: (1 - v, 0.0) for b, v in found["blocks"].items()},
            has_error=False,
            matrix=Matrix(labels, tuple(tuple(row) for row in table)),
        )
