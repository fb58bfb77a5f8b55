"""The first tokens of a long text without tokenising all of it, where that provably is the same.

A tokenizer works from left to right in steps, and each step is known to leave a border alone where
an ASCII letter or digit stands before a space (a *cut*), if the conditions of `_has_cuts` hold:

- Normalizers change neither side of a cut by what stands on the other.
- Pre-tokenizers split the text left of a cut without regard to what follows: none of their matches
  goes from a letter or digit on into a space, and what they look ahead at ends before the cut.
- Models that join pieces (BPE), choose them (Unigram) or look words up cannot join across a cut,
  because no token of the vocabulary has a letter or digit in front of a space. BPE's merges on both
  sides are then independent, and Unigram's best path to the cut is that of the text before it.

So the tokens of the text up to a cut, without what is put behind a text, begin the tokens of the
whole text. Every other tokenizer reads all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

# Characters that are read at first for each token that is wanted, and at least.
CHARS_PER_TOKEN, LEAST_CHARS = 8, 1 << 14
_CUT = re.compile("[A-Za-z0-9] ")
_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer",
                "Prepend", "Precompiled", "Nmt", "Strip"}  # fmt: skip
_WORDS = {"Whitespace", "WhitespaceSplit", "BertPreTokenizer"}
_PRE_TOKENIZERS = {*_WORDS, "ByteLevel", "Metaspace", "Digits", "Punctuation"}
# The alternatives of the published splitting patterns. Each was looked at: none matches a letter or
# digit and then a space, and none looks further ahead than the character behind it.
_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ALTERNATIVES = {
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", _ENDINGS),
    *(r"\p{L}+", r" ?\p{L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"),
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDINGS}?",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDINGS}?",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    *(r"\p{N}", r"\p{N}+", r" ?\p{N}+", r"\p{N}{1,3}", r"\d", r"\d+", r"\d{1,3}"),
    *(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"),
    *(r"\s*[\r\n]+", r"\s*[\r\n]", r"\s+(?!\S)", r"\s+"),
}


def first_tokens(tokenizer: Callable[..., Any], text: str, n: int) -> list[int]:
    """The ids of `text` as one call gives them: all, or at least the first n of them.

    `verbose=False` only silences a warning on texts longer than the context: we cut windows.
    """
    size = max(LEAST_CHARS, CHARS_PER_TOKEN * n)
    n_behind = None if len(text) <= 2 * size else _behind(tokenizer)
    while n_behind is not None and size < len(text):
        cut = _last_cut(text, size)
        if cut:
            found = tokens_of(tokenizer, text[:cut])
            found = found[: len(found) - n_behind]
            if len(found) >= n:
                return found
        size *= 2
    return tokens_of(tokenizer, text)


def tokens_of(tokenizer: Callable[..., Any], text: str) -> list[int]:
    ids = tokenizer(text, verbose=False)["input_ids"]
    return ids if isinstance(ids, list) else list(ids)


def _last_cut(text: str, size: int) -> int:
    """The last place up to `size` where a space follows a letter or digit; 0 if there is none."""
    at = text.rfind(" ", 1, size)
    while at > 0 and not (text[at - 1].isascii() and text[at - 1].isalnum()):
        at = text.rfind(" ", 1, at)
    return max(at, 0)


def _behind(tokenizer: Any) -> int | None:
    """How many ids the tokenizer puts behind a text; None where its texts cannot be cut."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not _has_cuts(tokenizer, backend):
        return None
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        if bare and whole[start : start + len(bare)] == bare:
            return len(whole) - start - len(bare)
    return None


def _has_cuts(tokenizer: Any, backend: Any) -> bool:
    normalizers = list(_steps(backend.normalizer, "normalizers"))
    splitters = list(_steps(backend.pre_tokenizer, "pretokenizers"))
    if not all(map(_is_safe_normalizer, normalizers)) or not all(map(_is_safe_splitter, splitters)):
        return False
    model, kinds = backend.model, {step["type"] for step in splitters}
    if type(model).__name__ == "BPE":
        is_plain = not (
            model.dropout or model.end_of_word_suffix or model.continuing_subword_prefix
        )
    elif type(model).__name__ == "Unigram":
        is_plain = True
    else:  # words are looked up whole
        is_plain = type(model).__name__ in ("WordPiece", "WordLevel") and bool(kinds & _WORDS)
    if not is_plain:
        return False
    is_marked = "Metaspace" in kinds or any(step["type"] == "Replace" for step in normalizers)
    spaces = [" ", *(["Ġ"] if "ByteLevel" in kinds else []), *(["▁"] if is_marked else [])]
    crossing = re.compile(f"[A-Za-z0-9][{''.join(spaces)}]")
    vocabulary = tokenizer.get_vocab()
    has_space = bool(kinds & _WORDS) or any(space in vocabulary for space in spaces)
    return has_space and not any(map(crossing.search, vocabulary))


def _steps(component: Any, inner: str) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer as its file describes them."""
    waiting = [] if component is None else [json.loads(component.__getstate__())]
    while waiting:
        step = waiting.pop()
        if step["type"] == "Sequence":
            waiting += reversed(step[inner])
        else:
            yield step


def _is_safe_normalizer(step: dict[str, Any]) -> bool:
    if step["type"] == "Replace":
        literal = step["pattern"].get("String")
        return literal is not None and not literal.strip(" ")
    return step["type"] in _NORMALIZERS


def _is_safe_splitter(step: dict[str, Any]) -> bool:
    if step["type"] != "Split":
        return step["type"] in _PRE_TOKENIZERS
    pattern = step["pattern"]
    if "String" in pattern:
        return not _CUT.search(pattern["String"])
    return all(part in _ALTERNATIVES for part in _alternatives(pattern["Regex"]))


def _alternatives(pattern: str) -> list[str]:
    """The parts of a pattern between the bars that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(pattern):
        depth += (character in "([") - (character in ")]")
        if character == "|" and not depth:
            parts.append(pattern[start:i])
            start = i + 1
    return [*parts, pattern[start:]]
