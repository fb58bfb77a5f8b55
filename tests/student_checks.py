"""What holds for every student, whatever it trains."""

from __future__ import annotations

import pytest
import torch

from blockviz.corrections.student import Lesson, Student


def check_gradients(student: Student, lesson: Lesson, *, rel: float) -> None:
    """Central differences of the loss along a random direction of each leaf."""
    student.learn(lesson)
    draw = torch.Generator().manual_seed(0)
    for leaf in student.leaves.values():
        way = torch.randn(leaf.shape, generator=draw) * 1e-3
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                leaf += sign * way
            losses.append(student.loss([lesson]))
            with torch.no_grad():
                leaf -= sign * way
        expected = (leaf.grad * way).sum().item()
        assert (losses[0] - losses[1]) / 2 == pytest.approx(expected, rel=rel)
