"""The report of a plan: original and pruned on the same evaluation text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockviz.errors import BadInput
from blockviz.evaluate import Perplexity, measure_perplexity
from blockviz.models.model import BlockModel
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.views import ScoreRequest, Sizes
from blockviz.types import CalibrationSet, Done, Events, Progress, PruningPlan, passing


def evaluate_request(model: BlockModel, request: ScoreRequest, plan: PruningPlan | None) -> Events:
    """Done(report): rows[0] the original, rows[1] the plan if there is one."""
    if plan is not None:
        plan.check(model.info)
    if request.seq_len < 2:
        raise BadInput(
            f"Windows of {request.seq_len} tokens were asked for.",
            "A next-token loss needs at least 2.",
            "Raise --seq-len.",
        )
    windows = yield from passing(open_windows(model, request, "evaluation"))
    rows: list[dict[str, Any]] = []
    plans = [PruningPlan()] + ([plan] if plan is not None and plan.removed else [])
    for one in plans:
        events = measure_perplexity(model, windows, removed=one.removed)
        baseline = rows[0]["_perplexity"] if rows else None
        for event in events:
            if isinstance(event, Done):
                rows.append(row_of(model, windows, one, event.result, baseline))
            else:
                yield _with_report(model, windows, rows, event)
    yield Done(report_of(model, windows, rows))


def _with_report(
    model: BlockModel, windows: CalibrationSet, rows: list[dict[str, Any]], event: Progress
) -> Progress:
    partial = {**report_of(model, windows, rows), "partial": True} if rows else None
    return Progress(event.stage, event.done, event.total, event.note, partial)


def row_of(
    model: BlockModel,
    windows: CalibrationSet,
    plan: PruningPlan,
    found: Perplexity,
    baseline: Perplexity | None,
) -> dict[str, Any]:
    """One row of the report; `_perplexity` is for the next row's paired error and not written."""
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
    }
    if baseline is not None:
        row["perplexity"]["log_rise"] = found.nll - baseline.nll
        row["perplexity"]["log_rise_stderr"] = found.rise_stderr(baseline)
    return row


def report_of(
    model: BlockModel, windows: CalibrationSet, rows: list[dict[str, Any]]
) -> Mapping[str, Any]:
    """The JSON object of a report."""
    return {
        "schema": "blockviz/report/1",
        "provenance": provenance_of(model, windows.origin).to_json(),
        "rows": [{k: v for k, v in row.items() if k != "_perplexity"} for row in rows],
    }
