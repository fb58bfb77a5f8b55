"""The report of a plan: original, pruned and corrected on the same evaluation text."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blockviz.corrections import repaired_model
from blockviz.data import check_tasks, load_tasks, overlap_warning
from blockviz.data.pairs import special_prefix
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.evaluate import (
    ChoiceResult,
    Perplexity,
    check_questions,
    measure_perplexity,
    score_choices,
)
from blockviz.export import stock_parameters
from blockviz.models.model import BlockModel
from blockviz.models.overflow import overflow
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.repair_space import NO_CORRECTION, check_repair
from blockviz.session.repair_views import RepairRequest
from blockviz.session.repairing import FitWindows, added_by, fitted, no_number, open_fit_windows
from blockviz.session.speeding import SpeedRequest, skipping, time_rows
from blockviz.session.views import ScoreRequest, Sizes
from blockviz.types import (
    BlockId,
    CalibrationSet,
    Done,
    Events,
    Progress,
    PruningPlan,
    TaskSet,
    passing,
)

Row = dict[str, Any]


def open_tasks(names: Sequence[str], *, limit: int | None = None) -> Events:
    """Done(tuple of TaskSet) of named tasks and files; what is wrong is refused before a model."""
    check_tasks(tuple(names), limit=limit)
    found = []
    for name in names:
        found.append((yield from passing(load_tasks(name, limit=limit))))
    yield Done(tuple(found))


def evaluate_request(
    model: BlockModel,
    request: ScoreRequest,
    plan: PruningPlan | None,
    tasks: Sequence[TaskSet] = (),
    *,
    add_bos: bool | None = None,
    repair: RepairRequest | None = None,
    speed: SpeedRequest | None = None,
) -> Events:
    """Done(report): rows[0] the original, then the plan if there is one; `speed`: timed as well.

    `repair`: a row for each of its corrections of the plan, the bare plan only if `none` or `all`
    is among them; one that this model cannot have is named with the reason under `refused`.
    `add_bos` is for the tasks: None puts in front of a text what the tokenizer does by default.
    """
    if plan is not None:
        plan.check(model.info)
    if request.seq_len < 2:
        raise BadInput(
            f"Windows of {request.seq_len} tokens were asked for.",
            "A next-token loss needs at least 2.",
            "Raise --seq-len.",
        )
    if speed is not None:
        speed.check()
    if tasks:
        special_prefix(model.tokenizer, add_bos=add_bos)
    for task in tasks:
        check_questions(model, task, add_bos=add_bos)
    windows = yield from passing(open_windows(model, request, "evaluation"))
    report = _Report(model, windows, tasks, add_bos)
    yield from passing(report.row(_Variant(model, PruningPlan())))
    if plan is not None and plan.removed:
        if repair is None or {NO_CORRECTION, "all"} & set(repair.corrections):
            yield from passing(report.row(_Variant(model, plan, plan.removed)))
        if repair is not None:
            yield from passing(report.corrected(replace(repair, plan=plan)))
    if speed is not None:
        yield from passing(report.timed(speed))
    yield Done(report.whole())


@dataclass(frozen=True)
class _Variant:
    """A model that is run without `removed`. correction, n_added: what was put into it; is_stock:
    whether a stock checkpoint can carry that."""

    model: BlockModel
    plan: PruningPlan
    removed: tuple[BlockId, ...] = ()
    correction: str = NO_CORRECTION
    n_added: int = 0
    is_stock: bool = True

    @property
    def label(self) -> str:
        """`original`, `pruned`, or `pruned + asc`."""
        name = "pruned" if self.plan.removed else "original"
        return name if self.correction == NO_CORRECTION else f"{name} + {self.correction}"


@dataclass
class _Report:
    """The rows so far of one model on one text and its tasks."""

    model: BlockModel
    windows: CalibrationSet
    tasks: Sequence[TaskSet]
    add_bos: bool | None
    rows: list[Row] = field(default_factory=list)
    # What each row is run as when it is timed.
    variants: list[_Variant] = field(default_factory=list)
    speeds: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    warning: str = ""

    def whole(self, *more: Row) -> Mapping[str, Any]:
        found = {**report_of(self.model, self.windows, [*self.rows, *more])}
        if self.refused:
            found["refused"] = dict(self.refused)
        if self.warning:
            found["warning"] = self.warning
        if self.speeds:
            found["speed"] = self.speeds
        return found

    def partial(self, *more: Row) -> Mapping[str, Any] | None:
        return {**self.whole(*more), "partial": True} if self.rows or more else None

    def corrected(self, request: RepairRequest) -> Events:
        """Done when there is a row or a refusal for every correction of the request's plan."""
        windows: FitWindows = yield from passing(open_fit_windows(self.model, request))
        self.warning = overlap_warning(windows.fit, self.windows)
        for label, correction in check_repair(request).items():
            try:
                events = fitted(self.model, request, correction, windows)
                repair = yield from self._carried(events)
                repaired = repaired_model(self.model, repair)
            except (UnsupportedModel, BadInput) as refusal:
                self.refused[label] = str(refusal)
                continue
            n_added = added_by(repair, repaired)
            is_stock = bool(correction.folds) and not n_added
            variant = _Variant(repaired, request.plan, (), label, n_added, is_stock)
            yield from passing(self.row(variant))
        yield Done(None)

    def timed(self, request: SpeedRequest) -> Events:
        """Done when every row has its speed; whole exports are entries of `speed` only."""
        modules = {
            variant.label: skipping(variant.model, PruningPlan(variant.removed))
            for variant in self.variants
        }
        events = time_rows(self.model, modules, request)
        self.speeds = yield from self._carried(events)
        for row, variant in zip(self.rows, self.variants, strict=True):
            for name in ("prefill_tokens_per_second", "decode_tokens_per_second"):
                row[name] = self.speeds[variant.label][name]
        yield Done(None)

    def _carried(self, events: Events) -> Generator[Progress, None, Any]:
        """The result of `events`; each Progress carries the report so far."""
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Done):
                    return event.result
                yield replace(event, partial=self.partial())
        raise RuntimeError("the task ended without a result")

    def row(self, variant: _Variant) -> Events:
        """Done when the variant has a row or a refusal; each Progress carries the report so far."""
        baseline = self.rows[0] if self.rows else None
        events = measure_perplexity(variant.model, self.windows, removed=variant.removed)
        found = yield from self._carried(events)
        if variant.correction != NO_CORRECTION and not math.isfinite(found.nll):
            self.refused[variant.correction] = no_number(variant.correction)
            yield Done(None)
            return
        if not math.isfinite(found.nll):
            without = " without these blocks" if variant.plan.removed else ""
            raise overflow(self.model, f"on {self.windows.origin.dataset}{without}")
        before = baseline["_perplexity"] if baseline else None
        row = _row_of(self.model, self.windows, variant, found, before)
        for task in self.tasks:
            events = score_choices(
                variant.model, task, removed=variant.removed, add_bos=self.add_bos
            )
            with contextlib.closing(events):
                for event in events:
                    answers = event.result if isinstance(event, Done) else event.partial
                    now = row if answers is None else with_task(row, answers, baseline)
                    if isinstance(event, Done):
                        row = now
                    else:
                        yield replace(event, partial=self.partial(now))
        self.rows.append(row)
        self.variants.append(variant)
        yield Done(row)


def with_task(row: Row, found: ChoiceResult, baseline: Row | None) -> Row:
    """The row with a task's result; beside the original's, with the paired change of accuracy."""
    entry = found.to_json()
    name = found.tasks.name
    before = baseline["_answers"].get(name) if baseline else None
    if before is not None and before.n == found.n:
        entry["change"], entry["change_stderr"] = found.change_from(before)
    return {
        **row,
        "tasks": {**row["tasks"], name: entry},
        "_answers": {**row["_answers"], name: found},
    }


def _row_of(
    model: BlockModel,
    windows: CalibrationSet,
    variant: _Variant,
    found: Perplexity,
    baseline: Perplexity | None,
) -> Row:
    """One row of the report; what begins with `_` is for the next row's paired errors only."""
    plan = variant.plan
    sizes = Sizes.of(model.info, plan)
    row = {
        "variant": "pruned" if plan.removed else "original",
        "correction": variant.correction,
        "removed": [str(b) for b in plan.removed],
        "perplexity": {
            "value": found.value,
            "stderr": found.stderr,
            "n_tokens": found.n_tokens,
            "data": windows.origin.describe(),
        },
        "tasks": {},
        "params": {
            "total": sizes.n_parameters + variant.n_added,
            "added": variant.n_added,
            "removed_ratio": sizes.removed_ratio - variant.n_added / model.info.n_parameters,
            "stored_ratio": _stored_ratio(model, variant),
        },
        "kv_bytes_per_token": model.info.kv_bytes_per_token(plan.removed),
        "prefill_tokens_per_second": None,
        "decode_tokens_per_second": None,
        "_perplexity": found,
        "_answers": {},
    }
    if baseline is not None:
        row["perplexity"]["log_rise"] = found.nll - baseline.nll
        row["perplexity"]["log_rise_stderr"] = found.rise_stderr(baseline)
    return row


def _stored_ratio(model: BlockModel, variant: _Variant) -> float | None:
    """The share of parameters that a stock checkpoint does without, silent halves counted as kept.

    None where there is no such checkpoint.
    """
    stored = stock_parameters(model, variant.plan.removed) if variant.is_stock else None
    return None if stored is None else 1 - stored / model.info.n_parameters


def report_of(model: BlockModel, windows: CalibrationSet, rows: Sequence[Row]) -> Mapping[str, Any]:
    """The JSON object of a report."""
    return {
        "schema": "blockviz/report/1",
        "provenance": provenance_of(model, windows.origin).to_json(),
        "rows": [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows],
    }
