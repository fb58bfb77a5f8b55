"""The one place where a next-token loss is computed."""

from __future__ import annotations

import torch


def next_token_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(position,) float32 nats: -log softmax(logits)[target] of (position, vocab) logits.

    Widened to float32 first; targets (position,) int64.
    """
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
