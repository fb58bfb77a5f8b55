"""How far the whole output drifts when the block is removed: four distances on the logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch.nn.functional import softplus

from blockviz.metrics.base import METRICS, AblationMetric
from blockviz.types import Readout

_LN_2 = math.log(2)
_FINERCUT = {
    "reference": "https://arxiv.org/abs/2405.18218",
    "citation": "Zhang et al. 2024, FinerCut",
}


class _Drift(AblationMetric):
    """Compares the masked model's logits z with the dense model's z0 at every position."""

    compares_logits: ClassVar[bool] = True
    reference = _FINERCUT["reference"]
    citation = _FINERCUT["citation"]


@METRICS.register
@dataclass(frozen=True)
class LogitNorm(_Drift):
    """norm = mean over windows of the Frobenius norm |Z0 - Z| over positions x vocabulary, >= 0."""

    name = "norm"
    title = "Logit distance"
    meaning = "How far all logits move when the block is removed."
    formula = (
        "norm(b) = mean_k ‖ Z^0_k − Z_k ‖_F\n"
        "Z^0_k, Z_k: all logits of window k, positions by words, of the whole model and without"
        " block b."
    )
    sees = "Every movement of every logit, also of words that nobody would write."
    misses = (
        "Whether the movement matters: a constant added to all logits changes no probability "
        "and can outweigh everything else, and one position with huge logits can speak for its "
        "whole window."
    )
    unit_label = "Frobenius norm"

    def per_position(self, readout: Readout, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return readout.distance.square()

    def window_values(self, means: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        return (means * counts).sqrt()


@METRICS.register
@dataclass(frozen=True)
class LogitAngle(_Drift):
    """ang = mean over positions of the angle between z0 and z, cut off at a right one: [0, pi/2].

    Worked out from the distance of the unit vectors: the cosine of a small angle rounds to 1.
    """

    name = "ang"
    title = "Logit angle"
    meaning = "How far the whole logit vector turns when the block is removed."
    formula = (
        "ang(b) = mean_t min( ∠( z^0_t, z_t ), π/2 )\n"
        "z^0_t, z_t: the logits of all words at position t, of the whole model and without "
        "block b."
    )
    sees = (
        "How far the logit vector turns as a whole; positions with large and with small logits "
        "have the same say."
    )
    misses = (
        "Confidence: a vector twice as long has the same angle. The tens of thousands of "
        "unlikely words make up most of the direction, so that the few that could be written "
        "hardly show."
    )
    unit_label = "radians"

    def per_position(self, readout: Readout, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        turn = _unit(readout) - _unit(readout.dense)
        half = (turn.norm(dim=-1) / 2).clamp_max(1)
        return (2 * half.arcsin()).clamp_max(math.pi / 2)


@METRICS.register
@dataclass(frozen=True)
class KullbackLeibler(_Drift):
    """kl = mean over positions of KL(p0 | p) in nats, >= 0; p0 the dense model's distribution."""

    name = "kl"
    title = "KL divergence"
    meaning = "How much of the predicted distribution is lost when the block is removed."
    formula = (
        "KL(b) = mean_t Σ_w p^0_t(w) · ln( p^0_t(w) / p_t(w) )\n"
        "p^0_t, p_t: the predicted distribution at position t, of the whole model and without "
        "block b."
    )
    sees = (
        "Probability taken away from words that the whole model believed in, each weighed by "
        "that belief."
    )
    misses = (
        "Whether the whole model was right: an improvement counts as damage like any other "
        "change. It has no upper bound, so that a few positions where a sure word was lost can "
        "decide the mean."
    )
    unit_label = "nats"

    def per_position(self, readout: Readout, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return _dot(readout.dense.probabilities, readout.log_ratio).clamp_min(0)


@METRICS.register
@dataclass(frozen=True)
class JensenShannon(_Drift):
    """js = mean over positions of (KL(p0 | m) + KL(p | m)) / 2, m = (p0 + p) / 2, in [0, ln 2].

    `js_variant=finercut_code` is what the paper's code computes, (KL(m | p0) + KL(m | p)) / 2,
    which has no upper bound. (That code also divides by the size of the vocabulary, which changes
    no order.)
    """

    js_variant: str = field(
        default="standard",
        metadata={"label": "Which divergence", "choices": ("standard", "finercut_code")},
    )

    name = "js"
    title = "JS divergence"
    meaning = "How different the two predicted distributions are, both ways."
    formula = (
        "JS(b) = mean_t ½ [ KL( p^0_t ‖ m_t ) + KL( p_t ‖ m_t ) ],  m_t = ½ ( p^0_t + p_t )\n"
        "p^0_t, p_t: the predicted distribution at position t, of the whole model and without "
        "block b."
    )
    sees = (
        "What has become less likely and what has become likelier, with equal weight, and never"
        " more than ln 2 a position."
    )
    misses = (
        "Degrees of disaster: once two distributions have no likely word in common it is at its"
        " bound, and blocks that ruin the model look alike. It does not ask which of the two "
        "was right."
    )
    unit_label = "nats"

    def per_position(self, readout: Readout, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        # log(p / m) = ln 2 - softplus(log(p0 / p)), and log(p0 / m) is log(p0 / p) more.
        now = softplus(readout.log_ratio).neg_().add_(_LN_2)
        before = readout.log_ratio + now
        dense, masked = readout.dense.probabilities, readout.probabilities
        if self.js_variant == "standard":
            return ((_dot(dense, before) + _dot(masked, now)) / 2).clamp(0, _LN_2)
        middle = (dense + masked).div_(2)
        return (_dot(middle, before.add_(now)) / -2).clamp_min(0)


def _unit(readout: Readout) -> torch.Tensor:
    """(position, vocab): the logits as vectors of length 1, of length 0 where they all are 0."""
    return readout.logits / readout.size.clamp_min(torch.finfo(torch.float32).tiny)[:, None]


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(position,) of two (position, vocab)."""
    return torch.linalg.vecdot(a, b)
