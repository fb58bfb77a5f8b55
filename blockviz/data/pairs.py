"""A context and its continuation as token ids, split as the public evaluation harness does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blockviz.errors import BadInput


def encode(tokenizer: Callable[..., Any], text: str) -> list[int]:
    """The ids of `text` alone. `verbose=False` only silences a warning about long texts."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids if isinstance(ids, list) else list(ids)


def special_prefix(tokenizer: Any, *, add_bos: bool | None = None) -> tuple[int, ...]:
    """The ids in front of every text: the tokenizer's default for None, else BOS or nothing.

    What a tokenizer puts behind a text is left out, since a continuation follows.
    """
    if add_bos is False:
        return ()
    bos = tokenizer.bos_token_id
    if add_bos:
        if bos is None:
            raise BadInput(
                "A BOS token in front of every text was asked for.",
                "This model's tokenizer has none.",
                "Leave the setting at the tokenizer's default.",
            )
        return (bos,)
    bare, default = encode(tokenizer, "a"), tokenizer("a")["input_ids"]
    starts = (i for i in range(len(default)) if default[i : i + len(bare)] == bare)
    return tuple(default[: next(starts, 0)])


def encode_pair(
    tokenizer: Any, context: str, continuation: str, prefix: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    """(ids of the context with `prefix`, ids of the continuation).

    Both texts are encoded as one, and the continuation is what lies behind as many ids as the
    context has alone. Spaces at the end of the context go to the continuation first: a tokenizer
    that merges them with the next word would not find the border. Without any context, BOS or else
    EOS stands in, because the first token cannot be predicted from nothing.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    n_context = len(encode(tokenizer, kept))
    whole = encode(tokenizer, kept + continuation)
    before = [*prefix, *whole[:n_context]]
    return before or [_stand_in(tokenizer)], whole[n_context:]


def _stand_in(tokenizer: Any) -> int:
    for name in ("bos_token_id", "eos_token_id"):
        value = getattr(tokenizer, name, None)
        if value is not None:
            return value
    raise BadInput(
        "A continuation without any context was to be scored.",
        "This model's tokenizer has neither a BOS nor an EOS token to start from.",
        "Give the row a query, or leave it out.",
    )
