"""Repairs that are trained until the model predicts as the whole one does."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import nn

from blockviz.corrections.base import (
    TOKENS,
    Correction,
    Pair,
    Place,
    Repair,
    Where,
    Writing,
)
from blockviz.corrections.fitting import fit
from blockviz.corrections.rows import checked_tokens, counted
from blockviz.corrections.student import Lesson, Student, lessons_of
from blockviz.corrections.training import (
    EPOCHS,
    RATE,
    SEED,
    STEP_PASSES,
    Best,
    Schedule,
    Tensors,
    Trained,
    shuffled,
    train,
)
from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.models.stage import Head
from blockviz.types import (
    BlockId,
    CalibrationSet,
    Done,
    Events,
    Progress,
    PruningPlan,
    passing,
)

LAST_SHARE = 1 / 20
# Of every leaf: itself, its gradient, two averages of that, the best so far and the one in use.
COPIES = 6
WORDS = {"label": "Words of the whole model", "min": 2}


@dataclass(frozen=True)
class Distilled(Trained, ABC):
    """A repair in closed form whose tensors are trained then.

    The loss is KL(p || q), mean over positions, of the whole model's `top` likeliest words. AdamW,
    one window a step, lr along a cosine to lr/20.
    """

    tokens: str = field(default="all", metadata=TOKENS)
    top: int = field(default=50, metadata=WORDS)
    epochs: int = field(default=1, metadata=EPOCHS)
    lr: float = field(default=1e-4, metadata=RATE)
    seed: int = field(default=0, metadata=SEED)

    decay: ClassVar[float] = 0.0
    clip: ClassVar[float] = math.inf
    trains: ClassVar[str]

    @abstractmethod
    def closed_form(self) -> Correction:
        """What the training starts from."""

    def texts(self, windows: CalibrationSet) -> tuple[CalibrationSet, CalibrationSet]:
        """What the start is fitted on, and what the training goes through."""
        return windows, windows

    @abstractmethod
    def student(self, model: BlockModel, start: Repair) -> Student:
        """Which has a leaf for each tensor that is trained."""

    @abstractmethod
    def learned(self, start: Repair, tensors: Tensors) -> Repair:
        """The repair with these in place of its own."""

    def repaired(
        self,
        model: BlockModel,
        plan: PruningPlan,
        windows: CalibrationSet,
        *,
        held: CalibrationSet | None,
        batch_tokens: int,
        memory_bytes: int | None,
    ) -> Events:
        """Done(Repair); BadInput where the whole model's logits would take too much memory."""
        how = {"batch_tokens": batch_tokens, "memory_bytes": memory_bytes}
        first, text = self.texts(windows)
        start: Repair = yield from passing(fit(model, plan, self.closed_form(), first, **how))
        start = replace(start, correction=self, n_tokens=checked_tokens(windows, self))
        if not (start.maps or start.writers):
            yield Done(start)
            return
        student = self.student(model, start)
        self._check_memory(model, student.leaves, text, held, memory_bytes)
        stage, taught, tests = f"distilling {self.name}", [], []
        for found, kept in ((text, taught), (held, tests)):
            for lessons in () if found is None else self._lessons(model, found, batch_tokens):
                kept += lessons
                yield Progress(stage, 0, 0, "reading what the whole model predicts")
        best = yield from self._train(start, student, taught, tests)
        repair = self._told(start, best)
        given = Given(self.tokens, found=repair.maps or repair.writers)
        met: Repair = yield from passing(fit(model, plan, given, windows, held=held, **how))
        shares = len(first) / len(windows), len(text) / len(windows)
        passes = start.passes * shares[0] + (1 + STEP_PASSES * self.epochs) * shares[1]
        yield Done(replace(repair, fits=met.fits, passes=passes + met.passes))

    def _lessons(
        self, model: BlockModel, text: CalibrationSet, batch_tokens: int
    ) -> Iterator[list[Lesson]]:
        """What the whole model predicts, a few windows at a time."""
        wanted, head = counted(text, self.tokens), Head(model)
        n = max(1, batch_tokens // text.input_ids.shape[1])
        for batch, rows in zip(text.batches(n), wanted.split(n), strict=True):
            yield lessons_of(model, head, batch, rows, self.top)

    def _train(
        self, start: Repair, student: Student, taught: list[Lesson], tests: list[Lesson]
    ) -> Generator[Progress, None, Best]:
        order = shuffled(len(taught), self.epochs, self.seed)
        how = Schedule(len(order), self.lr, self.lr * LAST_SHARE, self.decay, self.clip)

        def backward(step: int) -> float:
            return student.learn(taught[order[step]])

        def held() -> float:
            return student.loss(tests)

        return train(
            student.leaves,
            how,
            backward,
            held=held if tests else None,
            stage=f"distilling {self.name}",
            so_far=lambda best: self._told(start, best),
        )

    def _told(self, start: Repair, best: Best) -> Repair:
        """The repair with what a training found; its notes say which step it is of."""
        found = self.learned(start, best.tensors)
        return replace(found, notes=(*start.notes, f"Distillation {best.said}."))

    def _check_memory(
        self,
        model: BlockModel,
        leaves: Tensors,
        text: CalibrationSet,
        held: CalibrationSet | None,
        memory_bytes: int | None,
    ) -> None:
        n_tokens = sum(int(t.attention_mask.sum()) for t in (text, held) if t is not None)
        a_word = torch.int32.itemsize + torch.float32.itemsize
        wanted = n_tokens * self.top * a_word
        wanted += COPIES * sum(t.numel() for t in leaves.values()) * torch.float32.itemsize
        if memory_bytes is not None and wanted > memory_bytes:
            raise BadInput(
                f"{len(leaves)} {self.trains} were to be trained on {n_tokens} tokens.",
                f"They and {self.top} logits a token take {wanted / 2**20:.1f} MiB, and "
                f"{memory_bytes / 2**20:.1f} MiB may be used.",
                "Train on fewer tokens, lower top, or allow more memory.",
            )


@dataclass(frozen=True)
class Given(Correction):
    """Maps or writers that are there already: a fit only says how well they meet the stream."""

    found: Mapping[BlockId, nn.Module | Writing] = field(default_factory=dict)

    name = "given"

    @property
    def where(self) -> Where:
        return "writer" if isinstance(next(iter(self.found.values())), Writing) else "gap"

    def changes(self, block: BlockId, gap: tuple[BlockId, ...]) -> bool:
        return block in self.found

    def fitter(self, place: Place) -> _Given:
        return _Given(self.found[place.block])


@dataclass(frozen=True)
class _Given:
    found: nn.Module | Writing

    def add(self, pair: Pair) -> None:
        pass

    def result(self) -> nn.Module | Writing:
        return self.found
