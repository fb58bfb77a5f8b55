"""A row of token ids as the pieces of text that each token adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\ufffd"
# Tokens that a character is waited for: no character of UTF-8 has more bytes.
MOST_BYTES = 4


def pieces_of(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds to those before it, special tokens by their names.

    A character that several tokens write belongs to the last of them; the others add nothing.
    """
    pieces, start, end = [], 0, 0  # ids[start:end] is what the next piece is told from
    for n in range(1, len(ids) + 1):
        before, now = (_text(tokenizer, ids[start:to]) for to in (end, n))
        is_waiting = now.endswith(UNFINISHED) and n - end < MOST_BYTES and n < len(ids)
        pieces.append("" if is_waiting else now[len(before) :])
        if not is_waiting:
            start, end = end, n
    return tuple(pieces)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
