"""A repaired model that learns to predict what the whole one predicts, by its patches alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch.func import functional_call

from blockviz.corrections.applied import repaired_model
from blockviz.corrections.base import Repair
from blockviz.models.model import BlockModel, unwrap
from blockviz.models.stage import Head, finished
from blockviz.types import CalibrationBatch

# The rows of the vocabulary projection that are gathered at once take at most so much.
PIECE_BYTES = 48 << 20


def divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """(rows,) KL between the softmaxes of (rows, word) logits, in nats."""
    p, q = (logits.float().log_softmax(dim=-1) for logits in (teacher, student))
    return (p.exp() * (p - q)).sum(dim=-1)


@dataclass(frozen=True)
class Lesson:
    """One window, (1, seq) bool of the positions that count, and for each of those the (row, word)
    int32 words that the whole model holds most likely, with their logits."""

    batch: CalibrationBatch
    wanted: torch.Tensor
    words: torch.Tensor
    logits: torch.Tensor


@torch.no_grad()
def lessons_of(
    model: BlockModel, head: Head, batch: CalibrationBatch, wanted: torch.Tensor, top: int
) -> list[Lesson]:
    """A lesson for every window of a batch that has a position which counts."""
    hidden, found = _normed(model, batch), []
    for i in range(len(wanted)):
        one = slice(i, i + 1)
        rows = hidden[one][wanted[one].to(hidden.device)]
        best = [logits.topk(min(top, logits.shape[1]), dim=1) for _, logits in head.chunks(rows)]
        if best:
            words = torch.cat([b.indices.int().cpu() for b in best])
            logits = torch.cat([b.values.cpu() for b in best])
            window = CalibrationBatch(batch.input_ids[one], batch.attention_mask[one])
            found.append(Lesson(window, wanted[one], words, logits))
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


class Student:
    """The repaired model while its patches are trained. Nothing in front of the first one is kept
    for going back, and no weight of the model gets a gradient."""

    def __init__(self, model: BlockModel, start: Repair) -> None:
        copies = {block: copy.deepcopy(module) for block, module in start.maps.items()}
        self._model = repaired_model(model, replace(start, maps=copies))
        self._eye = torch.eye(model.info.hidden_size, device=model.device)
        # P itself, so that what decays is P.
        self.patches = {
            block: (self._eye + self._model.maps[block].matrix).requires_grad_()
            for block in start.maps
        }
        body = self._model.module.base_model
        self._weights = {name: tensor.detach() for name, tensor in body.named_parameters()}
        out = self._model.module.get_output_embeddings()
        self._words = out.weight.detach()
        self._bias = None if out.bias is None else out.bias.detach()

    def learn(self, lesson: Lesson) -> float:
        """The loss of a window, after adding its gradient to the patches."""
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
        for block, patch in self.patches.items():
            self._model.maps[block].matrix = patch - self._eye
        hidden = _normed(self._model, lesson.batch, self._weights)
        return hidden[lesson.wanted.to(hidden.device)]

    def _parts(self, hidden: torch.Tensor, lesson: Lesson) -> Iterator[torch.Tensor]:
        """(row,) divergences of (row, hidden), a few rows at a time."""
        a_row = lesson.words.shape[1] * hidden.shape[1] * hidden.element_size()
        given = (t.split(max(1, PIECE_BYTES // a_row)) for t in (lesson.words, lesson.logits))
        start = 0
        for words, teacher in zip(*given, strict=True):
            rows = hidden[start : start + len(words)]
            start += len(words)
            student = self._logits(rows, words.to(rows.device).long())
            yield divergence(teacher.to(rows.device), student)

    def _logits(self, hidden: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """(row, word) of (row, hidden) and the words of each row."""
        logits = (self._words[words] @ hidden[:, :, None])[:, :, 0]
        if self._bias is not None:
            logits = logits + self._bias[words]
        return finished(logits, self._model.module.config)
