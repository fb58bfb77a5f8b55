"""A comparison as a table: one row a quantity, with where it comes from, one column a variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockviz.plots import column_name, measured_note, provenance_note, visible
from blockviz.session.writing import first_difference
from blockviz.types import Comparison, ComparisonColumn, PruningPlan
from blockviz.ui.compare_rows import cell, measured_rows
from blockviz.ui.views import pieces
from blockviz.ui.words import (
    UNKNOWN,
    count,
    grouped,
    percent,
    rise,
    short_dtype,
    size,
    with_error,
)

View = dict[str, Any]
NO_TABLE: View = {
    "title": "", "lead": "", "columns": [], "rows": [], "note": "", "empty": "", "to_map": False,
}  # fmt: skip
NOT_YET = "Nothing is compared yet. Choose what to hold the pruned model against, then start."
NOTHING_CUT = (
    "Nothing is removed yet, so there is nothing to compare. Switch blocks off on the Map, or "
    "apply a set that a search found."
)
ANOTHER_PLAN, OTHER_SETTINGS = "another plan", "other settings"
MOST_NAMED = 12


def empty_view(*, has_cuts: bool) -> View:
    """What stands there before the first comparison."""
    return {**NO_TABLE, "empty": NOT_YET if has_cuts else NOTHING_CUT, "to_map": not has_cuts}


def table_view(
    comparison: Comparison,
    titles: Mapping[str, str],
    *,
    is_running: bool,
    tags: tuple[str, ...] = (),
) -> View:
    """All columns that were asked for; those without numbers yet say so.

    titles: of the corrections by name; tags: what the page has since left, such as ANOTHER_PLAN.
    """
    found = {column.label: column for column in comparison.columns}
    next_up = next((label for label in comparison.asked if label not in found), "")
    columns = []
    for label in comparison.asked:
        column = found.get(label)
        waits = "now" if label == next_up else "waits"
        state = [("wait", waits if is_running else "not run")] if column is None else []
        if column is not None and column.refused:
            state = [("warn", "refused")]
        stale = [("warn", tag) for tag in tags if label != "original" or tag != ANOTHER_PLAN]
        columns.append({
            "label": label,
            "title": visible(column_name(column or _empty(label, titles))),
            "tags": [*state, *(stale if column else [])],
            "refused": visible(column.refused, 600) if column else "",
        })  # fmt: skip
    return {
        **NO_TABLE,
        "title": "Side by side" + (" so far" if comparison.is_partial else ""),
        "lead": f"Without {_named(comparison)}.",
        "columns": columns,
        "rows": _rows(comparison, found),
        "note": _note(comparison),
    }


def _rows(comparison: Comparison, found: dict[str, ComparisonColumn]) -> list[View]:
    whole = found.get("original")
    dtype = short_dtype(comparison.evaluation.dtype)
    kinds = (
        ("Perplexity", _on(comparison), _perplexity),
        ("Change to original", "Measured. Paired over the same windows, ± one standard error.",
         _change),
        ("Parameters left", "Counted, embeddings included. What a file stores is known once it is "
         "exported.", _parameters),
        ("Multiply-adds a token", "Counted: one for each weight of a linear map, vocabulary "
         "included, and what attention adds for each position looked at.", _work),
        ("KV cache a token", f"Counted, for {dtype}.", _cache),
        ("Export", "As the correction declares it; no file is written here.", _export),
    )  # fmt: skip
    numbers = [
        {
            "name": name,
            "source": source,
            "kind": "words" if told is _export else "numbers",
            "cells": [
                told(comparison, column, whole) if column and not column.refused else None
                for column in map(found.get, comparison.asked)
            ],
        }
        for name, source, told in (*kinds, *measured_rows(comparison))
    ]
    return [*numbers, _texts(comparison, found)]


def _on(comparison: Comparison) -> str:
    data = comparison.evaluation.data
    dtype = short_dtype(comparison.evaluation.dtype)
    if data is None or not comparison.n_predicted:
        return f"Measured, {dtype}."
    return (
        f"Measured on {grouped(comparison.n_predicted)} tokens of {visible(data.describe())}, "
        f"seed {data.seed}, {dtype}; ± one standard error over windows."
    )


def _perplexity(_: Comparison, column: ComparisonColumn, whole: ComparisonColumn | None) -> View:
    return cell(with_error(column.perplexity, column.perplexity * column.stderr))


def _change(
    comparison: Comparison, column: ComparisonColumn, whole: ComparisonColumn | None
) -> View:
    found, share = comparison.rise(column), comparison.closed(column)
    if column is whole or found is None:
        return cell(UNKNOWN)
    if column.label == "none" or share is None:
        return cell(rise(*found))
    if share < 0:
        return cell(rise(*found), "worse than doing nothing")
    return cell(rise(*found), f"closes {percent(share).removeprefix('+')} of the gap")


def _parameters(_: Comparison, column: ComparisonColumn, whole: ComparisonColumn | None) -> View:
    added = f"{count(column.n_added)} of them added" if column.n_added else ""
    share = _share(column, whole, "n_parameters")
    return cell(count(column.n_parameters), ", ".join(filter(None, (share, added))))


def _work(_: Comparison, column: ComparisonColumn, whole: ComparisonColumn | None) -> View:
    if column.multiply_adds is None or column.per_position is None:
        return cell(UNKNOWN, "its modules do not tell")
    more = f"and {count(column.per_position)} a position"
    share = _share(column, whole, "multiply_adds")
    return cell(count(column.multiply_adds), ", ".join(filter(None, (share, more))))


def _cache(_: Comparison, column: ComparisonColumn, whole: ComparisonColumn | None) -> View:
    return cell(size(column.kv_bytes), _share(column, whole, "kv_bytes"))


def _export(_: Comparison, column: ComparisonColumn, whole: ComparisonColumn | None) -> View:
    if column.label == "original":
        return cell("is a stock checkpoint")
    if column.label == "none":
        return cell("goes into a stock checkpoint")
    if column.folds:
        return cell("goes into a stock checkpoint", f"as {column.folds}")
    return cell("needs modules of its own", f"+{count(column.n_added)} parameters")


def _share(column: ComparisonColumn, whole: ComparisonColumn | None, name: str) -> str:
    """How much less than the original it has: `−11.9 %`."""
    of = getattr(whole, name) if whole else 0
    if column is whole or not of:
        return ""
    return percent(getattr(column, name) / of - 1)


def _texts(comparison: Comparison, found: dict[str, ComparisonColumn]) -> View:
    whole = found.get("original")
    how = "through the chat template" if comparison.is_chat else "as it is"
    return {
        "name": "What it writes",
        "source": f"Measured. Greedy, at most {comparison.max_new_tokens} new tokens after the "
        f"prompt {how}:",
        "prompt": visible(comparison.prompt, 300),
        "kind": "texts",
        "cells": [
            _text(column, whole) if column and not column.refused else None
            for column in map(found.get, comparison.asked)
        ],
    }


def _text(column: ComparisonColumn, whole: ComparisonColumn | None) -> View:
    """The text as (before, first difference, after), and where that is in words."""
    text = column.text
    said = "" if text else "nothing: the text ended at once"
    start = None
    if whole is not None and not whole.refused and column is not whole:
        start = first_difference(whole.text, text)
        if start is None:
            said = "the same as the original"
        elif start >= len(text):
            said = said or "ends where the original goes on"
        else:
            is_between = start == 0 or text[start - 1].isspace() or text[start].isspace()
            word = len(text[:start].split()) + is_between
            said = f"parts from the original in word {word}"
    first, *rest = pieces(text, start)
    # A model begins with the space that parts its word from the prompt's.
    return {"pieces": [first.lstrip(" "), *rest], "said": said}


def _named(comparison: Comparison) -> str:
    shown = PruningPlan(comparison.removed).shown()
    n = len(comparison.removed)
    many = f"{n} block" if n == 1 else f"{n} blocks"
    more = f" and {len(shown) - MOST_NAMED} more" if len(shown) > MOST_NAMED else ""
    return f"{many}: {', '.join(shown[:MOST_NAMED])}{more}"


def _note(comparison: Comparison) -> str:
    """Where the numbers come from, and what the fits remarked."""
    facts = [measured_note(comparison)]
    if comparison.provenance.data is not None:
        tokens = f", {grouped(comparison.n_tokens)} positions" if comparison.n_tokens else ""
        facts.append(f"fitted on {visible(provenance_note(comparison.provenance), 300)}{tokens}")
    facts += [
        f"{visible(column_name(column))}: {visible(note, 300)}"
        for column in comparison.columns
        for note in column.notes
    ]
    return " · ".join(filter(None, facts))


def _empty(label: str, titles: Mapping[str, str]) -> ComparisonColumn:
    plain = {"original": "Original", "none": "Pruned"}
    return ComparisonColumn(label, plain.get(label) or titles.get(label.partition(":")[0], ""))
