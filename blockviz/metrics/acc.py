"""Task accuracy with the block removed: high = it can go."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from blockviz.metrics.base import METRICS, TaskMetric, mean_and_error
from blockviz.types import Scores, TaskTable


@METRICS.register
@dataclass(frozen=True)
class TaskAccuracy(TaskMetric):
    """Share of right answers with the block masked; Naim et al., arXiv 2510.22767 (TALE).

    High is removable, so importance is its negative. Standard error over questions.
    """

    name = "acc"
    title = "Accuracy when cut"
    meaning = "How many answers stay right with only this block removed."
    formula = "acc(b) = share of questions answered rightly without block b,  high = removable"
    sees = "Right and wrong on the task itself: nothing else enters."
    misses = (
        "Whatever the questions do not ask. Only an answer that tips over counts, so that 64 "
        "questions give steps of 1.6 points, and a block whose loss tips a few the right way by"
        " luck looks harmful."
    )
    reference = "https://arxiv.org/abs/2510.22767"
    citation = "Naim et al. 2025, TALE"
    unit_label = "accuracy"

    def score(self, source: TaskTable) -> Scores:
        right = {b: torch.tensor(v, dtype=torch.float64) for b, v in source.values.items()}
        return self.scores(
            {b: mean_and_error(v) for b, v in right.items()},
            is_redundancy=True,
            baseline=sum(source.baseline) / len(source.baseline),
            per_window={b: tuple((-v).tolist()) for b, v in right.items()},
        )
