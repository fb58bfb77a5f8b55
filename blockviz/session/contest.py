"""A contest: every recipe with its own repair, at one size, on the same texts."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blockviz.corrections import CORRECTIONS, fit, repaired_model
from blockviz.data import load_tasks
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.evaluate import (
    Perplexity,
    check_questions,
    measure_perplexity,
    score_choices,
)
from blockviz.export import stock_parameters
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel
from blockviz.session.columns import answers_of
from blockviz.session.contest_space import (
    ASKED,
    Texts,
    check_contest,
    draw_texts,
    is_same_contest,
    search_of,
    size_of,
    strategies_of,
)
from blockviz.session.contest_views import ContestRequest, Entrant, entrants
from blockviz.session.ledger import Ledger
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.searching import search_windows
from blockviz.settings import parse_method
from blockviz.types import (
    Answered,
    BlockId,
    CalibrationSet,
    Contest,
    Done,
    Entry,
    Events,
    Progress,
    PruningPlan,
    SearchRun,
    SearchStep,
    TaskSet,
    passing,
)

Running = Generator[Progress, None, Any]


def contest_request(
    model: BlockModel, request: ContestRequest, known: Contest | None = None
) -> Events:
    """Done(Contest); a partial one after every entry.

    known: an earlier run. If it was the same contest all its entries are kept, and what they lack
    of the tasks is asked.
    """
    check_contest(request, model.info)
    evaluation = yield from passing(open_windows(model, request.evaluation, "evaluation"))
    tasks = []
    for name in request.tasks:
        tasks.append((yield from passing(load_tasks(name, limit=request.limit))))
        check_questions(model, tasks[-1])
    provenance = provenance_of(model, evaluation.origin)
    entries, settings = [], request.settings()
    if known is not None and is_same_contest(known, request, provenance):
        entries = list(known.entries)
        if not tasks:
            settings |= {name: known.settings[name] for name in ASKED}
        elif known.settings["limit"] != request.limit:
            entries = [replace(e, tasks={}) for e in entries]
    yield from _Run(model, request, settings, evaluation, tasks).events(entries)


@dataclass
class _Run:
    """The entries so far."""

    model: BlockModel
    request: ContestRequest
    settings: Mapping[str, Any]
    evaluation: CalibrationSet
    tasks: Sequence[TaskSet]
    entries: list[Entry] = field(default_factory=list)
    whole: Perplexity | None = None

    def events(self, known: Sequence[Entry]) -> Events:
        found = check_contest(self.request, self.model.info)
        self.whole = yield from self._told(measure_perplexity(self.model, self.evaluation), "whole")
        original = next((e for e in known if not e.draw), Entry("original", "Original", 0))
        self.entries = [original, *(e for e in known if e.draw)]
        if not original.n_parameters or self._lacks(original):
            self.entries[0] = yield from self._measured(original, self.model, ())
        for draw in self.request.draws:
            yield from self._draw(draw, found)
        yield Done(self.contest(is_partial=False))

    def _draw(self, draw: int, found: Sequence[Entrant]) -> Running:
        """What is missing of a draw, entry by entry."""
        here = {e.name: i for i, e in enumerate(self.entries) if e.draw == draw}
        wanted = [e for e in found if e.name not in here or self._lacks(self.entries[here[e.name]])]
        if not wanted:
            return
        texts: Texts = yield from self._told(draw_texts(self.model, self.request, draw), "reading")
        ledgers: dict[str, Ledger] = {}
        for entrant in wanted:
            if entrant.name not in here:
                self.entries.append((yield from self._entry(entrant, draw, texts, ledgers)))
            else:
                at = here[entrant.name]
                self.entries[at] = yield from self._asked(self.entries[at], texts)
            yield self._progress(f"{entrant.name}, draw {draw}", partial=True)

    def _lacks(self, entry: Entry) -> bool:
        """Whether a task is to be asked that was not when the entry was made."""
        return not entry.refused and any(task.name not in entry.tasks for task in self.tasks)

    def _asked(self, entry: Entry, texts: Texts) -> Running:
        """An earlier entry with the tasks: its repair is fitted again, as it was."""
        plan = PruningPlan(entry.removed)
        model = yield from self._fitted(plan, entry.repair, texts, entry.name)
        return (yield from self._measured(entry, model, entry.removed))

    def _fitted(self, plan: PruningPlan, label: str, texts: Texts, name: str) -> Running:
        """The plan with this repair; an empty label is none."""
        if not label:
            return RepairedModel(self.model, plan)
        events = fit(
            self.model,
            plan,
            parse_method(CORRECTIONS, label),
            texts.fit,
            held=texts.held,
            memory_bytes=self.request.memory_bytes,
        )
        return repaired_model(self.model, (yield from self._told(events, f"{name}: {label}")))

    def _entry(
        self, entrant: Entrant, draw: int, texts: Texts, ledgers: dict[str, Ledger]
    ) -> Running:
        entry = Entry(entrant.name, entrant.title, draw)
        best: tuple[float, Entry, BlockModel] | None = None
        seconds = [0.0, 0.0]
        for settings in entrant.searches:
            layers, is_small = self.request.layers, False
            try:
                while not is_small:
                    started = time.monotonic()
                    step = yield from self._searched(
                        entrant, settings, draw, texts, ledgers, layers
                    )
                    searched = time.monotonic()
                    held, repair, model = yield from self._repaired(
                        entrant, step, texts, is_alone=len(entrant.searches) == 1
                    )
                    seconds[0] += searched - started
                    seconds[1] += time.monotonic() - searched
                    layers, is_small = layers + 1, self._is_small(step.removed, model)
            except (UnsupportedModel, BadInput) as refusal:
                entry = replace(entry, refused=str(refusal))
                continue
            if best is None or held < best[0]:
                best = held, replace(entry, removed=step.removed, repair=repair, refused=""), model
        if best is None:
            return entry
        _, entry, model = best
        bare = yield from self._told(
            measure_perplexity(self.model, self.evaluation, removed=entry.removed), entrant.name
        )
        entry = replace(
            entry,
            bare=bare.nll,
            search_seconds=round(seconds[0], 3),
            repair_seconds=round(seconds[1], 3),
        )
        return (yield from self._measured(entry, model, entry.removed))

    def _searched(
        self,
        entrant: Entrant,
        settings: Mapping[str, Any],
        draw: int,
        texts: Texts,
        ledgers: dict[str, Ledger],
        layers: int,
    ) -> Running:
        """The last step of a search of an entrant; BadInput where it does not go far enough."""
        info = self.model.info
        request = search_of(entrant, settings, replace(self.request, layers=layers), info, draw)
        tried, fit_on = strategies_of(request), texts.for_search(request.repair_samples)
        enough: SearchStep | None = None
        # Halving: a looser threshold ends no earlier than a stricter one.
        while tried:
            middle = (len(tried) - 1) // 2
            asked = replace(request, strategy=tried[middle])
            ledger = ledgers.setdefault(asked.objective, Ledger())
            run: SearchRun = yield from self._told(
                search_windows(self.model, texts.search, asked, ledger, fit_windows=fit_on),
                entrant.name,
            )
            step = run.best
            gone = info.parameters_of(step.removed) if step else 0
            if gone >= size_of(info, layers) or (step and request.unit == "layer"
                    and len(step.removed) >= layers):  # fmt: skip
                enough, tried = step, tried[:middle]
            else:
                tried = tried[middle + 1 :]
        if enough is not None:
            return enough
        raise BadInput(
            f"{entrant.title} was to remove as much as {layers} layers hold.",
            "It ends before that.",
            "Ask for fewer layers.",
        )

    def _repaired(
        self, entrant: Entrant, step: SearchStep, texts: Texts, *, is_alone: bool
    ) -> Generator[Progress, None, tuple[float, str, RepairedModel]]:
        """(loss on held-out windows, the repair with the lowest, the model with it).

        is_alone: nothing is to be held against it, so that one repair needs no loss.
        """
        plan, own = PruningPlan(step.removed), step.repair
        labels = (own,) if own.startswith("merge") else entrant.repairs
        if not labels and is_alone:
            return 0.0, "", RepairedModel(self.model, plan)
        best: tuple[float, str, RepairedModel] | None = None
        for label in labels or ("",):
            model = yield from self._fitted(plan, label, texts, entrant.name)
            held = yield from self._told(measure_perplexity(model, texts.held), entrant.name)
            if best is None or held.nll < best[0]:
                best = held.nll, label, model
        return best

    def _is_small(self, removed: tuple[BlockId, ...], model: RepairedModel) -> bool:
        """Whether the repair stores less than a block beyond the size that is asked for."""
        info = self.model.info
        beyond = size_of(info, self.request.layers) - info.parameters_of(removed) + model.n_added
        return beyond < min(block.n_parameters for block in info.blocks)

    def _measured(self, entry: Entry, model: BlockModel, removed: tuple[BlockId, ...]) -> Running:
        """The entry with its numbers: perplexity on the evaluation text, and every task."""
        found: Perplexity = yield from self._told(
            measure_perplexity(model, self.evaluation), entry.name
        )
        answers: dict[str, Answered] = {}
        for task in self.tasks:
            given = yield from self._told(score_choices(model, task), f"{entry.name}: {task.name}")
            said = answers_of(given)
            answers[task.name] = Answered(said.accuracy, said.stderr, given.n)
        info = self.model.info
        added = model.n_added if isinstance(model, RepairedModel) else 0
        return replace(
            entry,
            n_parameters=info.n_parameters - info.parameters_of(removed) + added,
            n_stock=None if added else stock_parameters(self.model, removed),
            nll=found.nll,
            stderr=found.nll_stderr,
            rise=found.nll - self.whole.nll,
            rise_stderr=found.rise_stderr(self.whole),
            tasks=answers,
            refused="" if math.isfinite(found.nll) else "Its perplexity is no number.",
        )

    def _told(self, events: Events, stage: str) -> Running:
        """The result of `events`; its steps under another name, without what they carry."""
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Done):
                    return event.result
                yield replace(event, stage=stage, note=self._place(), partial=None)
        raise RuntimeError("the task ended without a result")

    def _place(self) -> str:
        return f"{len(self.entries)} of {self._n_entries()} entries done"

    def _n_entries(self) -> int:
        """With those that are kept though they were not asked for this time."""
        asked = {(e.name, d) for e in entrants(self.request.names) for d in self.request.draws}
        return len(asked | {(e.name, e.draw) for e in self.entries[1:]}) + 1

    def _progress(self, stage: str, *, partial: bool) -> Progress:
        so_far = self.contest(is_partial=True) if partial else None
        return Progress(stage, len(self.entries), self._n_entries(), self._place(), partial=so_far)

    def contest(self, *, is_partial: bool) -> Contest:
        info = self.model.info
        return Contest(
            evaluation=provenance_of(self.model, self.evaluation.origin),
            n_parameters=info.n_parameters - size_of(info, self.request.layers),
            settings=self.settings,
            entries=tuple(self.entries),
            n_predicted=self.whole.n_tokens if self.whole else 0,
            is_partial=is_partial,
        )
