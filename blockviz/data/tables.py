"""Tables in files: one row a text, in a column. Read by the file's ending."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blockviz.data.cells import refuse_column
from blockviz.data.decoding import decoded, refuse

# Each value of the column, and where it stands, as a sentence about it begins: `Line 5`.
Values = Iterator[tuple[str, Any]]


def values_of(path: Path, column: str) -> Values:
    """The column of a .jsonl, .json, .csv, .tsv or .parquet file; None where a row has nothing.

    BadCalibration where the file is no such table, or has no such column.
    """
    return _READERS[path.suffix.lower()](path, column)


def _json_lines(path: Path, column: str) -> Values:
    return _lines(path, decoded(path), column)


def _lines(path: Path, text: str, column: str) -> Values:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"Line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                refuse(path, f"{where} is not valid JSON.", _one_a_line(column), error)
            yield where, _of_row(path, row, column, where, _one_a_line(column))


def _json(path: Path, column: str) -> Values:
    """An array of rows, or one object a line; one object over several lines is one row."""
    text = decoded(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not text.lstrip().startswith("["):
            yield from _lines(path, text, column)
            return
        found = "It is not valid JSON: it begins an array of rows that has no right end."
        refuse(path, found, _an_array(column), error)
    if isinstance(data, dict) and "\n" not in text.strip():
        yield from _lines(path, text, column)
        return
    for number, row in enumerate(data if isinstance(data, list) else [data], start=1):
        where = f"Row {number}"
        yield where, _of_row(path, row, column, where, _an_array(column))


def _of_row(path: Path, row: Any, column: str, where: str, todo: str) -> Any:
    if not isinstance(row, dict):
        refuse(path, f"{where} is not a JSON object.", todo)
    if column not in row:
        refuse_column(path.name, column, row, where=where)
    return row[column]


def _one_a_line(column: str) -> str:
    return f'Write one object a line, such as {{"{column}": "..."}}.'


def _an_array(column: str) -> str:
    return f'Write an array of objects, such as [{{"{column}": "..."}}], or one object a line.'


def _csv(path: Path, column: str) -> Values:
    yield from _cells(path, csv.reader(_cells_of(path), strict=True), column)


def _tsv(path: Path, column: str) -> Values:
    """With cells in quotes where that reads it through, else with every quote as it stands."""
    how = {"delimiter": "\t", "strict": True}
    text = _cells_of(path)
    try:
        n_columns = {len(row) for row in csv.reader(text, **how) if row}
    except csv.Error:
        n_columns = set()
    if len(n_columns) != 1:
        how["quoting"] = csv.QUOTE_NONE
    text.seek(0)
    yield from _cells(path, csv.reader(text, **how), column)


def _cells_of(path: Path) -> io.StringIO:
    """A cell may be as long as the file. The library's limit is one for the whole process, so it is
    only ever raised."""
    text = decoded(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    return io.StringIO(text, newline="")


def _cells(path: Path, rows: Iterator[list[str]], column: str) -> Values:
    """Cells of nothing but the header's columns; BadCalibration with the row that has others."""
    header, number = next((row for row in rows if row), []), 0
    if header and column not in header:
        refuse_column(path.name, column, header, where="It")
    if header.count(column) > 1:
        found = f"It has {header.count(column)} columns of that name."
        refuse(path, found, "Give each column a name of its own.")
    try:
        for row in rows:
            if not row:
                continue
            number += 1
            if len(row) != len(header):
                found = f"Row {number} has {len(row)} columns, and the header {len(header)}."
                refuse(path, found, "Put cells with a delimiter or a line end in them in quotes.")
            yield f"Row {number}", row[header.index(column)] or None
    except csv.Error as error:
        found = f"Row {number + 1} cannot be read ({error})."
        refuse(path, found, "Close its quotes, and write a quote inside a cell twice.", error)


def _parquet(path: Path, column: str) -> Values:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        if column not in names:
            refuse_column(path.name, column, names, where="It")
        values = pq.read_table(path, columns=[column])[column].to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        refuse(path, "It is not a parquet file.", "Give a whole parquet file.", error)
    yield from ((f"Row {number}", value) for number, value in enumerate(values, start=1))


_READERS = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
