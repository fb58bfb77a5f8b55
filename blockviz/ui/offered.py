"""What the page itself has put into a field, told from what was chosen there by hand."""

from __future__ import annotations

from typing import Any

# An event may carry a field as it was before the last answer.
KEPT = 2


def put_before(raw: Any, usual: str) -> list[Any]:
    """The values that were put there last, the newest first; `usual` where none is known."""
    return raw[:KEPT] if isinstance(raw, list) and raw else [usual]


def with_newest(before: list[Any], usual: str) -> list[Any]:
    """The same with `usual`, which is put there now, in front."""
    return [usual, *(value for value in before if value != usual)][:KEPT]
