"""What the Search tab shows of a search: figures, its decisions as a table, and words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from blockviz.plots import search_grid, search_progress, visible
from blockviz.session import JobView, MetricCard, Visitor
from blockviz.session.search_views import Estimate, PresetCard, StrategyCard
from blockviz.types import (
    BlockId,
    ModelInfo,
    PruningPlan,
    SearchRun,
    SearchStep,
    parts_of,
)
from blockviz.ui.figure_card import card_names, card_update
from blockviz.ui.found import is_of
from blockviz.ui.words import UNKNOWN, duration, grouped, percent, rise_between, short

if TYPE_CHECKING:
    from blockviz.session import Engine
    from blockviz.ui.screen import Update

CARDS = ("search_progress", "search_grid")
HEADERS = ("Change", "Parameters", "How sure", "Full reads", "All that is removed")
NO_CANDIDATES: dict[str, Any] = {"key": "", "title": "", "lead": "", "headers": [], "rows": []}
NO_ABOUT = {"text": "", "note": "", "source": "", "address": ""}
EMPTY = "No search of this model yet. Say how far to cut, then press Start search."
OTHER_MODEL = "Another model has been loaded since this was found. Reload the page to search it."


def card_outputs() -> tuple[str, ...]:
    """Every component that a search is drawn into."""
    cards = (name for card in CARDS for name in card_names(card))
    return (*cards, "candidates", "search_note")


def drawn(engine: Engine, visitor: Visitor, key: str, job: JobView | None) -> Update:
    """A search and its decisions; `job`: the one that this browser runs or ran last."""
    run = engine.search_run(key) if key else None
    is_drawn = run is not None and bool(run.steps)
    n_layers = engine.info.n_layers if is_drawn and is_of(run, engine.info) else None
    return {
        **card_update("search_progress", search_progress(run) if is_drawn else None),
        **card_update("search_grid", search_grid(run, n_layers=n_layers) if is_drawn else None),
        "candidates": candidates(engine.info, visitor, key, run) if is_drawn else NO_CANDIDATES,
        "search_note": {"text": state_of(engine, visitor, run, job)},
    }


def state_of(engine: Engine, visitor: Visitor, run: SearchRun | None, job: JobView | None) -> str:
    """Empty, running, partial, stale or failed, in words; nothing where a search is whole."""
    is_searching = job is not None and job.kind == "search" and not job.is_over
    if run is None:
        return "Searching: the first decision is on its way." if is_searching else EMPTY
    said = []
    if visitor.model_key != engine.model_key:
        said.append(OTHER_MODEL)
    elif run.is_partial and is_searching:
        said.append("Searching: this is the best so far. Cancel keeps it.")
    elif run.is_partial:
        has_failed = job is not None and job.kind == "search" and job.state == "failed"
        ended = "The search failed" if has_failed else "The search was stopped before its target"
        said.append(f"Partial. {ended}; its decisions so far are kept and can be applied.")
    if run.n_reused:
        said.append(f"{grouped(run.n_reused)} sets were known from an earlier run.")
    return " ".join((*said, run.warning)).strip()


def candidates(info: ModelInfo, visitor: Visitor, key: str, run: SearchRun) -> dict[str, Any]:
    """The decisions as rows, the last one first; none of a model that is not loaded."""
    if not is_of(run, info):
        return NO_CANDIDATES
    now = parts_of(visitor.plan().removed)
    before = [(), *(step.removed for step in run.steps)]
    rows = []
    for i, step in reversed(list(enumerate(run.steps))):
        parts = parts_of(step.removed)
        number = _number(run, step)
        rows.append({
            "step": i,
            "is_best": i == len(run.steps) - 1,
            "is_applied": parts == now,
            "label": f"Apply this set of {len(step.removed)} to the Map, {run.unit_label} {number}",
            "cells": [
                str(len(step.removed)), number, _change(before[i], step.removed),
                percent(-info.parameters_of(step.removed) / info.n_parameters),
                sure(step.sureness), f"{step.evaluated:.1f} of {grouped(step.of)}",
                named(step.removed),
            ],
        })  # fmt: skip
    repair = run.best.repair if run.best else ""
    with_it = (
        f" Measured with the repair {visible(repair)}, which is not applied." if repair else ""
    )
    data = run.provenance.data
    on = f" on {visible(data.describe(), 120)}" if data else ""
    return {
        "key": key,
        "title": "Candidates",
        "lead": f"One row a decision, the last one first. Nothing removed: {run.unit_label} "
        f"{short(run.baseline)}{on}. Full reads: of an exhaustive search, which reads every set on "
        f"the whole text. How sure: {_sure_of(run)}.{with_it}",
        "headers": ["Gone", _headed(run.unit_label), *HEADERS],
        "rows": rows,
    }


def _sure_of(run: SearchRun) -> str:
    if all(step.rival is None for step in run.steps):
        return "that it would choose the same among the sets that were raced"
    return "that the runner-up would not do better on other windows of this text"


def named(blocks: Sequence[BlockId]) -> str:
    """Block ids for people, in order of removal."""
    return ", ".join(PruningPlan(removed=tuple(blocks)).shown())


def _change(before: Sequence[BlockId], after: Sequence[BlockId]) -> str:
    """What a decision removed, and what it put back."""
    gone = named([b for b in after if b not in before])
    back = named([b for b in before if b not in after])
    return ", ".join(filter(None, (gone, back and f"{back} back"))) or UNKNOWN


def sure(confidence: float) -> str:
    """`99.8 %`; never 100 % for anything less than certain."""
    if confidence >= 1:
        return "100\u202f%"
    return f"{min(100 * confidence, 99.9):.1f}\u202f%"


def choices(engine: Engine, visitor: Visitor) -> list[tuple[str, str]]:
    """(what it was, key) of this visitor's searches that are still kept, the newest first."""
    runs = [(key, engine.search_run(key)) for key in reversed(visitor.searches)]
    return [(titled(engine, run, key), key) for key, run in runs if run is not None]


def titled(engine: Engine, run: SearchRun, key: str) -> str:
    """`Greedy, Perplexity when cut, 12 removed, seed 42`; of the bundled example it says so."""
    facts = [
        _called(run.strategy, engine.strategies()),
        objective_title(engine, run.objective),
        f"{len(run.best.removed) if run.best else 0} removed",
    ]
    if run.provenance.data:
        facts.append(f"seed {run.provenance.data.seed}")
    facts += ["partial"] if run.is_partial else []
    facts += ["example"] if key == "example" else []
    return ", ".join(facts)


def objective_title(engine: Engine, objective: str) -> str:
    """`Perplexity when cut`; of one that is not known here, its name."""
    return _called(objective, engine.objectives())


def _called(label: str, cards: Sequence[MetricCard | StrategyCard]) -> str:
    """The title of `beam:width=3` with its settings: `Beam (width=3)`."""
    name, _, settings = label.partition(":")
    titles = {card.name: card.title for card in cards}
    return f"{titles.get(name, name)}{f' ({settings})' if settings else ''}"


def about(
    strategy: StrategyCard | None, preset: PresetCard | None, too_few: str = ""
) -> dict[str, str]:
    """What the chosen recipe, or else the chosen strategy, does and who says so; and a caution."""
    card = preset or strategy
    if card is None:
        return NO_ABOUT
    is_new = strategy is not None and strategy.is_experimental
    note = f"{preset.note} {_papers_text(preset)}".strip() if preset else ""
    caution = "Experimental: do not rely on what it finds." if is_new else ""
    return {
        "text": card.meaning,
        "note": " ".join(filter(None, (note, caution, too_few))),
        "source": card.citation or (card.title if card.reference else ""),
        "address": card.reference,
    }


def _papers_text(preset: PresetCard) -> str:
    """The text that the recipe names; the page's own is read, so nothing is fetched unasked."""
    text = preset.settings.get("text", {})
    if "calibration" not in text:
        return ""
    windows = f", {text['n_samples']} windows of {text['seq_len']}" if "n_samples" in text else ""
    return f"Its text is {text['calibration']}{windows}; the text below is read instead."


def guessed(found: Estimate, limit: float | None = None) -> str:
    """`About 40 s to 2 min, up to 732 removed sets.` limit: seconds until a job is stopped."""
    low, high = roughly(found.seconds_low), roughly(found.seconds_high)
    times = low if low == high else f"{low} to {high}"
    said = f"About {times}, up to {grouped(found.n_sets)} removed sets."
    if limit is None or found.seconds_high <= limit:
        return said
    verb = "is" if found.seconds_low > limit else "may be"
    return f"{said} It {verb} stopped at the limit of {roughly(limit)}, with what it has by then."


def roughly(seconds: float) -> str:
    """A guess as people say one: `40 s`, `2 min`, `3.5 h`."""
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 55:
        return duration(max(1, seconds) if seconds < 12 else 5 * round(seconds / 5))
    if seconds < 55 * 60:
        return f"{max(1, round(seconds / 60))}\u202fmin"
    hours = seconds / 3600
    return f"{hours:.1f}\u202fh" if hours < 9.5 else f"{round(hours)}\u202fh"


def _headed(unit_label: str) -> str:
    """A unit as the head of a column: `Perplexity`."""
    return unit_label[:1].upper() + unit_label[1:] or "Objective"


def _number(run: SearchRun, step: SearchStep) -> str:
    if step.number is None:
        return "not measured"
    if run.unit_label == "perplexity" and run.baseline > 0:
        return f"{short(step.number)} ({rise_between(run.baseline, step.number)})"
    return short(step.number)
