"""Simple kinds of tokens, told from the text alone: which words a cut model has lost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

# Name -> what it means, in the order in which they are shown.
WORD_CLASSES = {
    "number": "holds a digit",
    "name": "in a word with a capital that does not begin a sentence",
    "punctuation": "signs without a letter or digit",
    "frequent": "in the words that make up half of this text",
    "rare": "in a word that occurs once in this text",
}
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_ENDS = frozenset(".!?:;=\n\u3002\uff01\uff1f")
_QUOTES = frozenset(" \t\"'\u201c\u201d\u2018\u2019()[]\u00ab\u00bb-\u2013\u2014*")

Classes = tuple[tuple[frozenset[str], ...], ...]


def word_classes(windows: Sequence[Sequence[str]]) -> Classes:
    """Of each token of each window, given as pieces of text, the classes that it is in."""
    texts = ["".join(pieces) for pieces in windows]
    seen = Counter(m[0].casefold() for text in texts for m in _WORD.finditer(text))
    frequent, rare = _frequent(seen), {word for word, n in seen.items() if n == 1}
    return tuple(
        tuple(_told(pieces, text, frequent, rare))
        for pieces, text in zip(windows, texts, strict=True)
    )


def _frequent(seen: Counter[str]) -> set[str]:
    """The fewest words that make up half of all."""
    found, left = set(), seen.total() / 2
    for word, n in sorted(seen.items(), key=lambda item: (-item[1], item[0])):
        if left <= 0 or n == 1:
            break
        found.add(word)
        left -= n
    return found


def _told(
    pieces: Sequence[str], text: str, frequent: set[str], rare: set[str]
) -> Iterator[frozenset[str]]:
    words = [(m.start(), m.end(), m[0]) for m in _WORD.finditer(text)]
    at, start = 0, 0
    for piece in pieces:
        end, found = start + len(piece), set()
        while at < len(words) and words[at][1] <= start:
            at += 1
        if any(c.isdigit() for c in piece):
            found.add("number")
        elif piece.strip() and not any(c.isalnum() for c in piece):
            found.add("punctuation")
        if at < len(words) and words[at][0] < end:
            begin, _, word = words[at]
            key = word.casefold()
            found |= {"frequent"} if key in frequent else {"rare"} if key in rare else set()
            if word[0].isupper() and word != "I" and not _begins_sentence(text, begin):
                found.add("name")
        yield frozenset(found)
        start = end


def _begins_sentence(text: str, at: int) -> bool:
    before = at - 1
    while before >= 0 and text[before] in _QUOTES:
        before -= 1
    return before < 0 or text[before] in _ENDS
