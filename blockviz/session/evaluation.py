"""The report of a plan: original and pruned on the same evaluation text."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from blockviz.data import check_tasks, load_tasks
from blockviz.data.pairs import special_prefix
from blockviz.errors import BadInput
from blockviz.evaluate import ChoiceResult, Perplexity, measure_perplexity, score_choices
from blockviz.models.model import BlockModel
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.views import ScoreRequest, Sizes
from blockviz.types import (
    CalibrationSet,
    Done,
    Events,
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
) -> Events:
    """Done(report): rows[0] the original, rows[1] the plan if there is one.

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
    if tasks:
        special_prefix(model.tokenizer, add_bos=add_bos)
    windows = yield from passing(open_windows(model, request, "evaluation"))
    rows: list[Row] = []
    plans = [PruningPlan()] + ([plan] if plan is not None and plan.removed else [])
    for one in plans:
        events = _measured(model, windows, one, tasks, rows, add_bos=add_bos)
        rows.append((yield from passing(events)))
    yield Done(report_of(model, windows, rows))


def _measured(
    model: BlockModel,
    windows: CalibrationSet,
    plan: PruningPlan,
    tasks: Sequence[TaskSet],
    rows: Sequence[Row],
    *,
    add_bos: bool | None,
) -> Events:
    """Done(row of `plan`); each Progress carries the report so far: `rows`, and this one's part."""
    baseline = rows[0] if rows else None

    def report(*more: Row) -> Mapping[str, Any] | None:
        whole = [*rows, *more]
        return {**report_of(model, windows, whole), "partial": True} if whole else None

    events = measure_perplexity(model, windows, removed=plan.removed)
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Done):
                before = baseline["_perplexity"] if baseline else None
                row = row_of(model, windows, plan, event.result, before)
            else:
                yield replace(event, partial=report())
    for task in tasks:
        events = score_choices(model, task, removed=plan.removed, add_bos=add_bos)
        with contextlib.closing(events):
            for event in events:
                found = event.result if isinstance(event, Done) else event.partial
                now = row if found is None else with_task(row, found, baseline)
                if isinstance(event, Done):
                    row = now
                else:
                    yield replace(event, partial=report(now))
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


def row_of(
    model: BlockModel,
    windows: CalibrationSet,
    plan: PruningPlan,
    found: Perplexity,
    baseline: Perplexity | None,
) -> Row:
    """One row of the report; what begins with `_` is for the next row's paired errors only."""
    sizes = Sizes.of(model.info, plan)
    row = {
        "variant": "pruned" if plan.removed else "original",
        "correction": "none",
        "removed": [str(b) for b in plan.removed],
        "perplexity": {
            "value": found.value,
            "stderr": found.stderr,
            "n_tokens": found.n_tokens,
            "data": windows.origin.describe(),
        },
        "tasks": {},
        "params": {
            "total": sizes.n_parameters,
            "removed_ratio": sizes.removed_ratio,
            "stored_ratio": None,  # what a file would save depends on the export mode
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


def report_of(model: BlockModel, windows: CalibrationSet, rows: Sequence[Row]) -> Mapping[str, Any]:
    """The JSON object of a report."""
    return {
        "schema": "blockviz/report/1",
        "provenance": provenance_of(model, windows.origin).to_json(),
        "rows": [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows],
    }
