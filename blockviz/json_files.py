"""JSON files: what people give is read within bounds, what is kept is known again by its sum."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MOST_BYTES = 16 * 2**20


class NotJson(ValueError):
    """A file that cannot be read as JSON; `found` says why, in a sentence."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


def read_json(path: Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """What a JSON file in UTF-8 holds, a byte order mark in front of it or not; NotJson otherwise.

    No more than most_bytes are read, so that a device without an end is refused too.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except FileNotFoundError as error:
        raise NotJson("There is no such file.") from error
    except IsADirectoryError as error:
        raise NotJson("That is a folder.") from error
    except OSError as error:
        raise NotJson(f"It cannot be read ({error.strerror or type(error).__name__}).") from error
    if len(data) > most_bytes:
        raise NotJson(f"It holds more than {most_bytes >> 20} MiB.")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise NotJson(f"It is not UTF-8: byte {error.start} cannot be read.") from error
    except json.JSONDecodeError as error:
        raise NotJson(f"It is not JSON: see line {error.lineno}, column {error.colno}.") from error
    except (ValueError, RecursionError) as error:
        raise NotJson("Its JSON is nested too deeply, or a number in it is too long.") from error


def sealed(value: Any) -> str:
    """The value as JSON on one line, with the sha256 by which `unsealed` knows it again."""
    return json.dumps({"sha256": _digest(value), "value": value}, allow_nan=False)


def unsealed(text: str | bytes) -> Any:
    """What `sealed` was given; ValueError where a single digit of it is another one."""
    try:
        data = json.loads(text)
        is_whole = isinstance(data, dict) and data.get("sha256") == _digest(data.get("value"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not is_whole:
        raise ValueError("not what was written")
    return data["value"]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, allow_nan=False).encode()).hexdigest()
