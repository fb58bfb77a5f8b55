"""Greedy text, token by token, with a cache; a plan's blocks are left out of every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jinja2 import TemplateError

from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.models.overflow import is_finite, overflow
from blockviz.models.stage import Head
from blockviz.types import BlockId, check_rows


def prompt_ids(model: BlockModel, prompt: str, *, is_chat: bool) -> list[int]:
    """Token ids of the prompt, raw or as one user turn of the model's own chat template."""
    tokenizer = model.tokenizer
    if not is_chat:
        ids = tokenizer(prompt)["input_ids"]
    elif not model.info.has_chat_template:
        raise BadInput(
            "The prompt was to go through the chat template.",
            f"{model.info.name} has none.",
            "Send it raw.",
        )
    else:
        text = _as_turn(model, prompt)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise BadInput(
            "Text was to be continued.", "The prompt holds no token.", "Write at least one word."
        )
    check_rows(ids, model.info.vocab_size, tokenizer, asked="A prompt was to be read.")
    return list(ids)


def _as_turn(model: BlockModel, prompt: str) -> str:
    turn = [{"role": "user", "content": prompt}]
    try:
        return model.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    except (TemplateError, TypeError, ValueError, KeyError, RecursionError) as error:
        said = " ".join(str(error).split())[:160].rstrip(".")
        raise BadInput(
            "The prompt was to go through the chat template.",
            f"The template of {model.info.name} fails ({said}).",
            "Send it raw.",
        ) from error


def continue_greedily(
    model: BlockModel, ids: list[int], *, removed: Iterable[BlockId] = (), max_new_tokens: int
) -> Iterator[str]:
    """The text so far after each new token, until the end token or `max_new_tokens`.

    No mask outlives a step, so other plans may run between two tokens.
    """
    if len(ids) + max_new_tokens > model.info.max_seq_len:
        raise BadInput(
            f"{max_new_tokens} tokens after a prompt of {len(ids)} were asked for.",
            f"{model.info.name} reads at most {model.info.max_seq_len} tokens.",
            "Shorten the prompt or ask for fewer tokens.",
        )
    removed, new, cache = tuple(removed), [], None
    head, stops = Head(model), end_tokens(model)
    step = torch.tensor([ids])
    while len(new) < max_new_tokens:
        token, cache = _next(model, head, step, cache, removed)
        if token in stops:
            return
        new.append(token)
        step = torch.tensor([[token]])
        yield model.tokenizer.decode(new, skip_special_tokens=True)


def end_tokens(model: BlockModel) -> frozenset[int]:
    """The ids at which the model's own settings end a text."""
    found: set[int] = set()
    for holder in (model.module.generation_config, model.module.config, model.tokenizer):
        ids = getattr(holder, "eos_token_id", None)
        if ids is not None:
            found.update(ids if isinstance(ids, list) else [ids])
    return frozenset(found)


@torch.inference_mode()
def _next(
    model: BlockModel, head: Head, step: torch.Tensor, cache: object, removed: tuple[BlockId, ...]
) -> tuple[int, object]:
    with model.masked(removed):
        output = model.module.base_model(
            input_ids=step.to(model.device), past_key_values=cache, use_cache=True
        )
    logits = head.logits(output.last_hidden_state[:, -1])
    if not is_finite(logits):
        raise overflow(model, f"on this prompt{' without these blocks' if removed else ''}")
    return int(logits.argmax(dim=-1)), output.past_key_values
