"""What a search, pairs, corrections, a comparison or an export has come to, during and after."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blockviz.session import JobView, Visitor
from blockviz.session.recipe_file import search_to_json
from blockviz.types import parts_of

if TYPE_CHECKING:
    from blockviz.session import Engine
    from blockviz.types import ModelInfo
    from blockviz.ui.screen import Update

MOST_SEARCHES = MOST_REPAIRS = MOST_COMPARISONS = 8
EXAMPLE = "example"
NAMES = {
    "tables": ("table of scores", "tables of scores"),
    "table_key": ("table of scores", "tables of scores"),
    "searches": ("search", "searches"),
    "repairs": ("repair", "repairs"),
    "comparisons": ("comparison", "comparisons"),
    "pairs_key": ("measurement of pairs", "measurements of pairs"),
    "judgement_key": ("measurement of cuts", "measurements of cuts"),
    "export_key": ("export", "exports"),
}
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


def search_of(engine: Engine, visitor: Visitor) -> dict[str, Any]:
    """Which search of this visitor found the plan, the newest first, for a recipe; else empty."""
    wanted = parts_of(visitor.plan().removed)
    for key in reversed(visitor.searches):
        run = engine.search_run(key)
        steps = run.steps if run is not None and is_of(run, engine.info) else ()
        for n, step in enumerate(steps, 1):
            if wanted and parts_of(step.removed) == wanted:
                return search_to_json(run, n)
    return {}


def without_dropped(engine: Engine, visitor: Visitor) -> tuple[Visitor, str]:
    """The visitor without the results that are not kept any more, and which those were, in words.

    The example's are never dropped: they are of a model, and there again with it."""
    finders = {
        "tables": engine.table,
        "searches": engine.search_run,
        "repairs": engine.repair_table,
        "comparisons": engine.comparison,
    }
    changes: dict[str, Any] = {}
    lost = {}
    for name, find in finders.items():
        keys = getattr(visitor, name)
        there = tuple(k for k in keys if k == EXAMPLE or find(k) is not None)
        if there != keys:
            lost[name], changes[name] = len(keys) - len(there), there
    single = {"table_key": engine.table, "pairs_key": engine.interactions,
              "judgement_key": engine.judgement, "export_key": engine.exported}  # fmt: skip
    for name, find in single.items():
        key = getattr(visitor, name)
        if key not in ("", EXAMPLE) and find(key) is None:
            lost[name] = 1
            changes[name] = "" if name == "export_key" else EXAMPLE
    if not lost:
        return visitor, ""
    if changes.get("table_key") and engine.table(EXAMPLE) is None:
        changes["table_key"] = ""
    if "table_key" in lost:
        lost.pop("tables", None)
    named = ", ".join(f"{n} {NAMES[name][n > 1]}" for name, n in lost.items())
    said = (
        f"The page was to show all of your results. {named} "
        f"{'was' if sum(lost.values()) == 1 else 'were'} dropped, not having been looked at for "
        "too long. Start them again to have them back."
    )
    return replace(visitor, **changes), said


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
