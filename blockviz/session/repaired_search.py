"""What a search makes small where what is cut is repaired as it goes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from blockviz.corrections import CORRECTIONS, fit, repaired_model
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel
from blockviz.session.objectives import Objective, Values
from blockviz.session.repair_space import NO_CORRECTION
from blockviz.settings import parse_method
from blockviz.types import CalibrationSet, Chosen, PruningPlan, RemovedSet, passing

Opened = Callable[[BlockModel], Objective]
# Steps in between; at the end a model without a set, a repair in it, and the objective on it.
Making = Generator[None, None, "Ground"]


@dataclass(frozen=True)
class Ground:
    """A model from which sets are measured. `removed`: what it lacks already."""

    model: BlockModel
    objective: Objective
    removed: RemovedSet = frozenset()


class Grounds:
    """The model as the last decision left it, and models with a repair of their own.

    opened: the objective on a model. default: the correction that is meant where none is named;
    fit_windows: on which it is fitted.
    """

    def __init__(
        self,
        model: BlockModel,
        fit_windows: CalibrationSet,
        default: str,
        opened: Opened,
        *,
        memory_bytes: int,
    ) -> None:
        self._model, self._windows = model, fit_windows
        self._default, self._opened, self._memory = default, opened, memory_bytes
        self.present = Ground(model, opened(model))
        # Those that were fitted since the last decision: it takes one of them.
        self._fitted: dict[tuple[RemovedSet, str], Ground] = {}
        self._made = ""

    def label(self, repair: str | None) -> str:
        """The correction that is meant, with its settings; empty for none."""
        label = self._default if repair == "" else repair or ""
        return "" if label == NO_CORRECTION else label

    def objective(self, repair: str | None) -> Objective:
        """What sets are measured by: as they are from here, or each with a repair of its own."""
        return _FromHere(self) if repair is None else _Repaired(self, repair)

    def ground(self, removed: RemovedSet, repair: str) -> Making:
        """The model without `removed` and with a repair fitted to that."""
        label = self.label(repair)
        if (removed, label) not in self._fitted:
            plan = PruningPlan(tuple(sorted(removed)))
            model: BlockModel = RepairedModel(self._model, plan)
            if label:
                correction = parse_method(CORRECTIONS, label)
                events = passing(
                    fit(self._model, plan, correction, self._windows, memory_bytes=self._memory)
                )
                model = repaired_model(self._model, (yield from _stepping(events)))
            self._fitted[removed, label] = Ground(model, self._opened(model), removed)
        return self._fitted[removed, label]

    def settle(self, chosen: Chosen) -> Generator[None, None, None]:
        """From now on sets are measured in the model of this decision."""
        if chosen.repair is None:
            return
        self.present = yield from self.ground(chosen.parts, chosen.repair)
        self._made = self.name_of(chosen.parts, chosen.repair)
        self._fitted.clear()

    @property
    def here(self) -> str:
        """What tells values that were measured from here from others; empty at the beginning."""
        return self._made

    def name_of(self, removed: RemovedSet, repair: str) -> str:
        """A short name of a set with a repair fitted on this text."""
        what = [self.label(repair), self._windows.origin.token_hash, *map(str, sorted(removed))]
        return hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]


def _stepping(events: Generator) -> Generator:
    """The same without what the steps say: between them the caller may do something else."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value
        yield


class _FromHere:
    """Sets that hold what is gone already, in the model as the last decision left it."""

    def __init__(self, grounds: Grounds) -> None:
        self._ground, plain = grounds.present, grounds.present.objective
        self.label, self.unit_label, self.is_exact = plain.label, plain.unit_label, plain.is_exact
        tail = f"@{grounds.here}" if grounds.here else ""
        self.names = tuple(f"{name}{tail}" for name in plain.names)

    def __len__(self) -> int:
        return len(self.names)

    def values(self, sets: Sequence[RemovedSet], windows: Sequence[int]) -> Values:
        gone = self._ground.removed
        if not all(gone <= removed for removed in sets):
            raise ValueError("what was decided to go is no longer asked about")
        return (yield from self._ground.objective.values([s - gone for s in sets], windows))

    def number(self, mean: float) -> float:
        return self._ground.objective.number(mean)


class _Repaired:
    """Every set in a model of its own, with a repair fitted to it."""

    def __init__(self, grounds: Grounds, repair: str) -> None:
        self._grounds, self._repair = grounds, repair
        plain = grounds.present.objective
        self.label, self.unit_label, self.is_exact = plain.label, plain.unit_label, plain.is_exact
        tail = grounds.name_of(frozenset(), repair)
        self.names = tuple(f"{name}+{tail}" for name in plain.names)

    def __len__(self) -> int:
        return len(self.names)

    def values(self, sets: Sequence[RemovedSet], windows: Sequence[int]) -> Values:
        found = np.empty((len(sets), len(windows)))
        for row, removed in zip(found, sets, strict=True):
            ground = yield from self._grounds.ground(removed, self._repair)
            row[:] = (yield from ground.objective.values([frozenset()], windows))[0]
        return found

    def number(self, mean: float) -> float:
        return self._grounds.present.objective.number(mean)
