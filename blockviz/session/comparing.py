"""Original, plan and repaired plan side by side: perplexity, text and size of each, in turn."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from blockviz.corrections import Correction, Repair, repaired_model
from blockviz.data import overlap_warning
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.evaluate import (
    Perplexity,
    check_questions,
    measure_perplexity,
    score_choices,
)
from blockviz.models.generate import continue_greedily
from blockviz.models.model import BlockModel
from blockviz.session.columns import answers_of, kept_pieces, questions_of, sized, timing_of
from blockviz.session.compare_views import CompareRequest
from blockviz.session.evaluation import open_tasks
from blockviz.session.fitted_repairs import FittedRepairs
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.refusals import check_fit, check_score
from blockviz.session.repair_space import check_repair, parse_corrections
from blockviz.session.repairing import FitWindows, added_by, fitted, no_number, open_fit_windows
from blockviz.session.speeding import SpeedRequest, skipping, time_rows
from blockviz.session.views import Limits
from blockviz.session.writing import checked_prompt
from blockviz.types import (
    BlockId,
    CalibrationSet,
    Comparison,
    ComparisonColumn,
    Done,
    Events,
    Progress,
    PruningPlan,
    TaskSet,
    passing,
)

MOST_CORRECTIONS = 2
SPEED = SpeedRequest(repeats=5, n_prompt=64, n_new=64)


def check_compare(model: BlockModel, request: CompareRequest, limits: Limits) -> list[int]:
    """The prompt's token ids; a refusal where the request cannot be run or is over a limit."""
    repair = request.repair
    found = parse_corrections(repair.corrections)
    if len(found) > MOST_CORRECTIONS:
        raise BadInput(
            f"The corrections {', '.join(found)} were to be compared.",
            f"At most {MOST_CORRECTIONS} have a column.",
            "Name fewer, or fit them all side by side as a table of corrections.",
        )
    if found:
        check_repair(repair)
    if not repair.plan.removed:
        raise BadInput(
            "A plan was to be compared with the original.",
            "The plan removes nothing.",
            "Give a plan with at least one removed block.",
        )
    repair.plan.check(model.info)
    check_fit(limits, repair)
    for task in request.tasks:
        check_score(limits, replace(repair.evaluation, tasks=task, limit=request.limit))
    for value, least, what in (
        (repair.evaluation.seq_len, 2, "tokens in a window to measure on"),
        (request.max_new_tokens, 1, "new tokens"),
    ):
        if value < least:
            raise BadInput(
                f"{value} {what} were asked for.", f"The least is {least}.", "Ask for more."
            )
    n_new = request.max_new_tokens
    ids = checked_prompt(
        model, request.prompt, limits, max_new_tokens=n_new, is_chat=request.is_chat
    )
    if len(ids) + n_new > model.info.max_seq_len:
        raise BadInput(
            f"{n_new} tokens after a prompt of {len(ids)} were asked for.",
            f"{model.info.name} reads at most {model.info.max_seq_len} tokens.",
            "Shorten the prompt or ask for fewer tokens.",
        )
    return ids


def compare_request(
    model: BlockModel,
    request: CompareRequest,
    limits: Limits | None = None,
    known: FittedRepairs | None = None,
) -> Events:
    """Done(Comparison) of a request; a partial one at the start and after every column.

    A repair that is in `known` is not fitted again.
    """
    ids = check_compare(model, request, limits or Limits())
    windows: FitWindows | None = None
    if parse_corrections(request.repair.corrections):
        windows = yield from passing(open_fit_windows(model, request.repair))
    tasks = yield from passing(open_tasks(request.tasks, limit=request.limit))
    for task in tasks:
        check_questions(model, task)
    evaluation = yield from passing(open_windows(model, request.repair.evaluation, "evaluation"))
    yield from compare_windows(model, request, ids, windows, evaluation, tasks, known)


def compare_windows(
    model: BlockModel,
    request: CompareRequest,
    ids: list[int],
    windows: FitWindows | None,
    evaluation: CalibrationSet,
    tasks: Sequence[TaskSet] = (),
    known: FittedRepairs | None = None,
) -> Events:
    """Done(Comparison) on given windows, prompt tokens and tasks; windows None: nothing is fitted.

    A correction that this model cannot have becomes a column that says why.
    """
    corrections = parse_corrections(request.repair.corrections) if windows else {}
    warning = overlap_warning(windows.fit, evaluation) if windows else ""
    run = _Run(model, request, ids, corrections, windows, evaluation, tasks, warning, known)
    yield from run.events()


# Steps in between, as Progress; at the end a value.
Running = Generator[Progress, None, Any]


@dataclass
class _Run:
    """The columns so far."""

    model: BlockModel
    request: CompareRequest
    ids: list[int]
    corrections: dict[str, Correction]
    windows: FitWindows | None
    evaluation: CalibrationSet
    tasks: Sequence[TaskSet]
    warning: str
    known: FittedRepairs | None = None
    columns: list[ComparisonColumn] = field(default_factory=list)
    # What each column is run as when it is timed.
    modules: dict[str, nn.Module] = field(default_factory=dict)
    pieces: tuple[tuple[str, ...], ...] = ()
    timed: str = ""
    n_tokens: int = 0
    n_predicted: int = 0

    def events(self) -> Events:
        self.pieces = kept_pieces(self.model, self.evaluation)
        yield self._progress("comparing")
        bare = (("original", "Original", ()), ("none", "Pruned", self.request.repair.plan.removed))
        for label, title, removed in bare:
            column = ComparisonColumn(label, title)
            found = sized(column, self.model.info, self.model, removed, removed=removed)
            yield from self._finished(found, self.model, removed)
        for label, correction in self.corrections.items():
            empty = ComparisonColumn(label, correction.title, folds=correction.folds)
            try:
                yield from self._repaired(empty, correction)
            except (UnsupportedModel, BadInput) as refusal:
                self.columns.append(replace(empty, refused=str(refusal)))
                yield self._progress(f"compared {label}")
        if self.request.is_timed and self.modules:
            yield from self._timed()
        yield Done(self.comparison(is_partial=False))

    def _repaired(self, empty: ComparisonColumn, correction: Correction) -> Running:
        """Puts the column of a correction beside the others."""
        events = fitted(self.model, self.request.repair, correction, self.windows, self.known)
        repair: Repair = yield from self._told(events, f"fitting {empty.label}")
        repaired = repaired_model(self.model, repair)
        self.n_tokens = max(self.n_tokens, repair.n_tokens)
        named = replace(empty, n_added=added_by(repair, repaired), notes=repair.notes)
        plan, revived = repair.plan.removed, repaired.revived
        found = sized(named, self.model.info, repaired, plan, revived=revived)
        yield from self._finished(found, repaired, ())

    def _finished(
        self, column: ComparisonColumn, model: BlockModel, removed: tuple[BlockId, ...]
    ) -> Running:
        """Puts the column beside the others, with what is measured of it."""
        events = measure_perplexity(
            model, self.evaluation, removed=removed, n_kept=len(self.pieces)
        )
        found: Perplexity = yield from self._told(events, f"measuring {column.label}")
        self.n_predicted = found.n_tokens
        if all(map(math.isfinite, found.window_nll)):
            text = yield from self._written(column.label, model, removed)
            answers = yield from self._answered(column.label, model, removed)
            tokens = tuple(tuple(round(nll, 4) for nll in row) for row in found.token_nll)
            self.columns.append(
                replace(
                    column,
                    window_nll=found.window_nll,
                    token_nll=tokens,
                    text=text,
                    answers=answers,
                )
            )
            if self.request.is_timed:
                self.modules[column.label] = skipping(model, PruningPlan(removed))
        else:
            is_bare = column.label in ("original", "none")
            reason = _not_finite(column.title) if is_bare else no_number(column.label)
            self.columns.append(replace(column, refused=reason))
        yield self._progress(f"compared {column.label}")

    def _written(self, label: str, model: BlockModel, removed: tuple[BlockId, ...]) -> Running:
        """The text of a variant."""
        text, n_new = "", self.request.max_new_tokens
        texts = continue_greedily(model, self.ids, removed=removed, max_new_tokens=n_new)
        with contextlib.closing(texts):
            for n, so_far in enumerate(texts, 1):
                text = so_far
                yield Progress(f"writing, {label}", n, n_new, self._place())
        return text

    def _answered(self, label: str, model: BlockModel, removed: tuple[BlockId, ...]) -> Running:
        """Task -> what a variant answers."""
        answers = {}
        for task in self.tasks:
            events = score_choices(model, task, removed=removed)
            found = yield from self._told(events, f"asking {task.name}, {label}")
            answers[task.name] = answers_of(found)
        return answers

    def _timed(self) -> Running:
        """Times the columns in turns, so that a machine that slows down slows all of them."""
        found = yield from self._told(time_rows(self.model, self.modules, SPEED), "timing")
        self.columns = [
            replace(c, timing=timing_of(found[c.label])) if c.label in found else c
            for c in self.columns
        ]
        self.timed = (
            f"{SPEED.n_new} tokens after a prompt of {SPEED.n_prompt}, one text at a time, the "
            f"median of {SPEED.repeats} turns on {self.model.info.device}"
        )

    def _told(self, events: Events, stage: str) -> Running:
        """The result of `events`; its steps under another name, without what they carry."""
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Done):
                    return event.result
                yield replace(event, stage=stage, note=self._place(), partial=None)
        raise RuntimeError("the task ended without a result")

    def _progress(self, stage: str) -> Progress:
        done, total = len(self.columns), len(self._asked())
        return Progress(stage, done, total, partial=self.comparison(is_partial=True))

    def _place(self) -> str:
        return f"{len(self.columns)} of {len(self._asked())} columns done"

    def _asked(self) -> tuple[str, ...]:
        return "original", "none", *self.corrections

    def comparison(self, *, is_partial: bool) -> Comparison:
        return Comparison(
            provenance=provenance_of(self.model, self.windows.fit.origin if self.windows else None),
            evaluation=provenance_of(self.model, self.evaluation.origin),
            removed=self.request.repair.plan.removed,
            asked=self._asked(),
            columns=tuple(self.columns),
            prompt=self.request.prompt,
            max_new_tokens=self.request.max_new_tokens,
            is_chat=self.request.is_chat,
            n_tokens=self.n_tokens,
            n_predicted=self.n_predicted,
            settings=self.request.settings,
            warning=self.warning,
            is_partial=is_partial,
            pieces=self.pieces,
            questions=questions_of(self.tasks),
            timed=self.timed,
        )


def _not_finite(title: str) -> str:
    return (
        f"The perplexity of the {title.lower()} model was to be measured. It is no number. Load "
        "the model in float32, or remove fewer blocks."
    )
