"""The one place where a next-token loss is computed."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

# The loss passes over its logits several times: on a CPU a few rows at a time stay in the cache.
PIECE_BYTES = 6 << 20


def next_token_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(position,) float32 nats: -log softmax(logits)[target] of (position, vocab) logits.

    Widened to float32 first; targets (position,) int64.
    """
    size = len(logits)
    if logits.device.type == "cpu":
        size = max(8, PIECE_BYTES // (4 * logits.shape[-1]))
    pieces = zip(logits.split(size), targets.split(size), strict=True)
    return torch.cat([cross_entropy(x.float(), y, reduction="none") for x, y in pieces])
