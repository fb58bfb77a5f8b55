"""What two blocks do together beyond what each does alone, measured on one text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockviz.types.blocks import BlockId
from blockviz.types.data import Provenance


@dataclass(frozen=True)
class Interactions:
    """Losses of the whole model, of every single cut and of every pair, in nats.

    whole: mean next-token NLL of the whole model on the positions that were read; singles: the rise
    over it with one block gone; pairs: (i, j), i < j -> loss(i, j) - loss(i) - loss(j) + whole:
    positive = the two stand in for each other, negative = the second matters less once the first
    is gone. stderr: standard error of every pair's number over windows.
    n_positions: read of each window (all, or a seeded sample).
    """

    provenance: Provenance
    whole: float
    singles: Mapping[BlockId, float]
    pairs: Mapping[tuple[BlockId, BlockId], float]
    stderr: Mapping[tuple[BlockId, BlockId], float]
    n_positions: int
    is_partial: bool = False

    def between(self, a: BlockId, b: BlockId) -> float | None:
        """The interaction of two blocks in either order; None if it was not measured."""
        return self.pairs.get((a, b) if a < b else (b, a))

    def to_json(self) -> dict[str, Any]:
        head = {"schema": "blockviz/pairs/1", "provenance": self.provenance.to_json()}
        if self.is_partial:
            head["partial"] = True
        return {
            **head,
            "whole": self.whole,
            "n_positions": self.n_positions,
            "singles": {str(b): v for b, v in self.singles.items()},
            "pairs": [[str(a), str(b), v, self.stderr[a, b]] for (a, b), v in self.pairs.items()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Interactions:
        rows = [(BlockId.parse(a), BlockId.parse(b), v, e) for a, b, v, e in data["pairs"]]
        return cls(
            provenance=Provenance.from_json(data["provenance"]),
            whole=data["whole"],
            singles={BlockId.parse(b): v for b, v in data["singles"].items()},
            pairs={(a, b): v for a, b, v, _ in rows},
            stderr={(a, b): e for a, b, _, e in rows},
            n_positions=data["n_positions"],
            is_partial=bool(data.get("partial", False)),
        )
