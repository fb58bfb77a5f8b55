"""Perplexity over fixed windows: exp of the mean over windows of their mean NLL."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from blockviz.evaluate.loss import next_token_nll
from blockviz.models.model import BlockModel
from blockviz.models.stage import Head, Stage
from blockviz.types import BlockId, CalibrationBatch, CalibrationSet, Done, Events, Progress


@dataclass(frozen=True)
class Perplexity:
    """`window_nll`: mean nats of each window; `n_tokens`: tokens predicted (not those read).
    `token_nll`: nats of each predicted token of the first windows, as many as were to be kept."""

    window_nll: tuple[float, ...]
    n_tokens: int
    token_nll: tuple[tuple[float, ...], ...] = ()

    @property
    def nll(self) -> float:
        return math.fsum(self.window_nll) / len(self.window_nll)

    @property
    def nll_stderr(self) -> float:
        """Standard error of the mean over windows; 0 for one window."""
        n = len(self.window_nll)
        if n < 2:
            return 0.0
        spread = math.fsum((x - self.nll) ** 2 for x in self.window_nll) / (n - 1)
        return math.sqrt(spread / n)

    @property
    def value(self) -> float:
        return math.exp(min(self.nll, 700.0))

    @property
    def stderr(self) -> float:
        return self.value * self.nll_stderr

    def rise_stderr(self, baseline: Perplexity) -> float:
        """Standard error of the paired difference in nats to `baseline` on the same windows."""
        pairs = zip(self.window_nll, baseline.window_nll, strict=True)
        return Perplexity(tuple(a - b for a, b in pairs), self.n_tokens).nll_stderr


def measure_perplexity(
    model: BlockModel,
    windows: CalibrationSet,
    *,
    removed: Iterable[BlockId] = (),
    batch_tokens: int = 1024,
    n_kept: int = 0,
) -> Events:
    """Done(Perplexity) of the model without `removed`; a Progress per batch, partial included.

    n_kept: of how many windows to keep the loss of each token.
    """
    removed = tuple(removed)
    batch_size = max(1, batch_tokens // windows.input_ids.shape[1])
    found: list[float] = []
    tokens: list[tuple[float, ...]] = []
    n_tokens = 0
    for batch in windows.batches(batch_size):
        yield Progress("perplexity", len(found), len(windows))
        nll, has_target = _token_nll(model, batch, removed)
        found += (nll.sum(dim=-1) / has_target.sum(dim=-1)).tolist()
        rows = zip(nll[: n_kept - len(tokens)], has_target, strict=False)
        tokens += [tuple(row[is_predicted].tolist()) for row, is_predicted in rows]
        n_tokens += int(has_target.sum())
        yield Progress(
            "perplexity", len(found), len(windows), partial=Perplexity(tuple(found), n_tokens)
        )
    yield Done(Perplexity(tuple(found), n_tokens, tuple(tokens)))


@torch.inference_mode()
def _token_nll(
    model: BlockModel, batch: CalibrationBatch, removed: Iterable[BlockId]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(nats of the token behind each position, whether there is one), both (batch, seq); the
    logits are never held all at once."""
    stage, head = Stage(model, batch), Head(model)
    hidden = head.hidden(stage.run(stage.stream, 0, removed))
    targets, has_target = next_tokens(batch)
    rows = has_target.flatten().nonzero()[:, 0]
    wanted = targets.flatten()[rows].to(hidden.device)
    nll = torch.zeros(has_target.numel(), dtype=torch.float64)
    for part, logits in head.chunks(hidden[rows.to(hidden.device)]):
        nll[rows[part]] = next_token_nll(logits, wanted[part]).cpu().double()
    return nll.view(has_target.shape), has_target


def next_tokens(batch: CalibrationBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """(targets, has_target), both (batch, seq): the id that follows each position, if any does."""
    targets = torch.zeros_like(batch.input_ids)
    targets[:, :-1] = batch.input_ids[:, 1:]
    has_target = torch.zeros_like(batch.attention_mask)
    has_target[:, :-1] = batch.attention_mask[:, 1:] & batch.attention_mask[:, :-1]
    return targets, has_target
