"""What a search, pairs, corrections, a comparison or an export has come to, during and after."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blockviz.session import JobView, Visitor

if TYPE_CHECKING:
    from blockviz.session import Engine
    from blockviz.types import ModelInfo
    from blockviz.ui.screen import Update

MOST_SEARCHES = MOST_REPAIRS = MOST_COMPARISONS = 8
KINDS = ("search", "pairs", "repair", "compare", "export")


def is_of(result: Any, info: ModelInfo) -> bool:
    """Whether something was measured on this model; `result` is anything with a provenance."""
    return (result.provenance.model, result.provenance.revision) == (info.name, info.revision)


def found(job: JobView | None) -> tuple[str, str] | None:
    """(one of KINDS, key) of what a job has found, whole or so far."""
    result = (job.result or job.partial) if job else None
    for kind in KINDS:
        if isinstance(result, dict) and isinstance(result.get(f"{kind}_key"), str):
            return kind, result[f"{kind}_key"]
    return None


def with_found(engine: Engine, visitor: Visitor, job: JobView | None) -> Visitor:
    """The visitor on what a job has found; the same one where that is nothing new."""
    kind, key = found(job) or ("", "")
    if kind == "search" and visitor.searches[-1:] != (key,) and engine.search_run(key):
        others = (s for s in visitor.searches if s != key)
        return replace(visitor, searches=(*others, key)[-MOST_SEARCHES:])
    if kind == "pairs" and visitor.pairs_key != key and engine.interactions(key):
        return replace(visitor, pairs_key=key)
    if kind == "repair" and visitor.repairs[-1:] != (key,) and engine.repair_table(key):
        others = (r for r in visitor.repairs if r != key)
        return replace(visitor, repairs=(*others, key)[-MOST_REPAIRS:])
    if kind == "compare" and visitor.comparisons[-1:] != (key,) and engine.comparison(key):
        others = (c for c in visitor.comparisons if c != key)
        return replace(visitor, comparisons=(*others, key)[-MOST_COMPARISONS:])
    if kind == "export" and visitor.export_key != key and engine.exported(key):
        return replace(visitor, export_key=key)
    return visitor


def step_of(engine: Engine, job: JobView | None) -> Update:
    """How far what a job finds has come: the page draws it anew when this changes."""
    kind, key = found(job) or ("", "")
    run = engine.search_run(key) if kind == "search" else None
    pairs = engine.interactions(key) if kind == "pairs" else None
    table = engine.repair_table(key) if kind == "repair" else None
    columns = engine.comparison(key) if kind == "compare" else None
    written = engine.exported(key) if kind == "export" else None
    sizes = (run and len(run.steps), pairs and len(pairs.pairs), table and len(table.rows),
             columns and 1 + len(columns.columns),
             written and 1 + len(written.report.rows))  # fmt: skip
    size = next(filter(None, sizes), 0)
    return {"found": kind, "step": f"{key} {size}"} if size else {}
