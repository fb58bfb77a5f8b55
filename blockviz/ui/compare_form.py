"""The settings of a comparison as they stand on the page, and the request that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockviz.errors import BadPlan
from blockviz.plots import row_name, visible
from blockviz.session import Visitor
from blockviz.session.compare_views import CompareRequest
from blockviz.session.repair_views import RepairRequest
from blockviz.types import RepairTable
from blockviz.ui import inputs
from blockviz.ui.found import is_of
from blockviz.ui.job_handlers import MAX_SAMPLES
from blockviz.ui.live_handlers import MAX_NEW_TOKENS
from blockviz.ui.text_fields import text_of, title_of, windows_of
from blockviz.ui.words import grouped

if TYPE_CHECKING:
    from blockviz.session import Engine

# In the order in which handlers get them.
FORM = (
    "compare_a", "compare_b", "compare_prompt", "compare_new", "compare_chat", "compare_text",
    "compare_samples", "compare_seq_len", "compare_skip", "compare_held", "compare_seed",
    "against_text", "against_samples", "against_seq_len", "compare_tasks", "compare_rows",
    "compare_timed",
)  # fmt: skip
NONE = "none"
USUAL = ("writer_refit", "asc")
MAX_PROMPT_CHARS = 20_000


def choices(engine: Engine, visitor: Visitor) -> list[tuple[str, str]]:
    """(name, label) of every correction, of those with settings in the last Repair table, none."""
    found = {card.name: visible(card.title) for card in engine.correction_cards()}
    table = _last_table(engine, visitor)
    rows = table.rows[2:] if table else ()
    found |= {row.correction: visible(row_name(row)) for row in rows if ":" in row.correction}
    found |= {visitor.fix: visible(visitor.fix)} if visitor.fix not in ("", NONE, *found) else {}
    return [*((title, label) for label, title in found.items()), ("None", NONE)]


def usual(engine: Engine, visitor: Visitor) -> tuple[str, str]:
    """The two corrections to begin with: the best that was found, and one to hold it against."""
    table = _last_table(engine, visitor)
    names = [card.name for card in engine.correction_cards()]
    known = [name for name in USUAL if name in names] or names
    first = table.best if table and table.best else next(iter(known), NONE)
    # What differs most from a refit of weights is to match the moments of the stream.
    others = [name for name in reversed(known) if name != first.partition(":")[0]]
    return first, next(iter(others), NONE)


def usual_to_export(engine: Engine, visitor: Visitor) -> str:
    """The best that was found; none where all that were fitted are worse than doing nothing."""
    table, first = _last_table(engine, visitor), usual(engine, visitor)[0]
    if table is None or table.best or table.is_partial or len(table.rows) < 3:
        return first
    is_chosen_by = any(row.selection is not None for row in table.rows)
    worse = [row.correction for row in table.rows[2:] if not row.nll <= table.rows[1].nll]
    return NONE if is_chosen_by or first in worse else first


def request_of(engine: Engine, visitor: Visitor, *form: Any) -> CompareRequest:
    """The comparison of the visitor's plan that the page asks for."""
    raw, limits = dict(zip(FORM, form, strict=True)), engine.limits
    plan = visitor.plan()
    if not plan.removed:
        raise BadPlan(
            "The pruned model was to be compared with the original.",
            "Nothing is removed yet.",
            "Switch blocks off on the Map, or apply a set that a search found.",
        )
    offered = [label for _, label in choices(engine, visitor)]
    named = [
        inputs.choice(raw[f"compare_{x}"], f"Correction {x.upper()}", offered) for x in ("a", "b")
    ]
    most = limits.n_samples or MAX_SAMPLES
    repair = RepairRequest(
        plan=plan.check(engine.info),
        corrections=tuple(dict.fromkeys(named)),
        text=text_of(engine, raw, "compare", "fitted", seed=raw["compare_seed"]),
        n_skip=inputs.whole(raw["compare_skip"], "The windows to skip", low=0, high=most),
        n_held=inputs.whole(raw["compare_held"], "The windows held out", low=0, high=most),
        evaluation=text_of(engine, raw, "against", "measured", seed=raw["compare_seed"]),
    )
    chars, rows = limits.max_prompt_chars or MAX_PROMPT_CHARS, limits.task_rows or MAX_SAMPLES
    tasks = raw["compare_tasks"] or ()
    longest = limits.max_new_tokens or MAX_NEW_TOKENS
    return CompareRequest(
        repair,
        inputs.text(raw["compare_prompt"], "The prompt", max_chars=chars),
        inputs.whole(raw["compare_new"], "The number of new tokens", low=1, high=longest),
        is_chat=raw["compare_chat"] is True,
        tasks=inputs.choices(tasks, "The questions", engine.tasks()) if tasks else (),
        limit=inputs.whole(raw["compare_rows"], "The number of questions", low=1, high=rows),
        is_timed=raw["compare_timed"] is True,
    )


def said(engine: Engine, request: CompareRequest) -> dict[str, str]:
    """What is fitted and measured on what, in words."""
    repair = request.repair
    text, on = repair.text, repair.evaluation
    fitted = [name for name in repair.corrections if name != NONE]
    asked = f" Each answers {request.limit} questions of {' and '.join(request.tasks)}."
    timed = " They are timed in turns at the end; nothing else should run on the machine then."
    skipped = f", after the first {grouped(repair.n_skip)}" if repair.n_skip else ""
    fits = (
        f"Fitted on {windows_of(text)} = {grouped(text.n_samples * text.seq_len)} tokens of "
        f"{title_of(engine, text)}{skipped}. "
    )
    return {
        "text": f"{fits if fitted else ''}Perplexity is measured on {windows_of(on)} of "
        f"{title_of(engine, on)}"
        f"{', which no correction is fitted on' if fitted else ''}. Every text is greedy: always "
        "the likeliest next token, so that no seed plays a part."
        f"{asked if request.tasks else ''}{timed if request.is_timed else ''}",
        "note": "A and B are the same correction: it gets one column."
        if len(repair.corrections) == 1 and fitted
        else "",
        "source": "",
        "address": "",
    }


def _last_table(engine: Engine, visitor: Visitor) -> RepairTable | None:
    """The visitor's newest table of corrections of the present model."""
    tables = (engine.repair_table(key) for key in reversed(visitor.repairs))
    return next((t for t in tables if t is not None and is_of(t, engine.info)), None)
