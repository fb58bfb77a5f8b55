"""Fields of a JSON that a stranger wrote: each is what it should be, or refused in plain words."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from blockviz.errors import BadInput

MAX_TEXT = 60
MAX_COUNT = 2**63


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """`text` on one line of at most `limit` characters, without control or invisible ones."""
    spaced = "".join(" " if c.isspace() else c for c in text[: 20 * limit])
    seen = "".join(c for c in spaced if not unicodedata.category(c).startswith("C"))
    return " ".join(seen.split())[:limit].rstrip()


def said(value: object) -> str:
    """What a value is, in words that stay short whatever it holds."""
    if isinstance(value, str):
        return repr(clean_text(value, 40))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return str(value)
    if isinstance(value, int):
        return "a number" if abs(value) < MAX_COUNT else "a number that is too large"
    kinds = {list: "a list", tuple: "a list", dict: "an object"}
    return kinds.get(type(value), "something else")


@dataclass(frozen=True)
class Reader:
    """Reads the fields of the file `label`; whatever is wrong with them raises BadInput."""

    label: str

    @property
    def asked(self) -> str:
        return f"The scores of {self.label!r} were to be imported."

    def refuse(self, found: str, todo: str) -> NoReturn:
        raise BadInput(self.asked, found, todo)

    def number(self, value: object, what: str) -> float:
        """A finite float; true, "1" and 1e999 are none."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            # Beyond 2**1024 an integer has no float; float() would raise.
            number = float(value) if isinstance(value, float) or abs(value) < 2**1023 else math.inf
            if math.isfinite(number):
                return number
        self.refuse(f"{what} is {said(value)}.", "Write a finite number.")

    def count(self, given: Mapping[str, object], field: str) -> int:
        """A whole number; 0 where the field is absent."""
        value = given.get(field, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not abs(value) < MAX_COUNT:
            self.refuse(f'"{field}" is {said(value)}.', "Write a whole number, or leave it out.")
        return value

    def text(self, given: Mapping[str, object], field: str, limit: int = MAX_TEXT) -> str:
        """Cleaned text; empty where the field is absent or null."""
        value = given.get(field)
        if value is not None and not isinstance(value, str):
            self.refuse(f'"{field}" is {said(value)}.', "Write text, or leave it out.")
        return clean_text(value or "", limit)

    def choice(self, given: Mapping[str, object], field: str, allowed: tuple[str, ...]) -> str:
        """One of `allowed`; the first where the field is absent."""
        value = given.get(field, allowed[0])
        if not isinstance(value, str) or value not in allowed:
            self.refuse(f'"{field}" is {said(value)}.', f"Write {' or '.join(allowed)}.")
        return value
