"""What really happened when blocks went: losses on held-out text, to judge metrics by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockviz.types.blocks import BlockId
from blockviz.types.data import Provenance


@dataclass(frozen=True)
class Measured:
    """A removed set and its loss: `nll` = mean next-token nats of each window of held-out text."""

    removed: tuple[BlockId, ...]
    nll: tuple[float, ...]

    @property
    def mean_nll(self) -> float:
        return math.fsum(self.nll) / len(self.nll)

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.mean_nll, 700.0))

    def rise_over(self, whole: Measured) -> tuple[float, float]:
        """(nats, standard error over windows) of the paired difference to the whole model."""
        gaps = [a - b for a, b in zip(self.nll, whole.nll, strict=True)]
        mean = math.fsum(gaps) / len(gaps)
        if len(gaps) < 2:
            return mean, 0.0
        spread = math.fsum((g - mean) ** 2 for g in gaps) / (len(gaps) - 1)
        return mean, math.sqrt(spread / len(gaps))


@dataclass(frozen=True)
class Judgement:
    """Measured single and cumulative removals.

    singles: every block alone; curves: metric -> the sets of its 1, 2, ... lowest blocks, in order.
    """

    provenance: Provenance
    whole: Measured
    singles: Mapping[BlockId, Measured]
    curves: Mapping[str, tuple[Measured, ...]]
    is_partial: bool = False

    def all_measured(self) -> tuple[Measured, ...]:
        """Every set, the whole model first."""
        curves = (m for curve in self.curves.values() for m in curve)
        return (self.whole, *self.singles.values(), *curves)

    def to_json(self) -> dict[str, Any]:
        head = {"schema": "blockviz/judgement/1", "provenance": self.provenance.to_json()}
        if self.is_partial:
            head["partial"] = True
        return {
            **head,
            "whole": list(self.whole.nll),
            "singles": {str(b): list(m.nll) for b, m in self.singles.items()},
            "curves": {
                metric: [{"removed": [str(b) for b in m.removed], "nll": list(m.nll)} for m in row]
                for metric, row in self.curves.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Judgement:
        def measured(removed: list[str], nll: list[float]) -> Measured:
            return Measured(tuple(BlockId.parse(b) for b in removed), tuple(nll))

        return cls(
            provenance=Provenance.from_json(data["provenance"]),
            whole=measured([], data["whole"]),
            singles={BlockId.parse(b): measured([b], nll) for b, nll in data["singles"].items()},
            curves={
                metric: tuple(measured(m["removed"], m["nll"]) for m in row)
                for metric, row in data["curves"].items()
            },
            is_partial=bool(data.get("partial", False)),
        )
