"""The table of corrections as rows, and what of it can be chosen to look at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from blockviz.plots import has_channels, place_name, row_name, visible
from blockviz.plots.repair import notes_of
from blockviz.session import Visitor
from blockviz.types import PlaceFit, RepairRow, RepairTable
from blockviz.ui.words import UNKNOWN, count, grouped, percent, rise, short, with_error

if TYPE_CHECKING:
    from blockviz.session import Engine

HEADERS = ("Correction", "Perplexity", "Change to original", "Gap closed", "On held-out text",
           "Adds parameters", "Exports as")  # fmt: skip
NO_ROWS: dict[str, Any] = {
    "key": "", "title": "", "lead": "", "headers": [], "rows": [], "note": "",
}  # fmt: skip
LOWEST = "lowest perplexity on the held-out windows, among those that"
CARRIED = {
    "custom": "a file with modules of its own can carry",
    "stock": "an export can carry without storing more",
}
WORSE = "worse than doing nothing"


def rows_view(table: RepairTable | None, key: str, chosen: str) -> dict[str, Any]:
    """The table of corrections: the original, the bare plan, then one row each."""
    if table is None or not table.rows:
        return NO_ROWS
    shown = row_of(table, chosen)
    able = rows_of(table)
    held = any(row.selection is not None for row in table.rows)
    best = next((row for row in table.rows if table.best and row.correction == table.best), None)
    lead = f"Without {blocks(len(table.removed))}, fitted on {fitted_tokens(table)}."
    if best is not None:
        word = "Best so far" if table.is_partial else "Best"
        able_to = CARRIED["custom" if table.export_mode == "custom" else "stock"]
        lead += f" {word}: {visible(row_name(best))}, {LOWEST} {able_to}."
    elif not held and not table.is_partial:
        lead += " None is called best, since no window was held out to choose by."
    return {
        "key": key,
        "title": "Corrections" + (" so far" if table.is_partial else ""),
        "lead": lead,
        "headers": list(HEADERS),
        "rows": [
            {**_row(table, row, i), "can_show": row in able, "is_shown": row is shown}
            for i, row in enumerate(table.rows)
        ],
        "note": notes_of(table),
    }


def rows_of(table: RepairTable) -> list[RepairRow]:
    """The corrections that figures can be drawn of."""
    return [row for row in table.rows[2:] if row.fits and not row.refused]


def row_of(table: RepairTable, label: str) -> RepairRow | None:
    """The correction of a label; without one the best, or the one with the lowest perplexity."""
    rows = rows_of(table)
    named = {row.correction: row for row in rows}
    lowest = min(rows, key=lambda r: (not math.isfinite(r.nll), r.nll), default=None)
    return named.get(label) or named.get(table.best) or lowest


def place_of(row: RepairRow, block: str) -> PlaceFit:
    """The place behind a block; without one, where most is left unexplained."""
    named = {str(fit.block): fit for fit in row.fits}
    with_numbers = [fit for fit in row.fits if has_channels(fit)] or list(row.fits)
    return named.get(block) or max(with_numbers, key=left)


def left(fit: PlaceFit) -> float:
    """What stays unexplained, on held-out windows where there are any."""
    return fit.after if fit.held_after is None else fit.held_after


def choices(engine: Engine, visitor: Visitor) -> list[tuple[str, str]]:
    """(what it was, key) of this visitor's tables that are still kept, the newest first."""
    tables = [(key, engine.repair_table(key)) for key in reversed(visitor.repairs)]
    return [(titled(table, key), key) for key, table in tables if table is not None]


def titled(table: RepairTable, key: str) -> str:
    """`14 blocks, corrections: 6, 24 528 tokens, seed 42`; of the bundled example it says so."""
    facts = [blocks(len(table.removed)), f"corrections: {max(0, len(table.rows) - 2)}"]
    data = table.provenance.data
    facts += [f"{grouped(data.n_tokens)} tokens", f"seed {data.seed}"] if data else []
    facts += ["partial"] if table.is_partial else []
    facts += ["example"] if key == "example" else []
    return ", ".join(facts)


def row_choices(table: RepairTable) -> list[tuple[str, str]]:
    """(name, label) of the corrections that can be looked at; first the one that is best."""
    rows = rows_of(table)
    if not rows:
        return []
    first = row_of(table, "")
    word = "The best" if first.correction == table.best else "Lowest perplexity"
    return [(f"{word}: {row_name(first)}", ""), *((row_name(r), r.correction) for r in rows)]


def place_choices(row: RepairRow | None) -> list[tuple[str, str]]:
    """(name, block) of a correction's places; first the one where most is left unexplained."""
    if row is None:
        return []
    worst = place_of(row, "")
    named = [(_placed(f), str(f.block)) for f in row.fits]
    return [(f"Most left unexplained: {place_name(worst)}", ""), *named]


def _placed(fit: PlaceFit) -> str:
    return f"{place_name(fit)}{', ' + WORSE if fit.is_worse else ''}"


def _row(table: RepairTable, row: RepairRow, i: int) -> dict[str, Any]:
    share = table.closed(row) if i > 1 else None
    name = visible(row_name(row))
    return {
        "name": row.correction,
        "title": name,
        "label": f"Look at {name} below",
        "tags": _tags(table, row, i),
        "refused": visible(row.refused, 400),
        "cells": [
            with_error(row.perplexity, row.perplexity * row.stderr),
            UNKNOWN if i == 0 else rise(row.rise, row.rise_stderr),
            UNKNOWN if row.selection is None else short(math.exp(min(row.selection, 700.0))),
            count(row.n_added) if row.n_added else "0",
            _exports(row, i),
        ],
        "share": None if share is None else max(0.0, min(1.0, share)),
        "closed": UNKNOWN if share is None else percent(share).removeprefix("+"),
        "is_best": _is_best(table, row),
    }


def _is_best(table: RepairTable, row: RepairRow) -> bool:
    return bool(table.best) and row.correction == table.best


def _tags(table: RepairTable, row: RepairRow, i: int) -> list[tuple[str, str]]:
    word = "best so far" if table.is_partial else "best"
    tags = [("best", word)] if _is_best(table, row) else []
    if row.refused:
        return [*tags, ("warn", "refused")]
    if i > 1 and row.nll > table.rows[1].nll:
        tags.append(("warn", WORSE))
    harmed = sum(fit.is_worse for fit in row.fits)
    if harmed:
        tags.append(("warn", f"harms {harmed} of {len(row.fits)} places"))
    return tags


def _exports(row: RepairRow, i: int) -> str:
    if i == 0:
        return UNKNOWN
    if i == 1:
        return "stock"
    return f"stock: {row.folds}" if row.folds else "needs custom code"


def fitted_tokens(table: RepairTable) -> str:
    """`1 024 tokens`, or `1 016 of 1 024 tokens` where the first of each window is left out."""
    n, data = table.n_tokens, table.provenance.data
    of = f" of {grouped(data.n_tokens)}" if data and data.n_tokens > n > 0 else ""
    return f"{grouped(n)}{of} tokens"


def blocks(n: int) -> str:
    return f"{n} block" if n == 1 else f"{n} blocks"
