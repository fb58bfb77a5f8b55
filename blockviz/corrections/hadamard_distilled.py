"""LinearPatch, refined: its patches are trained until the model predicts as the whole one does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from blockviz.corrections.base import CORRECTIONS, Correction, Repair
from blockviz.corrections.distilled import WORDS, Distilled
from blockviz.corrections.hadamard_matrix import check_size
from blockviz.corrections.linearpatch import Hadamard
from blockviz.corrections.student import PatchStudent
from blockviz.corrections.training import Tensors
from blockviz.models.model import BlockModel
from blockviz.models.modeling_blockviz import Residual


@CORRECTIONS.register
@dataclass(frozen=True)
class HadamardDistilled(Distilled):
    """P of `hadamard` at every gap, then trained: all of its numbers, and nothing else.

    p is the softmax of the `top` largest logits of the whole model among themselves, q that of the
    repaired model's logits of the same words. A decay of 1e-4 draws P, not P - I, towards 0.
    """

    name = "hadamard_distilled"
    title = "LinearPatch, distilled"
    meaning = (
        "LinearPatch, then trained to predict what the whole model predicts. Takes minutes to "
        "hours: every window goes forward and back through the model."
    )
    formula = (
        "min over P of mean_t KL( p_t ‖ q_t ),  P of every gap starting as LinearPatch's\n"
        "p_t: softmax of the whole model's 100 largest logits at position t; q_t: of the "
        "repaired model's logits of the same words."
    )
    sees = (
        "The prediction itself, through everything that lies behind the gap, in place of the "
        "stream."
    )
    misses = (
        "Words beyond the 100, and text unlike that it is trained on: a square matrix a gap has "
        "room to learn a short text by heart."
    )
    cost = "Minutes to hours of training; stored and run like LinearPatch."
    reference = "https://arxiv.org/abs/2505.24680"
    citation = "Chen et al. 2025, LinearPatch with distillation"

    # The paper keeps 100 words; its released code has 50.
    top: int = field(default=100, metadata=WORDS)

    decay, trains = 1e-4, "patches"

    def check(self, hidden_size: int) -> None:
        check_size(hidden_size)

    def closed_form(self) -> Correction:
        return Hadamard(tokens=self.tokens, is_sequential=self.is_sequential)

    def student(self, model: BlockModel, start: Repair) -> PatchStudent:
        return PatchStudent(model, start)

    def learned(self, start: Repair, tensors: Tensors) -> Repair:
        maps = {
            block: Residual(patch - torch.eye(len(patch), device=patch.device))
            for block, patch in tensors.items()
        }
        return replace(start, maps=maps)
