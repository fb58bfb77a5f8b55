"""The early-exit lens of one position of a text, in words."""

from __future__ import annotations

import torch

from blockviz.errors import BadInput, OverLimit
from blockviz.evaluate import read_early_exits
from blockviz.models.generate import prompt_ids
from blockviz.models.model import BlockModel
from blockviz.session.opening import provenance_of
from blockviz.session.views import Limits
from blockviz.types import Done, Events, Lens, Progress

TOP_TOKENS = 5


def read_lens(
    model: BlockModel,
    text: str,
    *,
    position: int = -1,
    k: int = TOP_TOKENS,
    limits: Limits | None = None,
) -> Events:
    """Done(Lens) at a position of the text's tokens, counted from the end where negative."""
    limits = limits or Limits()
    if limits.max_prompt_chars is not None and len(text) > limits.max_prompt_chars:
        raise OverLimit(
            f"A text of {len(text):,} characters was to be read.",
            f"The limit here is {limits.max_prompt_chars:,}.",
            "Shorten it.",
        )
    if not text.strip():
        raise BadInput("A text was to be read.", "It is empty.", "Write a few words.")
    ids = prompt_ids(model, text, is_chat=False)
    most = min(model.info.max_seq_len, limits.max_prompt_tokens or model.info.max_seq_len)
    if len(ids) > most:
        raise OverLimit(
            f"A text of {len(ids):,} tokens was to be read.",
            f"At most {most:,} can be read at once here.",
            "Shorten it.",
        )
    place = position + len(ids) if position < 0 else position
    if not 0 <= place < len(ids):
        raise BadInput(
            f"Token {position} of the text was to be read.",
            f"It has {len(ids)} tokens.",
            f"Choose 0 to {len(ids) - 1}, or -1 for the last one.",
        )
    yield Progress("reading", 0, 1, "early exits")
    found = read_early_exits(model, torch.tensor(ids), place, min(k, model.info.vocab_size))
    words = [[model.tokenizer.decode([i]) for i in row] for row in found.top.tolist()]
    yield Done(
        Lens(
            provenance=provenance_of(model, None),
            context=tuple(model.tokenizer.decode([i]) for i in ids[: place + 1]),
            position=place,
            depths=found.depths,
            tokens=tuple(tuple(row) for row in words),
            probabilities=tuple(tuple(row) for row in found.probabilities.tolist()),
            entropy=tuple(found.entropy.tolist()),
            rank_of_final=tuple(found.rank_of_final.tolist()),
            kl=tuple(found.kl.tolist()),
        )
    )
