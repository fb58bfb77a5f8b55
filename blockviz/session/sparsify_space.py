"""Which sparse weights a request names, and whether it can be run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from blockviz.corrections import Correction
from blockviz.corrections.sparse import SCORES, Inputs, InputScore, Pattern
from blockviz.corrections.sparsifying import Sparsity
from blockviz.errors import BadInput
from blockviz.metrics.cvr import weight_scores
from blockviz.session.repair_space import parse_corrections
from blockviz.session.sparsify_views import SparsifyRequest
from blockviz.settings import label_of, parse_method


@SCORES.register
@dataclass(frozen=True)
class CalibratedScore(InputScore):
    """S_ij = |W_ij| Var(x_j)^(1/4) (Var_j(W) + eps)^(-alpha/2); Yu et al., arXiv 2602.07375.

    Which weights the paper compares we could not read: as in Wanda, those of an output row.
    """

    alpha: float = field(default=0.5, metadata={"label": "alpha", "min": 0.0, "max": 2.0})

    name = "cvr"
    title = "Calibrated weights"

    def scores(self, weight: torch.Tensor, inputs: Inputs | None) -> torch.Tensor:
        return weight_scores(weight, inputs.variance.float(), self.alpha)


@dataclass(frozen=True)
class Asked:
    """A request that can be run. sparsities: without energy and with it, score by score."""

    correction: Correction | None
    sparsities: tuple[Sparsity, ...]

    @property
    def needs_text(self) -> bool:
        is_read = any(isinstance(s.score, InputScore) for s in self.sparsities)
        return is_read or self.correction is not None


def check_sparsify(request: SparsifyRequest) -> Asked:
    """What a request comes to; BadInput or UnknownName where it cannot be run."""
    scores = {label_of(s): s for s in (parse_method(SCORES, name) for name in request.scores)}
    if not scores:
        raise BadInput(
            "Weights were to be made zero.",
            "No score was named to choose them by.",
            f"Name some of {', '.join(SCORES.names())}.",
        )
    corrections = parse_corrections(request.repair.corrections)
    if len(corrections) > 1:
        raise BadInput(
            f"The corrections {', '.join(corrections)} were asked for.",
            "The weights of one corrected model can be made sparse at a time.",
            "Name one, such as writer_refit.",
        )
    if corrections and not request.repair.plan.removed:
        raise BadInput(
            f"By {next(iter(corrections))} something was to be corrected.",
            "The plan removes nothing.",
            "Give a plan with at least one removed block, or no correction.",
        )
    _check_sizes(request)
    pattern = Pattern.parse(request.pattern)
    ways = dict.fromkeys(((), tuple(sorted(set(request.energy)))))
    return Asked(
        next(iter(corrections.values()), None),
        tuple(Sparsity(s, pattern, way, request.clip) for s in scores.values() for way in ways),
    )


def _check_sizes(request: SparsifyRequest) -> None:
    asked = request.repair
    for value, least, what in (
        (asked.text.n_samples, 1, "windows to look at"),
        (asked.n_skip, 0, "windows to leave out"),
        (asked.text.seq_len, 2, "tokens in a window to look at"),
        (asked.evaluation.n_samples, 1, "windows to measure on"),
        (asked.evaluation.seq_len, 2, "tokens in a window to measure on"),
    ):
        if value < least:
            raise BadInput(
                f"{value} {what} were asked for.", f"The least is {least}.", "Ask for more."
            )
