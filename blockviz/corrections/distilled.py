"""LinearPatch, refined: its patches are trained until the model predicts as the whole one does."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from blockviz.corrections.base import (
    CORRECTIONS,
    TOKENS,
    Correction,
    Pair,
    Place,
    Repair,
)
from blockviz.corrections.fitting import fit
from blockviz.corrections.hadamard_matrix import check_size
from blockviz.corrections.linearpatch import Hadamard
from blockviz.corrections.rows import counted
from blockviz.corrections.student import Lesson, Student, lessons_of
from blockviz.corrections.training import (
    EPOCHS,
    RATE,
    SEED,
    STEP_PASSES,
    Best,
    Schedule,
    Trained,
    shuffled,
    train,
)
from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.models.modeling_blockviz import Residual
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

DECAY, LAST_SHARE = 1e-4, 1 / 20
# Of every patch: itself, its gradient, two averages of that, the best so far and the one in use.
COPIES = 6


@CORRECTIONS.register
@dataclass(frozen=True)
class HadamardDistilled(Trained):
    """P of `hadamard` at every gap, then trained: all of its numbers, and nothing else.

    The loss is KL(p || q), mean over positions: p is the softmax of the `top` largest logits of the
    whole model among themselves, q that of the repaired model's logits of the same words. AdamW,
    one window a step, lr along a cosine to lr/20; decay 1e-4 draws P, not P - I, towards 0.
    """

    tokens: str = field(default="all", metadata=TOKENS)
    top: int = field(default=50, metadata={"label": "Words of the whole model", "min": 2})
    epochs: int = field(default=1, metadata=EPOCHS)
    lr: float = field(default=1e-4, metadata=RATE)
    seed: int = field(default=0, metadata=SEED)

    name = "hadamard_distilled"
    title = "LinearPatch, distilled"
    meaning = (
        "LinearPatch, then trained to predict what the whole model predicts. Takes minutes to "
        "hours: every window goes forward and back through the model."
    )
    formula = (
        "min over P of mean_t KL( p_t ‖ q_t ),  P of every gap starting as LinearPatch's\n"
        "p_t: softmax of the whole model's 50 largest logits at position t; q_t: of the "
        "repaired model's logits of the same words."
    )
    sees = (
        "The prediction itself, through everything that lies behind the gap, in place of the "
        "stream."
    )
    misses = (
        "Words beyond the 50, and text unlike that it is trained on: a square matrix a gap has "
        "room to learn a short text by heart."
    )
    cost = "Minutes to hours of training; stored and run like LinearPatch."
    reference = "https://arxiv.org/abs/2505.24680"
    citation = "Chen et al. 2025, LinearPatch with distillation"

    def check(self, hidden_size: int) -> None:
        check_size(hidden_size)

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
        closed_form = Hadamard(tokens=self.tokens, is_sequential=self.is_sequential)
        start: Repair = yield from passing(fit(model, plan, closed_form, windows, **how))
        start = replace(start, correction=self)
        if not start.maps:
            yield Done(start)
            return
        self._check_memory(model, len(start.maps), windows, held, memory_bytes)
        stage, taught, tests = f"distilling {self.name}", [], []
        for text, kept in ((windows, taught), (held, tests)):
            for lessons in () if text is None else self._lessons(model, text, batch_tokens):
                kept += lessons
                yield Progress(stage, 0, 0, "reading what the whole model predicts")
        best = yield from self._train(start, Student(model, start), taught, tests)
        repair = _patched(start, best)
        given = Given(self.tokens, maps=repair.maps)
        met: Repair = yield from passing(fit(model, plan, given, windows, held=held, **how))
        passes = start.passes + 1 + STEP_PASSES * self.epochs + met.passes
        yield Done(replace(repair, fits=met.fits, passes=passes))

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
        how = Schedule(len(order), self.lr, self.lr * LAST_SHARE, DECAY)

        def backward(step: int) -> float:
            return student.learn(taught[order[step]])

        def held() -> float:
            return student.loss(tests)

        return train(
            student.patches,
            how,
            backward,
            held=held if tests else None,
            stage=f"distilling {self.name}",
            so_far=lambda best: _patched(start, best),
        )

    def _check_memory(
        self,
        model: BlockModel,
        n_patches: int,
        windows: CalibrationSet,
        held: CalibrationSet | None,
        memory_bytes: int | None,
    ) -> None:
        n_tokens = sum(int(t.attention_mask.sum()) for t in (windows, held) if t is not None)
        a_word = torch.int32.itemsize + model.dtype.itemsize
        wanted = n_tokens * self.top * a_word
        wanted += COPIES * n_patches * model.info.hidden_size**2 * torch.float32.itemsize
        if memory_bytes is not None and wanted > memory_bytes:
            raise BadInput(
                f"{n_patches} patches were to be trained on {n_tokens} tokens.",
                f"They and {self.top} logits a token take {wanted / 2**20:.1f} MiB, and "
                f"{memory_bytes / 2**20:.1f} MiB may be used.",
                "Train on fewer tokens, lower top, or allow more memory.",
            )


def _patched(start: Repair, best: Best) -> Repair:
    """The repair with the patches of a training; its notes say which."""
    maps = {
        block: Residual(patch - torch.eye(len(patch), device=patch.device))
        for block, patch in best.tensors.items()
    }
    return replace(start, maps=maps, notes=(*start.notes, f"Distillation {best.said}."))


@dataclass(frozen=True)
class Given(Correction):
    """Maps that are there already: a fit only says how well they meet the stream."""

    maps: Mapping[BlockId, nn.Module] = field(default_factory=dict)

    name = HadamardDistilled.name

    def fitter(self, place: Place) -> _Given:
        return _Given(self.maps[place.block])


@dataclass(frozen=True)
class _Given:
    module: nn.Module

    def add(self, pair: Pair) -> None:
        pass

    def result(self) -> nn.Module:
        return self.module
