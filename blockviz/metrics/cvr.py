"""Variance-calibrated weight score: how much weight meets how much variance."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from blockviz.metrics.base import METRICS, ActivationMetric
from blockviz.stats import PassStatistic, WriterInputs
from blockviz.types import BlockId, BlockStatistics, Scores


@METRICS.register
@dataclass(frozen=True)
class CalibratedWeights(ActivationMetric):
    """S_ij = |W_ij| Var(x_j)^(1/4) (Var_j(W) + eps)^(-alpha/2); Yu et al., arXiv 2602.07375.

    The paper prunes single weights by S. The block's score is ours: the mean of S over the block's
    last matrix, standardised within attention and within MLP blocks. A diagnostic, not a recipe.
    """

    alpha: float = field(default=0.5, metadata={"label": "alpha", "min": 0.0, "max": 2.0})

    name = "cvr"
    title = "Calibrated weights"
    meaning = "How much weight the block's last matrix puts on inputs that vary."
    formula = (
        "S_{ij} = | W_{ij} | · Var(x_j)^{1/4} · ( Var_j(W) + ε )^{−α/2},  score = z( mean_{ij} "
        "S_{ij} )\n"
        "W: the block's last matrix; x_j: what it reads in channel j; Var_j(W): over column j. "
        "z: against the other blocks of the same kind."
    )
    sees = "Weights that meet inputs which vary, in the one matrix through which the block writes."
    misses = (
        "Where it writes, and who reads that. The score was made for choosing single weights; "
        "of blocks it is a diagnosis. As each kind has a scale of its own, an attention block "
        "and an MLP cannot be compared."
    )
    reference = "https://arxiv.org/abs/2602.07375"
    citation = "Yu et al. 2026, Statistical Correction"
    unit_label = "z-score"
    units = ("block", "attn", "mlp")

    def passes(self) -> tuple[PassStatistic, ...]:
        return (WriterInputs(),)

    def score(self, source: BlockStatistics) -> Scores:
        found = source.passes[WriterInputs()]
        means = {b: weight_scores(w, v, self.alpha).mean().item() for b, (w, v) in found.items()}
        values = {}
        for part in sorted({b.part for b in means}):
            values |= _standardised({b: m for b, m in means.items() if b.part == part})
        return self.scores({b: (values[b], 0.0) for b in means}, has_error=False)


def weight_scores(
    weight: torch.Tensor, variance: torch.Tensor, alpha: float, *, eps: float = 1e-8
) -> torch.Tensor:
    """(out, in) float32 S of (out, in) weights and the (in,) variance of their inputs."""
    weight = weight.float()
    spread = weight.var(dim=0, unbiased=False) + eps
    column = variance.to(weight.device).float() ** 0.25 * spread ** (-alpha / 2)
    return weight.abs() * column


def _standardised(means: dict[BlockId, float]) -> dict[BlockId, float]:
    """Zero mean and unit standard deviation; zeros where all are equal."""
    values = torch.tensor(list(means.values()), dtype=torch.float64)
    size = values.std(unbiased=False)
    scaled = torch.zeros_like(values) if size == 0 else (values - values.mean()) / size
    return dict(zip(means, scaled.tolist(), strict=True))
