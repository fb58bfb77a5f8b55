"""What a text file holds as characters, and how a file that cannot be read is refused."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import NoReturn

from blockviz.errors import BadCalibration


def decoded(path: Path) -> str:
    """The file's text, every character and line end as it stands; BadCalibration unless UTF-8.

    A byte order mark at its start says how the file is written, and is no part of the text.
    """
    data = path.read_bytes()
    if b"\0" in data:
        refuse(
            path,
            "It holds zero bytes: it is binary, or text in UTF-16.",
            "Give plain text in UTF-8, or save it again in UTF-8.",
        )
    mark = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        return data[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        at = mark + error.start
        line = data.count(b"\n", 0, at) + 1
        refuse(
            path,
            f"It is not UTF-8: byte {at} on line {line} cannot be read.",
            "Save the file again in UTF-8.",
            error,
        )


def refuse(path: Path, found: str, todo: str, cause: Exception | None = None) -> NoReturn:
    raise BadCalibration(f"The text file {path.name} was to be read.", found, todo) from cause
