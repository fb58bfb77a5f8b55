"""What a search asks, what it is told, and what it decides."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from blockviz.types.blocks import BlockId, Unit
from blockviz.types.data import Provenance
from blockviz.types.plan import PruningPlan

# The attention and MLP blocks that are gone; a layer stands there as its two blocks.
RemovedSet = frozenset[BlockId]


@dataclass(frozen=True)
class Ask:
    """Which of these removed sets have the lowest objective?

    `keep`: how many of the best must be found and known exactly, over all windows; the others may
    be given up as soon as they are surely worse. `keep=len(sets)` wants every one. n_settled: how
    many sets are settled by the answer, where that is not the number asked: earlier answers may
    have ruled some out. repair: the correction that is fitted to each set before it is measured,
    "" for the one that the search was given; None where none is.
    """

    sets: tuple[RemovedSet, ...]
    keep: int = 1
    note: str = ""
    n_settled: int | None = None
    repair: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.keep <= len(self.sets):
            raise ValueError(f"keep must be from 1 to {len(self.sets)}, not {self.keep}")

    @property
    def of(self) -> int:
        return len(self.sets) if self.n_settled is None else self.n_settled


@dataclass(frozen=True)
class Answer:
    """`best`: the `keep` best sets, the best first; equal ones in the order they were asked.

    values: the objective (mean over all windows, lower is better) of every set known exactly; a
    set that was NaN is inf. gaps: how much higher than the best each set lies, on the windows that
    it was seen on. evaluated, of: sets run and sets settled, in whole evaluations over all windows.
    doubt: the chance, at most, that a better set was given up.
    """

    best: tuple[RemovedSet, ...]
    values: Mapping[RemovedSet, float]
    gaps: Mapping[RemovedSet, float]
    evaluated: float
    of: int
    doubt: float = 0.0

    @property
    def value(self) -> float:
        """The objective of the best set."""
        return self.values[self.best[0]]


@dataclass(frozen=True)
class Rescore:
    """What are the units worth in the model as the last decision left it, with its repair?

    The answer is {unit: importance}, higher = keep, by the metric that the search was given.
    """

    note: str = ""


@dataclass(frozen=True)
class Chosen:
    """A decision: `removed` in order of removal, in the units that were searched.

    `value`: its objective; None where the strategy never measured it. evaluated, of, doubt: of the
    asking behind this decision, see Answer. repair: with which it was measured, see Ask; what is
    asked next without one is measured in the model with this repair in it.
    """

    removed: tuple[BlockId, ...]
    value: float | None = None
    evaluated: float = 0.0
    of: int = 0
    doubt: float = 0.0
    repair: str | None = None

    @property
    def parts(self) -> RemovedSet:
        return parts_of(self.removed)


# Yields what it asks and what it decides; is sent an Answer to every Ask, scores to every Rescore,
# None after a Chosen; returns its last word.
Searching = Generator[Ask | Rescore | Chosen, Answer | Mapping[BlockId, float] | None, Chosen]


def parts_of(blocks: Iterable[BlockId]) -> RemovedSet:
    """The attention and MLP blocks that these blocks and layers stand for."""
    return frozenset(part for b in blocks for part in b.parts)


@dataclass(frozen=True)
class SearchStep:
    """One decision of a search, in the units that were searched and in the order of removal.

    `number`: the objective as its paper states it (a perplexity, not nats); None if not measured.
    evaluated, of: sets run and sets asked for by this step, in whole evaluations over all windows.
    confidence: 1 = as sure as an exhaustive search among the sets that were asked; what a strategy
    left out by its own rule has no part in it. seconds: time since the last step. repair: the
    correction, with its settings, that `number` was measured with, empty where none was. rival: the
    chance that the runner-up would do better on other windows of the text; None if not known.
    """

    removed: tuple[BlockId, ...]
    number: float | None
    evaluated: float
    of: int
    confidence: float
    seconds: float
    repair: str = ""
    rival: float | None = None

    @property
    def sureness(self) -> float:
        """`confidence`, less what its windows cannot tell of the text that they are cut from."""
        return max(0.0, self.confidence - (self.rival or 0.0))

    def to_json(self) -> dict[str, Any]:
        return {
            "removed": [str(b) for b in self.removed],
            "objective": self.number,
            "evaluated": self.evaluated,
            "of": self.of,
            "confidence": self.confidence,
            "seconds": self.seconds,
            **({"repair": self.repair} if self.repair else {}),
            **({} if self.rival is None else {"rival": self.rival}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchStep:
        return cls(
            removed=tuple(BlockId.parse(b) for b in data["removed"]),
            number=data["objective"],
            evaluated=data["evaluated"],
            of=data["of"],
            confidence=data["confidence"],
            seconds=data["seconds"],
            repair=data.get("repair", ""),
            rival=data.get("rival"),
        )


@dataclass(frozen=True)
class SearchRun:
    """A search, whole or so far: what was asked, every decision, and every set it knows exactly.

    objective, strategy: labels with their settings, `lds:k=50`; unit_label: of `number`; baseline:
    the objective's number for the whole model. measured: (removed blocks, number over all windows)
    of every set that was finished, the lowest number first. warning: what a reader should know.
    """

    provenance: Provenance
    objective: str
    unit_label: str
    strategy: str
    unit: Unit
    baseline: float
    steps: tuple[SearchStep, ...] = ()
    measured: tuple[tuple[tuple[BlockId, ...], float], ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    n_reused: int = 0
    is_partial: bool = False
    warning: str = ""

    @property
    def best(self) -> SearchStep | None:
        """The last decision: what the search hands over."""
        return self.steps[-1] if self.steps else None

    @property
    def n_evaluated(self) -> float:
        return math.fsum(step.evaluated for step in self.steps)

    @property
    def n_of(self) -> int:
        return sum(step.of for step in self.steps)

    def plan(self) -> PruningPlan:
        """The plan of the last decision, with a trace that names what each step added."""
        trace, before = [], set()
        for step in self.steps:
            new = [str(b) for b in step.removed if b not in before]
            trace.append({"block": ", ".join(new), **step.to_json()})
            before = set(step.removed)
        return PruningPlan(
            removed=self.best.removed if self.best else (),
            model=self.provenance.model,
            revision=self.provenance.revision,
            provenance=self.provenance,
            trace=tuple(trace),
            baseline=self.baseline,
        )

    def to_json(self) -> dict[str, Any]:
        """A plan (schema blockviz/plan/1) with the search beside it."""
        search = {
            "objective": self.objective,
            "unit_label": self.unit_label,
            "strategy": self.strategy,
            "unit": self.unit,
            "parameters": dict(self.parameters),
            "n_reused": self.n_reused,
            "warning": self.warning,
            "measured": [[[str(b) for b in blocks], number] for blocks, number in self.measured],
        }
        head = {"partial": True} if self.is_partial else {}
        plan = self.plan().to_json()
        return {"schema": plan.pop("schema"), **head, **plan, "search": search}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchRun:
        search = data["search"]
        return cls(
            provenance=Provenance.from_json(data["provenance"]),
            objective=search["objective"],
            unit_label=search["unit_label"],
            strategy=search["strategy"],
            unit=search["unit"],
            baseline=data["baseline"],
            steps=tuple(SearchStep.from_json(step) for step in data["trace"]),
            measured=tuple(
                (tuple(BlockId.parse(b) for b in blocks), number)
                for blocks, number in search["measured"]
            ),
            parameters=search["parameters"],
            n_reused=search["n_reused"],
            is_partial=bool(data.get("partial", False)),
            warning=search["warning"],
        )
