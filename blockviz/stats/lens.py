"""The early-exit lens: what the vocabulary head would say of the stream at every depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from blockviz.models.model import BlockModel
from blockviz.models.stage import Head
from blockviz.stats.passes import PassStatistic, Point, StreamPoints, around_block
from blockviz.types import BlockId, CalibrationBatch, CalibrationSet, LetterPrompts

LENS_STATISTICS = ("ent", "conf", "gap", "key", "ce", "kld", "jsd")


@dataclass(frozen=True)
class EarlyExit(PassStatistic):
    """One number of the early-exit distribution at every depth; Jo et al., EACL 2026, Table 4.

    q = softmax(head(norm(h))) at the last position of each window, and at `positions - 1` more
    spread evenly in front of it; p is the model's own output there. `has_norm` False leaves the
    final norm out. `top` > 0 keeps only the largest so many words of q (and of p, where
    the two are compared, those of p), rescaled to 1. With letter prompts q and p are restricted to
    the answers' letters and rescaled.
    statistic: ent entropy, conf largest q, gap largest minus second, key q of the right word (the
    right letter, or in text the next token, for which the position is the last but one), ce
    -sum p log q, kld KL(p | q), jsd Jensen-Shannon; nats.
    Result: {BlockId: (n_items, 2) float64 in front of and behind the block}, window of each item
    under `windows` (n_items,) int64.
    """

    statistic: str = "ent"
    has_norm: bool = True
    positions: int = 1
    top: int = 0
    on_prompts: bool = False

    def start(
        self,
        model: BlockModel,
        blocks: tuple[BlockId, ...],
        windows: CalibrationSet,
        prompts: LetterPrompts | None = None,
    ) -> _Running:
        return _Running(model, blocks, self, prompts)


class _Running(StreamPoints):
    def __init__(
        self,
        model: BlockModel,
        blocks: tuple[BlockId, ...],
        asked: EarlyExit,
        prompts: LetterPrompts | None,
    ) -> None:
        parallel = model.family.is_parallel
        self._pairs = {b: around_block(b, is_parallel=parallel) for b in blocks}
        self._final: Point = ("in", model.info.n_layers)
        super().__init__(model, {self._final, *(p for two in self._pairs.values() for p in two)})
        self._asked, self._prompts = asked, prompts
        self._head = Head(model)
        self._rows: dict[Point, torch.Tensor] = {}
        self._found: dict[Point, list[torch.Tensor]] = {}
        self._windows: list[torch.Tensor] = []
        self._n_windows = 0

    def begin(self, batch: CalibrationBatch) -> None:
        super().begin(batch)
        is_next_wanted = self._asked.statistic == "key" and self._prompts is None
        mask = batch.attention_mask[:, 1:] if is_next_wanted else batch.attention_mask
        self._window, self._place = last_positions(mask, self._asked.positions)

    def take(self, point: Point, stream: torch.Tensor) -> None:
        self._rows[point] = stream[self._window, self._place]

    @torch.inference_mode()
    def end(self) -> None:
        targets, allowed = self._answers()
        final = self._head.hidden(self._rows[self._final][:, None])
        p = self._log_probabilities(final, allowed)
        hidden = {
            point: self._head.hidden(rows[:, None]) if self._asked.has_norm else rows
            for point, rows in self._rows.items()
        }
        places = list(hidden)
        stacked = torch.cat([hidden[point] for point in places])
        n = len(self._window)
        found = torch.empty(len(stacked), dtype=torch.float64)
        for rows, logits in self._head.chunks(stacked):
            item = torch.arange(rows.start, rows.stop) % n
            q = self._restricted(logits.float(), None if allowed is None else allowed[item])
            found[rows] = lens_number(self._asked, q, p[item], targets[item]).cpu().double()
        for point, values in zip(places, found.view(len(places), n), strict=True):
            self._found.setdefault(point, []).append(values)
        self._windows.append(self._window + self._n_windows)
        self._n_windows += self.batch.input_ids.shape[0]
        self._rows.clear()

    def _answers(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(right word of each item; the allowed words of each item, -1 as filler)."""
        if self._prompts is None:
            # The shift comes round to the first token at the end, where nobody asks for it.
            return self.batch.input_ids.roll(-1, dims=1)[self._window, self._place], None
        rows = slice(self._n_windows, self._n_windows + self.batch.input_ids.shape[0])
        return self._prompts.answer[rows][self._window], self._prompts.letters[rows][self._window]

    def _log_probabilities(
        self, hidden: torch.Tensor, allowed: torch.Tensor | None
    ) -> torch.Tensor:
        parts = []
        for rows, logits in self._head.chunks(hidden):
            parts.append(
                self._restricted(logits.float(), None if allowed is None else allowed[rows])
            )
        return torch.cat(parts)

    def _restricted(self, logits: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """Log-probabilities over the vocabulary, or over the allowed words; -inf on filler."""
        if allowed is not None:
            allowed = allowed.to(logits.device)
            logits = logits.gather(-1, allowed.clamp_min(0)).masked_fill(allowed < 0, -torch.inf)
        return logits.log_softmax(dim=-1)

    def result(self) -> dict[Any, torch.Tensor]:
        columns = {point: torch.cat(values) for point, values in self._found.items()}
        found: dict[Any, torch.Tensor] = {
            block: torch.stack([columns[front], columns[back]], dim=-1)
            for block, (front, back) in self._pairs.items()
        }
        return {**found, "windows": torch.cat(self._windows)}


def last_positions(mask: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(window, position) of the last and n - 1 more evenly spread positions of each row of mask."""
    windows, places = [], []
    for row, length in enumerate(mask.sum(dim=-1).tolist()):
        k = min(n, length)
        windows += [row] * k
        places += [length - 1 - (i * length) // k for i in reversed(range(k))]
    return torch.tensor(windows), torch.tensor(places)


def lens_number(
    asked: EarlyExit, q: torch.Tensor, p: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """(item,) float32 of log-probabilities q and p (item, words) and target indices (item,)."""
    name = asked.statistic
    if name == "key":
        return q.gather(-1, targets.to(q.device)[:, None])[:, 0].exp()
    if asked.top and asked.top < q.shape[-1]:
        compared = name in ("ce", "kld", "jsd")
        kept = (p if compared else q).topk(asked.top, dim=-1).indices
        q = q.gather(-1, kept).log_softmax(dim=-1)
        p = p.gather(-1, kept).log_softmax(dim=-1)
    if name == "ent":
        return _minus_sum(q, q)
    if name in ("conf", "gap"):
        best = q.topk(2, dim=-1).values.exp()
        return best[:, 0] if name == "conf" else best[:, 0] - best[:, 1]
    if name == "ce":
        return _minus_sum(p, q)
    if name == "kld":
        return (_minus_sum(p, q) - _minus_sum(p, p)).clamp_min(0)
    middle = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
    mixed = (
        _minus_sum(p, middle) - _minus_sum(p, p) + _minus_sum(q, middle) - _minus_sum(q, q)
    ) / 2
    return mixed.clamp_min(0)


def _minus_sum(weight: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """-sum over words of exp(weight) * other, where a weight of zero counts for nothing."""
    terms = torch.where(weight == -torch.inf, 0.0, weight.exp() * other)
    return -terms.sum(dim=-1)
