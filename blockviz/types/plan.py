"""Which blocks are removed, in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from blockviz.errors import BadPlan
from blockviz.types.blocks import BlockId, ModelInfo
from blockviz.types.data import Provenance


@dataclass(frozen=True)
class PruningPlan:
    """Attention and MLP blocks in order of removal. Immutable; the mask is a view of it."""

    removed: tuple[BlockId, ...] = ()
    model: str = ""
    revision: str = ""
    provenance: Provenance | None = None
    trace: tuple[Mapping[str, Any], ...] = ()
    baseline: float | None = None

    def __post_init__(self) -> None:
        flat = tuple(dict.fromkeys(part for b in self.removed for part in b.parts))
        object.__setattr__(self, "removed", flat)

    def also(self, block: BlockId) -> PruningPlan:
        return replace(self, removed=(*self.removed, *block.parts))

    def without(self, block: BlockId) -> PruningPlan:
        return replace(self, removed=tuple(b for b in self.removed if b not in block.parts))

    def keeps(self, block: BlockId) -> bool:
        return not any(part in self.removed for part in block.parts)

    def shown(self) -> tuple[str, ...]:
        """Block ids for people: a layer stands for its two blocks once both are gone."""
        gone, out = set(self.removed), {}
        for b in self.removed:
            both = set(BlockId(b.layer, "layer").parts) <= gone
            out[str(BlockId(b.layer, "layer") if both else b)] = None
        return tuple(out)

    def check(self, info: ModelInfo) -> PruningPlan:
        """Itself, if `info` has every removed block and at least one block stays; else BadPlan."""
        for b in self.removed:
            if b.layer >= info.n_layers:
                raise BadPlan(
                    f"The plan removes {b}.",
                    f"{info.name} has layers 0 to {info.n_layers - 1}.",
                    "Take that block out of the plan, or load the model it was made for.",
                )
        if len(self.removed) >= len(info.blocks):
            raise BadPlan(
                f"The plan removes all {len(info.blocks)} blocks.",
                "A model with no block left is only an embedding and a head.",
                "Keep at least one block.",
            )
        return self

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "blockviz/plan/1",
            "provenance": self.provenance.to_json() if self.provenance else None,
            "model": self.model,
            "revision": self.revision,
            "removed": [str(b) for b in self.removed],
            "trace": [dict(step) for step in self.trace],
            "baseline": self.baseline,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PruningPlan:
        """The plan of a JSON object; BadPlan unless it is one."""
        is_plan = isinstance(data, Mapping) and data.get("schema") == "blockviz/plan/1"
        if not is_plan or not isinstance(data.get("removed"), list):
            raise BadPlan(
                "A plan was to be read.",
                "The JSON is no blockviz plan (schema blockviz/plan/1 with a list `removed`).",
                'Write {"schema": "blockviz/plan/1", "removed": ["18.attn"]}, or use --remove.',
            )
        removed = tuple(BlockId.parse(b) for b in data["removed"])
        try:
            origin = data.get("provenance")
            return cls(
                removed=removed,
                model=_text(data.get("model")),
                revision=_text(data.get("revision")),
                provenance=Provenance.from_json(origin) if origin else None,
                trace=tuple(dict(step) for step in data.get("trace") or ()),
                baseline=_number(data.get("baseline")),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise BadPlan(
                "A plan was to be read.",
                "Its model, revision, provenance, trace or baseline is not what blockviz writes.",
                "Take those fields out: the list `removed` is enough.",
            ) from error


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError("not a text")
    return value or ""


def _number(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError("not a number")
    return value
