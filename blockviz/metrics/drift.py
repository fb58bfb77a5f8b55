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
