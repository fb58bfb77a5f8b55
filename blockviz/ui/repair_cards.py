"""What the Repair tab shows of a table of corrections: rows, figures, and words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blockviz.plots import (
    Citation,
    FigureCard,
    fit_card,
    has_channels,
    moment_card,
    place_name,
    repairs_card,
    rho_card,
    row_name,
    size_card,
    visible,
)
from blockviz.session import JobView, Visitor
from blockviz.session.repair_views import CorrectionCard
from blockviz.types import PlaceFit, RepairRow, RepairTable, parts_of
from blockviz.ui.figure_card import card_names, card_update
from blockviz.ui.found import is_of
from blockviz.ui.repair_rows import WORSE, blocks, place_of, row_of, rows_of, rows_view
from blockviz.ui.words import short

if TYPE_CHECKING:
    from blockviz.session import Engine
    from blockviz.ui.screen import Update

ROW_CARDS = ("repair_fit", "repair_size")
PLACE_CARDS = ("repair_mean", "repair_std", "repair_rho")
NO_WORDS = {"text": "", "note": "", "source": "", "address": ""}
NOTHING_CUT = "Nothing is removed yet"
EMPTY = (
    "No correction of this model is fitted yet. Switch blocks off on the Map, or apply a set that "
    "a search found, then start."
)
OTHER_MODEL = "Another model has been loaded since this was fitted. Reload the page to repair it."


def card_outputs() -> tuple[str, ...]:
    """Every component that a table of corrections is drawn into."""
    cards = (
        name for card in ("repairs_bars", *ROW_CARDS, *PLACE_CARDS) for name in card_names(card)
    )
    return (*cards, "repair_rows", "repair_note", "repair_about")


def drawn(engine: Engine, visitor: Visitor, key: str, job: JobView | None, row: str,
          place: str) -> Update:  # fmt: skip
    """A table, and of it one correction at one place; `job`: that this browser runs or ran last."""
    table = engine.repair_table(key) if key else None
    is_drawable = table is not None and has_bars(table)
    return {
        "repair_rows": rows_view(table, key, row),
        "repair_note": {"text": state_of(engine, visitor, table, job)},
        **card_update("repairs_bars", repairs_card(table) if is_drawable else None),
        **looked_at(engine, table, row, place),
    }


def looked_at(engine: Engine, table: RepairTable | None, row: str, place: str) -> Update:
    """The figures of one correction; none where it has no places."""
    found = row_of(table, row) if table else None
    if table is None or found is None:
        empty = (card_update(name, None) for name in (*ROW_CARDS, *PLACE_CARDS))
        return {"repair_about": NO_WORDS, **{k: v for card in empty for k, v in card.items()}}
    card = card_of(engine, found)
    fit = place_of(found, place)
    figures: dict[str, FigureCard | None] = dict.fromkeys(PLACE_CARDS)
    figures["repair_fit"] = fit_card(table, found, cite=sources_of(card))
    figures["repair_size"] = size_card(table, found)
    if has_channels(fit):
        figures["repair_mean"] = moment_card(table, found, fit, "mean")
        figures["repair_std"] = moment_card(table, found, fit, "std")
        figures["repair_rho"] = rho_card(table, found, fit)
    updates = (card_update(name, figure) for name, figure in figures.items())
    return {
        "repair_about": about(card, table, found, fit),
        **{k: v for update in updates for k, v in update.items()},
    }


def has_bars(table: RepairTable) -> bool:
    """Whether anything is measured that bars could show."""
    head, rest = table.rows[:2], table.rows[2:]
    return all(math.isfinite(r.nll) for r in head) and any(math.isfinite(r.nll) for r in rest)


def card_of(engine: Engine, row: RepairRow) -> CorrectionCard | None:
    """What is known of a row's correction."""
    name = row.correction.partition(":")[0]
    return next((card for card in engine.correction_cards() if card.name == name), None)


def sources_of(card: CorrectionCard | None) -> tuple[Citation, ...]:
    """Where a correction comes from."""
    return ((card.citation, card.reference),) if card and card.reference else ()


def about(
    card: CorrectionCard | None, table: RepairTable, row: RepairRow, fit: PlaceFit
) -> dict[str, str]:
    """What a correction does, and plain words where it does harm."""
    bare = table.rows[1]
    said = [*row.notes]
    if row.nll > bare.nll:
        said.append(
            f"{visible(row_name(row))} is {WORSE}: perplexity {short(row.perplexity)}, "
            f"and {short(bare.perplexity)} without it."
        )
    harmed = [f for f in row.fits if f.is_worse]
    if harmed:
        seen = "held-out text" if harmed[0].held_after is not None else "the fitted text"
        names = ", ".join(place_name(f) for f in harmed[:6])
        more = f" and {len(harmed) - 6} more" if len(harmed) > 6 else ""
        said.append(
            f"On {seen} the stream is further off than without it at {len(harmed)} of "
            f"{len(row.fits)} places: {names}{more}."
        )
    if len(row.fits) and not any(has_channels(f) for f in row.fits):
        said.append("Numbers of single channels were not kept for this correction.")
    return {
        "text": card.meaning if card else row_name(row),
        "note": " ".join(said),
        "source": (card.citation or card.title) if card and card.reference else "",
        "address": card.reference if card else "",
    }


def state_of(
    engine: Engine, visitor: Visitor, table: RepairTable | None, job: JobView | None
) -> str:
    """Empty, running, partial, stale or failed, in words; nothing where a table is whole."""
    is_ours = job is not None and job.kind == "repair"
    is_fitting = is_ours and not job.is_over
    if table is None:
        return "Fitting: the original is measured first." if is_fitting else EMPTY
    said = []
    n = max(0, len(table.rows) - 2)
    many = f"{n} correction{'' if n == 1 else 's'}"
    if visitor.model_key != engine.model_key or not is_of(table, engine.info):
        said.append(OTHER_MODEL)
    elif table.is_partial and is_fitting:
        said.append(f"Fitting: {many} so far. Cancel keeps what is there.")
    elif table.is_partial:
        ended = "The repair failed" if is_ours and job.state == "failed" else "It was stopped"
        said.append(f"Partial. {ended} after {many}; what is there is kept.")
    elif parts_of(table.removed) != parts_of(visitor.plan().removed):
        said.append(
            f"Stale. The table is of {blocks(len(table.removed))}; another set of "
            f"{len(visitor.removed)} is off on the Map now. Start again to repair that."
        )
    if len(table.rows) > 2 and not rows_of(table) and not table.is_partial:
        said.append("No correction could be fitted; the table says why.")
    return " ".join((*said, table.warning)).strip()
