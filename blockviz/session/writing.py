"""What the original and the pruned model write after the same prompt, side by side."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from blockviz.errors import OverLimit
from blockviz.models.generate import continue_greedily, prompt_ids
from blockviz.models.model import BlockModel
from blockviz.session.views import Continuation, Limits
from blockviz.store import Store, key
from blockviz.types import Done, Events, Progress, PruningPlan


def write_pair(
    model: BlockModel,
    prompt: str,
    plan: PruningPlan,
    *,
    max_new_tokens: int,
    is_chat: bool,
    store: Store | None = None,
    limits: Limits | None = None,
) -> Events:
    """Done(Continuation): greedy text of both, streamed in Progress.partial token by token.

    Texts come from `store` where they were written before.
    """
    plan.check(model.info)
    store = Store() if store is None else store
    limits = Limits() if limits is None else limits
    ids = checked_prompt(model, prompt, limits, max_new_tokens=max_new_tokens, is_chat=is_chat)
    so_far = Continuation(
        prompt, is_chat=is_chat, note="chat template" if is_chat else "raw prompt"
    )
    for column, removed in (("original", ()), ("pruned", plan.removed)):
        where = key(
            "text",
            model.info.name,
            model.info.revision,
            model.info.dtype,
            ids,
            max_new_tokens,
            sorted(str(b) for b in removed),
        )
        text = store.get(where)
        if text is None:
            text, n = "", 0
            texts = continue_greedily(model, ids, removed=removed, max_new_tokens=max_new_tokens)
            with contextlib.closing(texts):
                for text in texts:
                    n += 1
                    so_far = replace(so_far, **{column: text})
                    yield Progress(f"writing, {column}", n, max_new_tokens, partial=so_far)
            store.put(where, text)
        so_far = replace(so_far, **{column: text})
    difference = first_difference(so_far.original, so_far.pruned)
    yield Done(replace(so_far, first_difference=difference, is_complete=True))


def write_text(
    model: BlockModel, prompt: str, *, max_new_tokens: int, is_chat: bool, name: str = "repaired"
) -> Events:
    """Done(text) of a model as it is, greedy; for one that was repaired, which no store knows."""
    ids, text = prompt_ids(model, prompt, is_chat=is_chat), ""
    texts = continue_greedily(model, ids, max_new_tokens=max_new_tokens)
    with contextlib.closing(texts):
        for n, text in enumerate(texts, 1):
            yield Progress(f"writing, {name}", n, max_new_tokens, partial=text)
    yield Done(text)


def first_difference(a: str, b: str) -> int | None:
    """Index of the first character at which two texts part; None if they are equal."""
    if a == b:
        return None
    together = zip(a, b, strict=False)
    return next((i for i, (x, y) in enumerate(together) if x != y), min(len(a), len(b)))


def checked_prompt(
    model: BlockModel, prompt: str, limits: Limits, *, max_new_tokens: int, is_chat: bool
) -> list[int]:
    """The prompt's token ids; OverLimit where it or what is to follow is longer than allowed."""
    _under(limits.max_prompt_chars, len(prompt), "characters in the prompt")
    _under(limits.max_new_tokens, max_new_tokens, "new tokens")
    ids = prompt_ids(model, prompt, is_chat=is_chat)
    _under(limits.max_prompt_tokens, len(ids), "tokens in the prompt")
    return ids


def _under(limit: int | None, value: int, what: str) -> None:
    if limit is not None and value > limit:
        raise OverLimit(
            f"{value} {what} were asked for.",
            f"The limit here is {limit}.",
            "Ask for fewer, or run blockviz on your own machine, where there is no limit.",
        )
