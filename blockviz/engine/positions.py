"""Which positions of each window are read where not all of them are."""

from __future__ import annotations

import zlib

import torch

from blockviz.evaluate.perplexity import next_tokens
from blockviz.types import CalibrationBatch, CalibrationSet


def sample(windows: CalibrationSet, n: int | None, seed: int) -> torch.Tensor | None:
    """(window, seq) bool: n positions with a next token of each window; None where all are read."""
    if n is None:
        return None
    _, has_target = next_tokens(CalibrationBatch(windows.input_ids, windows.attention_mask))
    drawn = torch.stack([_drawn(ids, seed) for ids in windows.input_ids])
    first = drawn.masked_fill(~has_target, 2.0).argsort(dim=1).argsort(dim=1) < n
    return first & has_target


def _drawn(ids: torch.Tensor, seed: int) -> torch.Tensor:
    """(seq,) random numbers that hang on a window's own tokens, wherever it stands."""
    own = zlib.crc32(ids.cpu().numpy().tobytes(), zlib.crc32(str(seed).encode()))
    return torch.rand(len(ids), generator=torch.Generator().manual_seed(own))
