"""Recipes side by side at one size: what each removed, what repaired it, and what is left."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from blockviz.types.blocks import BlockId
from blockviz.types.data import Provenance


@dataclass(frozen=True)
class Answered:
    """A task: the share of right answers as its papers count them, its error, and of how many."""

    accuracy: float
    stderr: float
    n: int


@dataclass(frozen=True)
class Entry:
    """One recipe on one draw of calibration text; the draw 0 is the original model.

    removed: in order of removal; repair: the correction with its settings, empty for none.
    n_parameters: what is left, with what a repair adds; n_stock: what the smallest stock checkpoint
    of it holds, None where there is none. bare: nats of the plan without the repair;
    nll, stderr: with it, rise, rise_stderr: paired difference to the original. search_seconds,
    repair_seconds: what finding and fitting took. refused: why there is no number.
    """

    name: str
    title: str
    draw: int
    removed: tuple[BlockId, ...] = ()
    repair: str = ""
    n_parameters: int = 0
    n_stock: int | None = None
    bare: float = math.nan
    nll: float = math.nan
    stderr: float = 0.0
    rise: float = math.nan
    rise_stderr: float = 0.0
    tasks: Mapping[str, Answered] = field(default_factory=dict)
    search_seconds: float = 0.0
    repair_seconds: float = 0.0
    refused: str = ""

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nll, 700.0)) if math.isfinite(self.nll) else math.nan

    @property
    def accuracy(self) -> float:
        """Mean over the tasks, NaN where none was asked."""
        found = [task.accuracy for task in self.tasks.values()]
        return statistics.fmean(found) if found else math.nan

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["removed"] = [str(b) for b in self.removed]
        for name in ("bare", "nll", "rise"):
            data[name] = data[name] if math.isfinite(data[name]) else None
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Entry:
        numbers = {n: math.nan if data[n] is None else data[n] for n in ("bare", "nll", "rise")}
        tasks = {name: Answered(**task) for name, task in data["tasks"].items()}
        removed = tuple(BlockId.parse(b) for b in data["removed"])
        return cls(**{**data, **numbers, "tasks": tasks, "removed": removed})


@dataclass(frozen=True)
class Contest:
    """entries[0] is the original. Every other plan leaves `n_parameters` at most, and its repair
    less than a block more.

    settings: what was asked, by the names of the options; evaluation: of the text of the
    perplexities, which nothing was chosen by; n_predicted: its tokens that were predicted.
    """

    evaluation: Provenance
    n_parameters: int
    settings: Mapping[str, Any]
    entries: tuple[Entry, ...] = ()
    n_predicted: int = 0
    is_partial: bool = False

    def of(self, name: str) -> tuple[Entry, ...]:
        """The entries of one recipe that have a number, a draw each."""
        return tuple(e for e in self.entries if e.name == name and math.isfinite(e.nll))

    @property
    def names(self) -> tuple[str, ...]:
        """The recipes, the one with the lowest mean loss first; those without a number last."""
        found = dict.fromkeys(e.name for e in self.entries[1:])
        losses = {n: statistics.fmean([e.nll for e in self.of(n)] or [math.inf]) for n in found}
        return tuple(sorted(found, key=losses.__getitem__))

    def winners(self) -> dict[int, str]:
        """Draw -> the recipe with the lowest loss in it."""
        best: dict[int, Entry] = {}
        for entry in self.entries[1:]:
            known = best.get(entry.draw)
            if math.isfinite(entry.nll) and (known is None or entry.nll < known.nll):
                best[entry.draw] = entry
        return {draw: entry.name for draw, entry in sorted(best.items())}

    def to_json(self) -> dict[str, Any]:
        head = {"partial": True} if self.is_partial else {}
        return {
            "schema": "blockviz/contest/1",
            **head,
            "evaluation": self.evaluation.to_json(),
            "n_parameters": self.n_parameters,
            "settings": dict(self.settings),
            "n_predicted": self.n_predicted,
            "entries": [entry.to_json() for entry in self.entries],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Contest:
        return cls(
            evaluation=Provenance.from_json(data["evaluation"]),
            n_parameters=data["n_parameters"],
            settings=data["settings"],
            entries=tuple(Entry.from_json(entry) for entry in data["entries"]),
            n_predicted=data["n_predicted"],
            is_partial=bool(data.get("partial", False)),
        )
