"""What a front end asks of sparse weights, and what it is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from blockviz.session.repair_views import RepairRequest
from blockviz.types import BlockId, Provenance


@dataclass(frozen=True)
class SparsifyRequest:
    """Which weights of a plan's surviving blocks to make zero, and by what.

    repair: the plan, `none` or one correction that is fitted first, the text to fit and to look at
    the inputs on, and the text to measure on; an empty plan stands for the whole model. scores:
    names with settings, `cvr:alpha=0.3`. pattern: `0.5`, `2:4`, `4:8`. energy: of `column` and
    `row`; where one is named every score is tried with and without. clip: bounds of its factor.
    """

    repair: RepairRequest
    scores: tuple[str, ...] = ("cvr",)
    pattern: str = "0.5"
    energy: tuple[str, ...] = ()
    clip: tuple[float, float] = (0.5, 2.0)


@dataclass(frozen=True)
class SparseRow:
    """One variant. score: its label with settings, empty where the weights are dense.

    nll, stderr: mean nats over the evaluation windows and their standard error; rise, rise_stderr:
    paired difference to the original. n_weights, n_zeros: of the matrices of surviving blocks;
    n_parameters: of all, n_nonzero: those of them that are not zero. seconds: what making it sparse
    took. refused: why it has no numbers.
    """

    variant: str
    correction: str = "none"
    score: str = ""
    energy: tuple[str, ...] = ()
    n_weights: int = 0
    n_zeros: int = 0
    n_parameters: int = 0
    n_nonzero: int = 0
    nll: float = math.nan
    stderr: float = 0.0
    rise: float = math.nan
    rise_stderr: float = 0.0
    seconds: float = 0.0
    refused: str = ""

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nll, 700.0)) if math.isfinite(self.nll) else math.nan

    @property
    def sparsity(self) -> float:
        """The share of zeros in the matrices of surviving blocks."""
        return self.n_zeros / self.n_weights if self.n_weights else 0.0

    def label(self) -> str:
        """`pruned + writer_refit + cvr + energy`."""
        steps = [self.variant, "" if self.correction == "none" else self.correction, self.score]
        return " + ".join([*filter(None, steps), *(["energy"] if self.energy else [])])

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        for name in ("nll", "rise"):
            data[name] = data[name] if math.isfinite(data[name]) else None
        return {**data, "energy": list(self.energy), "sparsity": self.sparsity}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SparseRow:
        own = {name: data[name] for name in cls.__dataclass_fields__}
        numbers = {n: math.nan if own[n] is None else own[n] for n in ("nll", "rise")}
        return cls(**{**own, **numbers, "energy": tuple(own["energy"])})


@dataclass(frozen=True)
class SparseTable:
    """The original, the plan, the plan with its correction, then the sparse ones.

    provenance: of the text that inputs were looked at and corrections fitted on, without one where
    neither was wanted; evaluation: of the text that the perplexities are of. warning: what to know
    before the numbers are believed.
    """

    provenance: Provenance
    evaluation: Provenance
    removed: tuple[BlockId, ...]
    pattern: str
    clip: tuple[float, float]
    rows: tuple[SparseRow, ...] = field(default=())
    n_predicted: int = 0
    warning: str = ""
    is_partial: bool = False

    @property
    def sparse(self) -> tuple[SparseRow, ...]:
        return tuple(row for row in self.rows if row.score)

    def to_json(self) -> dict[str, Any]:
        head = {"partial": True} if self.is_partial else {}
        return {
            "schema": "blockviz/sparsify/1",
            **head,
            "provenance": self.provenance.to_json(),
            "evaluation": self.evaluation.to_json(),
            "removed": [str(b) for b in self.removed],
            "pattern": self.pattern,
            "clip": list(self.clip),
            "n_predicted": self.n_predicted,
            "warning": self.warning,
            "rows": [row.to_json() for row in self.rows],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SparseTable:
        return cls(
            provenance=Provenance.from_json(data["provenance"]),
            evaluation=Provenance.from_json(data["evaluation"]),
            removed=tuple(BlockId.parse(b) for b in data["removed"]),
            pattern=data["pattern"],
            clip=tuple(data["clip"]),
            rows=tuple(SparseRow.from_json(row) for row in data["rows"]),
            n_predicted=data["n_predicted"],
            warning=data["warning"],
            is_partial=bool(data.get("partial", False)),
        )
