"""Scores of a block's own parameters: by size, and by what a first-order change of them costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from blockviz.metrics.base import METRICS, WeightMetric
from blockviz.types import Scores, WeightTensors


@METRICS.register
@dataclass(frozen=True)
class Taylor(WeightMetric):
    """I = sum over the block's tensors, norms included, of sum |W * dL/dW|; arXiv 2402.02834.

    The gradient is summed over the windows before the absolute value is taken, as the paper's code
    does; 10 samples there.
    """

    n: int = field(default=10, metadata={"label": "Windows read", "min": 1})

    name = "taylor"
    title = "Taylor"
    meaning = "How much the loss would feel if the block's weights shrank, to first order."
    formula = (
        "I(b) = Σ_{ij} | W_{ij} · ∂L/∂W_{ij} |\n"
        "over all tensors of the block, its norm included; L: next-token loss, its gradient "
        "summed over n windows."
    )
    sees = "Which weights the loss leans on just now, out of one backward pass."
    misses = (
        "A slope holds for a hair's breadth, and removal is a leap. Absolute values add up what"
        " would cancel, and a block with more weights collects a larger sum, so that attention "
        "tends to go before the MLP."
    )
    reference = "https://arxiv.org/abs/2402.02834"
    citation = "Kim et al. 2024, Shortened LLaMA"
    unit_label = "nats"
    cost = "one backward pass"
    needs_gradient: ClassVar[bool] = True

    def score(self, source: WeightTensors) -> Scores:
        total = {
            block: sum((w.float() * g).abs().sum().item() for w, g in tensors.values())
            for block, tensors in source.values.items()
        }
        return self.scores({b: (v, 0.0) for b, v in total.items()}, has_error=False)


@METRICS.register
@dataclass(frozen=True)
class Magnitude(WeightMetric):
    """I = sum over the block's tensors, norms included, of sum |W|; arXiv 2402.02834. No data."""

    name = "mag"
    title = "Weight magnitude"
    meaning = "How large the block's weights are, all added up."
    formula = "I(b) = Σ_{ij} | W_{ij} |\nover all tensors of the block, its norm included."
    sees = "The size of the weights, the same every time, as no text is read."
    misses = (
        "What the weights are multiplied with. The sum grows with the number of weights, so that "
        "it orders kinds of blocks by their size, and says little of blocks of one kind."
    )
    reference = "https://arxiv.org/abs/2402.02834"
    citation = "Kim et al. 2024, Shortened LLaMA"
    unit_label = "sum of |W|"
    cost = "no data"

    def score(self, source: WeightTensors) -> Scores:
        total = {
            block: sum(w.float().abs().sum().item() for w, _ in tensors.values())
            for block, tensors in source.values.items()
        }
        return self.scores({b: (v, 0.0) for b, v in total.items()}, has_error=False)
