"""What strategies share beyond one asking: what counts as a decision, and what it took."""

from __future__ import annotations

import math
from collections.abc import Iterable

from blockviz.search.base import Goal, Space
from blockviz.types import Answer, BlockId, Chosen


def decided(
    removed: tuple[BlockId, ...], value: float | None, answers: Iterable[Answer] = ()
) -> Chosen:
    """A decision that rests on several askings: their work and their doubts add up."""
    asked = tuple(answers)
    return Chosen(
        removed,
        value,
        evaluated=math.fsum(answer.evaluated for answer in asked),
        of=sum(answer.of for answer in asked),
        doubt=min(1.0, math.fsum(answer.doubt for answer in asked)),
    )


def is_accepted(goal: Goal, value: float) -> bool:
    """Whether a set may be decided on: its objective is a number, and has not risen too far."""
    return math.isfinite(value) and goal.accepts(value)


def is_done(space: Space, removed: tuple[BlockId, ...]) -> bool:
    """Whether a set goes as far as the goal wants, or as far as its limits let it."""
    return space.goal.is_reached(removed) or not space.next_units(removed)
