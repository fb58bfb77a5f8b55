"""A repaired model that learns to predict what the whole one predicts, by its repair alone."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch.func import functional_call

from blockviz.corrections.applied import repaired_model
from blockviz.corrections.base import Repair
from blockviz.models.model import BlockModel, unwrap
from blockviz.models.repaired import RepairedModel
from blockviz.models.stage import Head, finished
from blockviz.models.writers import is_turned, writer
from blockviz.types import BlockId, CalibrationBatch

# What of the vocabulary projection is held at once takes at most so much.
PIECE_BYTES = 48 << 20
# What all other words have together counts as this at least: a log needs something.
LEAST_REST = 1e-6


def divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """(rows,) KL between the softmaxes of (rows, word) logits, in nats."""
    p, q = (logits.float().log_softmax(dim=-1) for logits in (teacher, student))
    return (p.exp() * (p - q)).sum(dim=-1)


def divergence_with_rest(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """(rows,) KL of (rows, word) log-probabilities, all other words taken together as one more."""
    rests = [(1 - x.exp().sum(dim=-1)).clamp_min(LEAST_REST) for x in (teacher, student)]
    named = (teacher.exp() * (teacher - student)).sum(dim=-1)
    return named + rests[0] * (rests[0].log() - rests[1].log())


@dataclass(frozen=True)
class Lesson:
    """One window, (1, seq) bool of the positions that count, and for each of those the (row, word)
    int32 words that the whole model holds most likely, with their float32 log-probabilities."""

    batch: CalibrationBatch
    wanted: torch.Tensor
    words: torch.Tensor
    logp: torch.Tensor


@torch.no_grad()
def lessons_of(
    model: BlockModel, head: Head, batch: CalibrationBatch, wanted: torch.Tensor, top: int
) -> list[Lesson]:
    """A lesson for every window of a batch that has a position which counts."""
    hidden, found = _normed(model, batch), []
    for i in range(len(wanted)):
        one = slice(i, i + 1)
        rows = hidden[one][wanted[one].to(hidden.device)]
        all_logp = (logits.float().log_softmax(dim=1) for _, logits in head.chunks(rows))
        best = [logp.topk(min(top, logp.shape[1]), dim=1) for logp in all_logp]
        if best:
            words = torch.cat([b.indices.int().cpu() for b in best])
            logp = torch.cat([b.values.cpu() for b in best])
            window = CalibrationBatch(batch.input_ids[one], batch.attention_mask[one])
            found.append(Lesson(window, wanted[one], words, logp))
    return found


def _normed(
    model: BlockModel, batch: CalibrationBatch, weights: Mapping[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """(batch, seq, hidden) behind the final norm, with these tensors in place of the body's own."""
    mask = batch.attention_mask
    padded = None if bool(mask.all()) else mask.to(model.device)
    ids = batch.input_ids.to(model.device)
    kwargs = {"input_ids": ids, "attention_mask": padded, "use_cache": False}
    return unwrap(functional_call(model.module.base_model, weights or {}, kwargs=kwargs))


class Student(ABC):
    """A repaired model while its `leaves` are trained. Nothing in front of the first one is kept
    for going back, and no weight of the model gets a gradient."""

    def __init__(self, repaired: RepairedModel, leaves: Mapping[BlockId, torch.Tensor]) -> None:
        self._model = repaired
        self.leaves = {block: leaf.requires_grad_() for block, leaf in leaves.items()}
        body = repaired.module.base_model
        self._weights = {name: tensor.detach() for name, tensor in body.named_parameters()}
        out = repaired.module.get_output_embeddings()
        self._words = out.weight.detach()
        self._bias = None if out.bias is None else out.bias.detach()

    def learn(self, lesson: Lesson) -> float:
        """The loss of a window, after adding its gradient to the leaves."""
        with torch.enable_grad():
            hidden = self._hidden(lesson)
            # The vocabulary's part is gone through piece by piece, forward and back.
            leaf, loss = hidden.detach().requires_grad_(), 0.0
            for part in self._parts(leaf, lesson):
                part = part.sum() / len(leaf)
                part.backward()
                loss += part.item()
            hidden.backward(leaf.grad)
        return loss

    @torch.no_grad()
    def loss(self, lessons: list[Lesson]) -> float:
        """Mean over all positions."""
        sums = [
            sum(part.sum().item() for part in self._parts(self._hidden(lesson), lesson))
            for lesson in lessons
        ]
        return math.fsum(sums) / sum(len(lesson.words) for lesson in lessons)

    def _hidden(self, lesson: Lesson) -> torch.Tensor:
        hidden = _normed(self._model, lesson.batch, self._bent())
        return hidden[lesson.wanted.to(hidden.device)]

    def _parts(self, hidden: torch.Tensor, lesson: Lesson) -> Iterator[torch.Tensor]:
        """(row,) divergences of (row, hidden), a few rows at a time."""
        n_rows = max(1, PIECE_BYTES // self._row_bytes(lesson))
        given = (t.split(n_rows) for t in (lesson.words, lesson.logp))
        start = 0
        for words, teacher in zip(*given, strict=True):
            rows = hidden[start : start + len(words)]
            start += len(words)
            yield self._divergence(rows, words.to(rows.device).long(), teacher.to(rows.device))

    @abstractmethod
    def _bent(self) -> Mapping[str, torch.Tensor]:
        """The body's tensors, with the leaves in them or beside them."""

    @abstractmethod
    def _row_bytes(self, lesson: Lesson) -> int:
        """What a position takes of the vocabulary projection."""

    @abstractmethod
    def _divergence(
        self, hidden: torch.Tensor, words: torch.Tensor, teacher: torch.Tensor
    ) -> torch.Tensor:
        """(row,) of (row, hidden) and the (row, word) words with the whole model's log-p."""


class PatchStudent(Student):
    """Learns the maps of a repair; compares the softmaxes of a position's words among themselves.

    leaves: P itself, not P - I, so that what decays is P.
    """

    def __init__(self, model: BlockModel, start: Repair) -> None:
        copies = {block: copy.deepcopy(module) for block, module in start.maps.items()}
        repaired = repaired_model(model, replace(start, maps=copies))
        self._eye = torch.eye(model.info.hidden_size, device=model.device)
        super().__init__(
            repaired, {block: self._eye + repaired.maps[block].matrix for block in start.maps}
        )

    def _bent(self) -> Mapping[str, torch.Tensor]:
        for block, patch in self.leaves.items():
            self._model.maps[block].matrix = patch - self._eye
        return self._weights

    def _row_bytes(self, lesson: Lesson) -> int:
        return lesson.words.shape[1] * self._words.shape[1] * self._words.element_size()

    def _divergence(
        self, hidden: torch.Tensor, words: torch.Tensor, teacher: torch.Tensor
    ) -> torch.Tensor:
        logits = (self._words[words] @ hidden[:, :, None])[:, :, 0]
        if self._bias is not None:
            logits = logits + self._bias[words]
        return divergence(teacher, finished(logits, self._model.module.config))


class WriterStudent(Student):
    """Learns the writers of a repair; all words that are not a position's own count as one.

    leaves: the (out, in) float32 weights.
    """

    def __init__(self, model: BlockModel, start: Repair) -> None:
        repaired = repaired_model(model, start)
        leaves = {b: w.weight.to(model.device, copy=True) for b, w in start.writers.items()}
        super().__init__(repaired, leaves)
        names = {id(t): name for name, t in repaired.module.base_model.named_parameters()}
        self._names = {b: names[id(writer(repaired, b).weight)] for b in leaves}
        self._is_turned = {b: is_turned(writer(repaired, b)) for b in leaves}

    def _bent(self) -> Mapping[str, torch.Tensor]:
        return self._weights | {
            self._names[b]: (leaf.T if self._is_turned[b] else leaf).to(self._words.dtype)
            for b, leaf in self.leaves.items()
        }

    def _row_bytes(self, lesson: Lesson) -> int:
        return len(self._words) * torch.float32.itemsize

    def _divergence(
        self, hidden: torch.Tensor, words: torch.Tensor, teacher: torch.Tensor
    ) -> torch.Tensor:
        logits = torch.nn.functional.linear(hidden, self._words, self._bias)
        logp = finished(logits, self._model.module.config).float().log_softmax(dim=-1)
        return divergence_with_rest(teacher, logp.gather(1, words))
