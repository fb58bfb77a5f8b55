"""Texts from a file: one a row of a table's column, or any other file as one text."""

from __future__ import annotations

from pathlib import Path

from blockviz.data import tables
from blockviz.data.cells import check_text, counted
from blockviz.data.decoding import decoded, refuse
from blockviz.data.records import Texts
from blockviz.errors import BadSource
from blockviz.types import TABLE_ENDINGS, TEXT_ENDINGS


def is_file_name(name: str) -> bool:
    """Whether `name` ends as the files do that hold texts."""
    return name.lower().endswith(TEXT_ENDINGS)


def read(path: Path, *, text_column: str) -> Texts:
    """The texts of a file; BadSource or BadCalibration with the reason when it has none.

    A table gives the texts of its column, and says how many rows have none. Any other file is one
    text, every character and line end as it stands, so that two tools given the same file see the
    same tokens.
    """
    if not path.is_file():
        found = "That is a folder." if path.is_dir() else "No file of that name is there."
        raise BadSource(
            f"The text file {path.name} was to be read.", found, "Check the name and the folder."
        )
    texts, n_without = [], 0
    try:
        if path.suffix.lower() in TABLE_ENDINGS:
            for where, value in tables.values_of(path, text_column):
                is_empty = value is None or (isinstance(value, str) and not value.strip())
                n_without += is_empty
                if not is_empty:
                    texts.append(check_text(value, text_column, path.name, where=where))
        else:
            texts.append(decoded(path))
    except OSError as error:
        found = f"It cannot be read ({error.strerror or type(error).__name__})."
        raise BadSource(f"{path.name} was to be read.", found, "Check its permissions.") from error
    if not any(text.strip() for text in texts):
        refuse(path, "It is empty.", "Give a file with some text in it.")
    return Texts(tuple(texts), path.name, counted("whole file", n_without))
