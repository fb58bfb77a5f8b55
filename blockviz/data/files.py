"""Texts from a file: one JSON object or parquet row a text, any other file one text as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from blockviz.data.records import Texts
from blockviz.errors import BadCalibration, BadSource

_SUFFIXES = (".txt", ".raw", ".jsonl", ".parquet")


def is_file_name(name: str) -> bool:
    """Whether `name` ends as the files do that hold texts."""
    return name.lower().endswith(_SUFFIXES)


def read(path: Path, *, text_column: str) -> Texts:
    """The texts of a file; BadSource or BadCalibration with the reason when it has none.

    A text file is one text, every character and line end as it stands, so that two tools given the
    same file see the same tokens.
    """
    if not path.is_file():
        found = "That is a folder." if path.is_dir() else "No file of that name is there."
        raise BadSource(
            f"The text file {path.name} was to be read.", found, "Check the name and the folder."
        )
    try:
        if path.suffix.lower() == ".parquet":
            texts = _parquet(path, text_column)
        else:
            text = _decoded(path)
            is_rows = path.suffix.lower() == ".jsonl"
            texts = _jsonl(path, text, text_column) if is_rows else (text,)
    except OSError as error:
        found = f"It cannot be read ({error.strerror or type(error).__name__})."
        raise BadSource(f"{path.name} was to be read.", found, "Check its permissions.") from error
    if not any(text.strip() for text in texts):
        _refuse(path, "It is empty.", "Give a file with some text in it.")
    return Texts(texts, dataset=path.name, split="whole file")


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    if b"\0" in data:
        _refuse(
            path,
            "It holds zero bytes: it is binary, or text in UTF-16.",
            "Give plain text in UTF-8, or save it again in UTF-8.",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _refuse(
            path,
            f"It is not UTF-8: byte {error.start} on line {line} cannot be read.",
            "Save the file again in UTF-8.",
            error,
        )


def _jsonl(path: Path, text: str, column: str) -> tuple[str, ...]:
    texts = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            texts.append(_row_text(path, line, number, column))
    return tuple(texts)


def _row_text(path: Path, line: str, number: int, column: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        _refuse(
            path,
            f"Line {number} is not valid JSON.",
            f'Write one object a line, such as {{"{column}": "..."}}.',
            error,
        )
    if not isinstance(row, dict):
        _refuse(
            path,
            f"Line {number} is not a JSON object.",
            f'Write one object a line, such as {{"{column}": "..."}}.',
        )
    if column not in row:
        _refuse_column(path.name, column, row, where=f"Line {number}")
    return _checked_text(path, row[column], column, where=f"Line {number}")


def _checked_text(path: Path, value: Any, column: str, *, where: str) -> str:
    if isinstance(value, str):
        return value
    _refuse(
        path,
        f"{where} has no text in {column!r}, but {type(value).__name__}.",
        "Name a column that holds text with --text-column.",
    )


def _parquet(path: Path, column: str) -> tuple[str, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        if column not in names:
            _refuse_column(path.name, column, names, where="It")
        values = pq.read_table(path, columns=[column])[column].to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        _refuse(path, "It is not a parquet file.", "Give a whole parquet file.", error)
    return tuple(
        _checked_text(path, value, column, where=f"Row {number}")
        for number, value in enumerate(values, start=1)
    )


def _refuse_column(name: str, column: str, present: Any, *, where: str) -> NoReturn:
    listed = ", ".join(repr(str(key)[:40]) for key in list(present)[:12]) or "nothing"
    raise BadCalibration(
        f"The column {column!r} of {name} was asked for.",
        f"{where} has {listed}.",
        "Name one of these with --text-column.",
    )


def _refuse(path: Path, found: str, todo: str, cause: Exception | None = None) -> NoReturn:
    raise BadCalibration(f"The text file {path.name} was to be read.", found, todo) from cause
