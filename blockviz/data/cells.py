"""The text column of a table, row by row, whether the table lies in a file or on the hub."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

from blockviz.errors import BadCalibration

MOST_SHOWN = 40


def check_text(value: Any, column: str, name: str, *, where: str) -> str:
    """`value` if it is a text; else BadCalibration with the row (`where`) and what is there."""
    if not isinstance(value, str):
        raise BadCalibration(
            f"The column {column!r} of {name} was asked for.",
            f"{where} has {_shown(value)} in {column!r}, which is {_kind(value)}.",
            "Write text there, or name a column that holds text with --text-column.",
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadCalibration(
            f"The column {column!r} of {name} was asked for.",
            f"{where} has half a character in {column!r}, at position {error.start}.",
            "Mend or leave out that row: no tokenizer reads half a character.",
        ) from error
    return value


def refuse_column(name: str, column: str, present: Iterable[Any], *, where: str) -> NoReturn:
    """BadCalibration where a table or row lacks the column; `present` are those it has."""
    listed = ", ".join(repr(str(key)[:MOST_SHOWN]) for key in list(present)[:12]) or "nothing"
    raise BadCalibration(
        f"The column {column!r} of {name} was asked for.",
        f"{where} has {listed}.",
        "Name one of these with --text-column.",
    )


def counted(split: str, n_without: int) -> str:
    """`train, 2 rows without text left out`; the split alone where every row has text."""
    rows = "row" if n_without == 1 else "rows"
    return f"{split}, {n_without} {rows} without text left out" if n_without else split


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return {**kinds, dict: "an object"}.get(type(value), f"of the type {type(value).__name__}")
