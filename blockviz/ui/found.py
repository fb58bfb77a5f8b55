"""What a search or the measuring of pairs has found, while it runs and after it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blockviz.session import JobView, Visitor

if TYPE_CHECKING:
    from blockviz.session import Engine
    from blockviz.ui.screen import Update

MOST_SEARCHES = 8


def found(job: JobView | None) -> tuple[str, str] | None:
    """("search" or "pairs", key) of what a job has found, whole or so far."""
    result = (job.result or job.partial) if job else None
    for kind in ("search", "pairs"):
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
    return visitor


def step_of(engine: Engine, job: JobView | None) -> Update:
    """How far a search or pairs have come: the page draws them anew when this changes."""
    kind, key = found(job) or ("", "")
    run = engine.search_run(key) if kind == "search" else None
    pairs = engine.interactions(key) if kind == "pairs" else None
    size = len(run.steps) if run else len(pairs.pairs) if pairs else 0
    return {"found": kind, "step": f"{key} {size}"} if size else {}
