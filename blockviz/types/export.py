"""What an export came to: every check of the written files, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from blockviz.types.repair import ExportMode


@dataclass(frozen=True)
class CheckRow:
    """One check of written files. passed: None where it could not be run; detail: what was found,
    with numbers."""

    name: str
    title: str
    passed: bool | None = None
    detail: str = ""

    @property
    def shown(self) -> str:
        return {True: "passed", False: "FAILED", None: "not run"}[self.passed]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CheckRow:
        return cls(**data)


@dataclass(frozen=True)
class ExportReport:
    """One written model. n_parameters, n_bytes: of its weights, n_parameters_before and
    n_bytes_before of the model it comes from, in the same dtype; n_layers: of its config. n_attn,
    n_mlp: blocks that are kept; a layer of a custom model may hold several MLPs.

    effective_ratio: share of parameters of the removed blocks; stored_ratio: share that the file
    does without. perplexities: variant -> perplexity on the text of `data`. notes: what to know
    of the mode, a sentence each.
    """

    mode: ExportMode
    removed: tuple[str, ...]
    correction: str
    n_layers: int
    n_parameters: int
    n_parameters_before: int
    n_bytes: int
    n_bytes_before: int
    effective_ratio: float
    perplexities: Mapping[str, float]
    data: str
    rows: tuple[CheckRow, ...] = ()
    notes: tuple[str, ...] = ()
    n_attn: int = 0
    n_mlp: int = 0

    @property
    def layers(self) -> str:
        """`22, with 22 attention and 30 MLP blocks`."""
        n = f"{self.n_layers:,}"
        blocks = f"{self.n_attn:,} attention and {self.n_mlp:,} MLP blocks"
        return f"{n}, with {blocks}" if self.n_attn or self.n_mlp else n

    @property
    def stored_ratio(self) -> float:
        return 1 - self.n_parameters / self.n_parameters_before

    @property
    def is_passed(self) -> bool:
        return bool(self.rows) and all(row.passed for row in self.rows)

    def checked(self, rows: tuple[CheckRow, ...]) -> ExportReport:
        return replace(self, rows=rows)

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        for name in ("removed", "notes"):
            data[name] = list(data[name])
        return {
            "schema": "blockviz/export/1",
            **data,
            "rows": [row.to_json() for row in self.rows],
            "stored_ratio": self.stored_ratio,
            "passed": self.is_passed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ExportReport:
        derived = ("schema", "stored_ratio", "passed")
        kept = {k: v for k, v in data.items() if k not in derived}
        rows = tuple(CheckRow.from_json(row) for row in kept.pop("rows"))
        removed, notes = tuple(kept.pop("removed")), tuple(kept.pop("notes"))
        return cls(**kept, rows=rows, removed=removed, notes=notes)
