"""A few logits of a model on a text of random words, by which it is known again anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from blockviz.models.reload import logits_of

SCHEMA = "blockviz/fingerprint/1"
N_TOKENS, N_WORDS = 24, 64

# Largest difference of two logits beside the largest logit, by the dtype that they are computed in.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 5e-3}


def fingerprint(module: nn.Module, *, seed: int = 0) -> dict[str, Any]:
    """ids (24,) and words (64,) drawn from `seed`; logits (24, 64) of those words behind every
    token, and the logarithm of what all words' logits sum up to, (24,)."""
    n_words = module.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(n_words, (N_TOKENS,), generator=generator).tolist()
    words = torch.randint(n_words, (N_WORDS,), generator=generator).sort().values
    found = logits_of(module, ids)
    return {
        "schema": SCHEMA,
        "dtype": str(module.dtype).removeprefix("torch."),
        "ids": ids,
        "words": words.tolist(),
        "logits": found[:, words].tolist(),
        "log_sums": found.logsumexp(-1).tolist(),
    }


def distance(module: nn.Module, known: Mapping[str, Any]) -> float:
    """The largest difference to what is known, beside the largest of it; inf if it is no number."""
    found = logits_of(module, known["ids"])
    mine = torch.cat([found[:, known["words"]], found.logsumexp(-1, keepdim=True)], dim=-1)
    wanted = torch.cat(
        [torch.tensor(known["logits"]), torch.tensor(known["log_sums"])[:, None]], dim=-1
    )
    gap = float((mine - wanted).abs().max() / wanted.abs().max())
    return gap if math.isfinite(gap) else math.inf


def tolerance(dtype: str) -> float:
    return TOLERANCES.get(dtype, 2e-2)
