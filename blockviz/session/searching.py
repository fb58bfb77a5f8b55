"""A search on a model: what is asked is checked, measured, raced, and kept."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from blockviz.data import load_tasks
from blockviz.memory import SHARE, free_bytes
from blockviz.models.model import BlockModel
from blockviz.search import Look, Space, Strategy, race
from blockviz.session.ledger import Ledger
from blockviz.session.objectives import Objective, open_objective
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.processes import ALONE, Shares, shared
from blockviz.session.search_space import check_search, open_space
from blockviz.session.search_views import SearchRequest
from blockviz.types import (
    Answer,
    Ask,
    BlockId,
    CalibrationSet,
    Chosen,
    Done,
    Events,
    Progress,
    Provenance,
    RemovedSet,
    SearchRun,
    SearchStep,
    passing,
)

# Of the sets that are known exactly, so many of the best are handed over.
MOST_MEASURED = 200


def search_request(
    model: BlockModel,
    request: SearchRequest,
    ledger: Ledger | None = None,
    shares: Shares = ALONE,
) -> Events:
    """Done(SearchRun) of a request; a partial run after every decision."""
    check_search(request, model.info)
    windows = yield from passing(open_windows(model, request.text))
    yield from search_windows(model, windows, request, ledger, shares)


def search_windows(
    model: BlockModel,
    windows: CalibrationSet,
    request: SearchRequest,
    ledger: Ledger | None = None,
    shares: Shares = ALONE,
) -> Events:
    """Done(SearchRun) on given windows.

    ledger: values of earlier runs, to which those of this one are added; shares: of how many
    processes this is one.
    """
    strategy = check_search(request, model.info)
    memory = request.memory_bytes or int(SHARE * free_bytes() / shares.count)
    tasks = None
    if request.text.tasks:
        tasks = yield from passing(load_tasks(request.text.tasks, limit=request.text.limit))
    objective = open_objective(model, windows, request, tasks, memory_bytes=memory)
    measured = Measured(shared(objective, shares), Ledger() if ledger is None else ledger)
    (baseline,) = yield from measured.means([frozenset()])
    space = yield from passing(open_space(model, windows, request, strategy, baseline, shares))
    space = replace(space, is_exhaustive=request.is_exhaustive or objective.is_exact)
    run = _Run(request, strategy, space, measured, baseline, provenance_of(model, windows.origin))
    yield from run.events()


# Steps in between, as Progress; at the end the means of the sets that were asked for.
Means = Generator[Progress, None, list[float]]


class Measured:
    """Window values of removed sets: those known from earlier are not measured again."""

    def __init__(self, objective: Objective, ledger: Ledger) -> None:
        self.objective, self._ledger = objective, ledger
        self.n_windows = len(objective)
        self.n_reused, self.n_bad = 0.0, 0

    def values(
        self, sets: Sequence[RemovedSet], windows: Sequence[int]
    ) -> Generator[None, None, np.ndarray]:
        """(set, window); sets of which every window is known are left out of the measuring."""
        names = [self.objective.names[i] for i in windows]
        found = np.stack([self._ledger.get(removed, names) for removed in sets])
        unknown = [i for i, row in enumerate(found) if np.isnan(row).any()]
        self.n_reused += (len(sets) - len(unknown)) * len(windows) / self.n_windows
        if not unknown:
            return found
        values = yield from self.objective.values([sets[i] for i in unknown], windows)
        for i, row in zip(unknown, values, strict=True):
            found[i] = row
            self._ledger.put(sets[i], names, row)
        self.n_bad += int(np.isnan(values).any(axis=1).sum())
        return found

    def means(self, sets: Sequence[RemovedSet]) -> Means:
        """The mean over all windows of every set."""
        measuring = self.values(sets, range(self.n_windows))
        while True:
            try:
                next(measuring)
            except StopIteration as end:
                return end.value.mean(axis=1).tolist()
            yield Progress("measuring", 0, 0, "whole model")


@dataclass
class _Run:
    """One search under way: the strategy asks, races answer, decisions are written down."""

    request: SearchRequest
    strategy: Strategy
    space: Space
    measured: Measured
    baseline: float
    provenance: Provenance
    steps: list[SearchStep] = field(default_factory=list)
    known: dict[RemovedSet, float] = field(default_factory=dict)
    n_settled: int = 0
    # Since the last decision: sets run, sets asked, doubt.
    spent: tuple[float, int, float] = (0.0, 0, 0.0)

    def events(self) -> Events:
        searching = self.strategy.search(self.space)
        n_sets, told = max(1, self.strategy.n_sets(self.space)), None
        started = time.monotonic()
        while True:
            try:
                said = searching.send(told)
            except StopIteration as end:
                self._end(end.value, started)
                yield Done(self.run(is_partial=False))
                return
            if isinstance(said, Chosen):
                self._write_down(said, started)
                started, told = time.monotonic(), None
                yield self._progress(n_sets, f"{len(said.removed)} removed", partial=True)
            else:
                told = yield from self._answer(said, n_sets)

    def _answer(self, ask: Ask, n_sets: int) -> Generator[Progress, None, Answer]:
        """What a race over the windows says of the sets."""
        racing = race(
            len(ask.sets),
            self.measured.n_windows,
            keep=ask.keep,
            level=self.request.level,
            seed=self.request.text.seed,
            is_exhaustive=self.space.is_exhaustive,
        )
        look, evaluated, n_windows = next(racing), 0.0, self.measured.n_windows
        while True:
            sets = [ask.sets[i] for i in look.sets]
            note = _note(ask, look, n_windows)
            measuring = self.measured.values(sets, look.windows)
            values = None
            while values is None:
                try:
                    next(measuring)
                except StopIteration as end:
                    values = end.value
                yield self._progress(n_sets, note, n_more=ask.of - len(sets))
            # One that this search has on all windows, such as the best so far, costs nothing more.
            n_new = sum(s not in self.known for s in sets)
            evaluated += n_new * len(look.windows) / n_windows
            try:
                look = racing.send(values)
            except StopIteration as end:
                found = end.value
                break
        self.n_settled += ask.of
        spent, asked, doubt = self.spent
        self.spent = spent + evaluated, asked + ask.of, doubt + found.doubt
        whole = [i for i, n in enumerate(found.n_seen) if n == n_windows]
        exact = {ask.sets[i]: found.means[i] for i in whole}
        self.known |= exact
        return Answer(
            best=tuple(ask.sets[i] for i in found.best),
            values=exact,
            gaps=dict(zip(ask.sets, found.gaps, strict=True)),
            evaluated=evaluated,
            of=ask.of,
            doubt=found.doubt,
        )

    def _write_down(self, chosen: Chosen, started: float) -> None:
        number = None if chosen.value is None else self._number(chosen.value)
        evaluated, asked, doubt = self.spent
        self.steps.append(
            SearchStep(
                removed=chosen.removed,
                number=number,
                evaluated=round(evaluated, 3),
                of=asked,
                confidence=max(0.0, 1 - doubt),
                seconds=round(time.monotonic() - started, 3),
            )
        )
        self.spent = (0.0, 0, 0.0)

    def _end(self, last: Chosen, started: float) -> None:
        """What was run for no decision counts with the last one."""
        if not self.steps or self.steps[-1].removed != last.removed:
            self._write_down(last, started)
        (evaluated, asked, doubt), step = self.spent, self.steps[-1]
        self.steps[-1] = replace(
            step,
            evaluated=round(step.evaluated + evaluated, 3),
            of=step.of + asked,
            confidence=max(0.0, step.confidence - doubt),
            seconds=round(step.seconds + (time.monotonic() - started if asked else 0.0), 3),
        )

    def _progress(
        self, n_sets: int, note: str, *, n_more: int = 0, partial: bool = False
    ) -> Progress:
        """`n_more`: sets that the race under way has given up already."""
        so_far = self.run(is_partial=True) if partial else None
        done = min(self.n_settled + max(0, n_more), n_sets)
        return Progress("searching", done, n_sets, note, partial=so_far)

    def run(self, *, is_partial: bool) -> SearchRun:
        """Everything found so far."""
        objective = self.measured.objective
        ordered = {frozenset(p for b in s.removed for p in b.parts): s.removed for s in self.steps}
        best = sorted(self.known, key=self.known.__getitem__)[:MOST_MEASURED]
        return SearchRun(
            provenance=self.provenance,
            objective=objective.label,
            unit_label=objective.unit_label,
            strategy=self.request.strategy,
            unit=self.request.unit,
            baseline=self._number(self.baseline),
            steps=tuple(self.steps),
            measured=tuple(
                (ordered.get(s, _sorted(s)), self._number(self.known[s]))
                for s in best
                if math.isfinite(self.known[s])
            ),
            parameters=_parameters(self.request),
            n_reused=round(self.measured.n_reused),
            is_partial=is_partial,
            warning=self._warning(),
        )

    def _number(self, mean: float) -> float:
        return self.measured.objective.number(mean)

    def _warning(self) -> str:
        if not self.measured.n_bad:
            return ""
        return f"{self.measured.n_bad} removed sets gave no number and were taken for the worst."


def _note(ask: Ask, look: Look, n_windows: int) -> str:
    head = f"{ask.note}: " if ask.note else ""
    more = "window" if len(look.windows) == 1 else "windows"
    return f"{head}{len(look.sets)} of {len(ask.sets)} left, {len(look.windows)} {more} more"


def _sorted(removed: RemovedSet) -> tuple[BlockId, ...]:
    return tuple(sorted(removed))


def _parameters(request: SearchRequest) -> dict[str, object]:
    """What was asked beyond text, objective, strategy and unit; what was not set is left out."""
    names = ("blocks", "ratio", "max_ppl_rise", "speedup", "protect_first", "protect_last", "pool",
             "scores", "level", "is_exhaustive", "engine", "preset")  # fmt: skip
    found = {name: getattr(request, name) for name in names}
    return {name: value for name, value in found.items() if value not in (None, "", 0, False)}
