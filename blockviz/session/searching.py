"""A search on a model: what is asked is checked, measured, raced, and kept."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

from blockviz.data import load_tasks
from blockviz.evaluate import check_questions
from blockviz.memory import SHARE, free_bytes
from blockviz.models.model import BlockModel
from blockviz.search import Look, Space, Strategy, race
from blockviz.session.ledger import Ledger
from blockviz.session.measured import Measured
from blockviz.session.objectives import Objective, open_objective
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.pools import scored
from blockviz.session.processes import ALONE, Shares, shared
from blockviz.session.repaired_search import Grounds
from blockviz.session.search_space import DEFAULT_SCORES, check_search, open_space
from blockviz.session.search_target import too_few, unreached
from blockviz.session.search_text import check_alone, open_fit_text
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
    Rescore,
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
    fit_windows: CalibrationSet | None = None,
) -> Events:
    """Done(SearchRun) on given windows.

    ledger: values of earlier runs, to which those of this one are added; shares: of how many
    processes this is one. fit_windows: on which repairs are fitted, where the search has any; left
    out, they are those of the request's text that come behind its own.
    """
    strategy = check_search(request, model.info)
    memory = request.memory_bytes or int(SHARE * free_bytes() / shares.count)
    tasks = None
    if request.text.tasks:
        tasks = yield from passing(load_tasks(request.text.tasks, limit=request.text.limit))
        check_questions(model, tasks)

    def opened(on: BlockModel) -> Objective:
        return open_objective(
            on,
            windows,
            request,
            tasks,
            memory_bytes=memory,
            own=strategy.objective,
            whole=None if on is model else model,
        )

    objective, grounds = opened(model), None
    if strategy.repair is not None:
        check_alone(shares)
        label = request.with_repair or strategy.repair
        if fit_windows is None:
            fit_windows = yield from passing(open_fit_text(model, windows, request, label))
        grounds = Grounds(model, fit_windows, label, opened, memory_bytes=memory)
    ledger = Ledger() if ledger is None else ledger
    measured = Measured(shared(objective, shares), ledger, grounds)
    (baseline,) = yield from measured.means([frozenset()])
    space = yield from passing(open_space(model, windows, request, strategy, baseline, shares))
    space = replace(space, is_exhaustive=request.is_exhaustive or objective.is_exact)
    provenance = provenance_of(model, windows.origin)
    run = _Run(request, strategy, space, measured, baseline, provenance, windows)
    yield from run.events()


@dataclass
class _Run:
    """One search under way: the strategy asks, races answer, decisions are written down."""

    request: SearchRequest
    strategy: Strategy
    space: Space
    measured: Measured
    baseline: float
    provenance: Provenance
    windows: CalibrationSet
    steps: list[SearchStep] = field(default_factory=list)
    known: dict[RemovedSet, float] = field(default_factory=dict)
    n_settled: int = 0
    # Since the last decision: sets run, sets asked, doubt.
    spent: tuple[float, int, float] = (0.0, 0, 0.0)
    # Of the askings since the last decision, the largest chance of a runner-up.
    rival: float | None = None

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
            if isinstance(said, Rescore):
                told = yield from self._scores(n_sets, said.note)
            elif isinstance(said, Chosen):
                yield from self._settle(said, n_sets)
                self._write_down(said, started)
                started, told = time.monotonic(), None
                yield self._progress(n_sets, f"{len(said.removed)} removed", partial=True)
            else:
                told = yield from self._answer(said, n_sets)

    def _scores(self, n_sets: int, note: str) -> Generator[Progress, None, Mapping[BlockId, float]]:
        """What the units are worth in the model as it is by now."""
        model = self.measured.grounds.present.model
        name = self.request.scores or DEFAULT_SCORES["rescoring"]
        events = passing(scored(model, self.windows, self.request.text, self.request.unit, name))
        while True:
            try:
                next(events)
            except StopIteration as end:
                return end.value.values
            yield self._progress(n_sets, f"{note}: scoring anew")

    def _settle(self, chosen: Chosen, n_sets: int) -> Generator[Progress, None, None]:
        if self.measured.grounds is not None:
            for _ in self.measured.grounds.settle(chosen):
                yield self._progress(n_sets, "repairing what was decided")

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
            measuring = self.measured.values(sets, look.windows, ask.repair)
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
        if math.isfinite(found.rival):
            self.rival = max(self.rival or 0.0, found.rival)
        whole = [i for i, n in enumerate(found.n_seen) if n == n_windows]
        exact = {ask.sets[i]: found.means[i] for i in whole}
        # Raced on the way to a repair, a set is not what it will be with it.
        if ask.repair is not None or self.measured.grounds is None:
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
        grounds = self.measured.grounds
        self.steps.append(
            SearchStep(
                removed=chosen.removed,
                number=number,
                evaluated=round(evaluated, 3),
                of=asked,
                confidence=max(0.0, 1 - doubt),
                seconds=round(time.monotonic() - started, 3),
                repair="" if grounds is None else grounds.label(chosen.repair),
                rival=self.rival,
            )
        )
        self.spent, self.rival = (0.0, 0, 0.0), None

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
            warning=self._warning(is_partial=is_partial),
        )

    def _number(self, mean: float) -> float:
        return self.measured.objective.number(mean)

    def _warning(self, *, is_partial: bool) -> str:
        said = [] if is_partial else [unreached(self.request, self.steps, self.space)]
        said.append(too_few(self.request))
        if self.measured.n_bad:
            n = self.measured.n_bad
            said.append(f"{n} removed sets gave no number and were taken for the worst.")
        return " ".join(filter(None, said))


def _note(ask: Ask, look: Look, n_windows: int) -> str:
    head = f"{ask.note}: " if ask.note else ""
    more = "window" if len(look.windows) == 1 else "windows"
    return f"{head}{len(look.sets)} of {len(ask.sets)} left, {len(look.windows)} {more} more"


def _sorted(removed: RemovedSet) -> tuple[BlockId, ...]:
    return tuple(sorted(removed))


def _parameters(request: SearchRequest) -> dict[str, object]:
    """What was asked beyond text, objective, strategy and unit; what was not set is left out."""
    names = ("blocks", "ratio", "max_ppl_rise", "speedup", "protect_first", "protect_last", "pool",
             "scores", "with_repair", "level", "is_exhaustive", "engine", "preset")  # fmt: skip
    found = {name: getattr(request, name) for name in names}
    if request.with_repair:
        found["repair_samples"] = request.repair_samples
    return {name: value for name, value in found.items() if value not in (None, "", 0, False)}
