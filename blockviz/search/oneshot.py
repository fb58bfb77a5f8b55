"""One-shot: blocks are scored once, and the lowest go together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from blockviz.errors import BadInput
from blockviz.search.base import STRATEGIES, Space, Strategy, check_space, tie_key
from blockviz.search.deciding import decided, is_accepted
from blockviz.types import Answer, Ask, BlockId, Chosen, Searching, parts_of

Removed = tuple[BlockId, ...]


@STRATEGIES.register
@dataclass(frozen=True)
class OneShot(Strategy):
    """R = the K units of lowest importance, each scored with nothing else removed.

    Under a limit of parameters one that would overshoot is skipped and the next taken. As published
    by ShortGPT (arXiv 2403.03853) and many since. Not a search: what one removal does to the
    importance of the others is not looked at, which costs scores of masked outputs most
    (arXiv 2406.10594, Table 2). The objective only measures what was chosen, from the first unit
    to the last, and ends it where it rises above a limit.
    """

    name = "oneshot"
    title = "One shot"
    meaning = "Removes the lowest scores of one metric together, without a second look."
    reference = "https://arxiv.org/abs/2403.03853"
    citation = "Men et al. 2024, ShortGPT"
    wants = "scores"

    def n_sets(self, space: Space) -> int:
        return space.most_units()

    def search(self, space: Space) -> Searching:
        check_space(space)
        check_scores(space.units, space.scores)
        return (yield from measured(space, lowest_first(space, space.scores)))


def lowest_first(space: Space, importance: Mapping[BlockId, float]) -> tuple[Removed, ...]:
    """The sets on the way to the goal, each with one unit more: the lowest that still fits."""
    removed: Removed = ()
    nested = []
    for unit in sorted(space.units, key=lambda u: (importance[u], tie_key(u))):
        if space.goal.is_reached(removed):
            break
        if space.may_be((*removed, unit)):
            removed = (*removed, unit)
            nested.append(removed)
    return tuple(nested)


def measured(space: Space, nested: tuple[Removed, ...], before: Iterable[Answer] = ()) -> Searching:
    """Decides on nested sets one after the other, for as long as the goal accepts their value.

    `before`: the askings that led to them, which the first decision answers for.
    """
    # Beyond a limit of the value nothing is worth measuring; without one all share their depths.
    n_at_once = len(nested) if space.goal.max_value is None else 1
    chosen, before = Chosen(()), tuple(before)
    for start in range(0, len(nested), n_at_once):
        sets = {parts_of(removed): removed for removed in nested[start : start + n_at_once]}
        answer = yield Ask(tuple(sets), keep=len(sets), note=f"{start + len(sets)} removed")
        for parts, removed in sets.items():
            value = answer.values[parts]
            if not is_accepted(space.goal, value):
                return chosen
            share = Answer((parts,), {}, {}, answer.evaluated / len(sets), 1, answer.doubt)
            chosen, before = decided(removed, value, (*before, share)), ()
            yield chosen
    return chosen


def check_scores(units: Iterable[BlockId], scores: Mapping[BlockId, float]) -> None:
    """BadInput where a unit has no score, or one that is no number."""
    units = tuple(units)
    unscored = [u for u in units if not math.isfinite(scores.get(u, math.nan))]
    if unscored:
        raise BadInput(
            "The candidates were to be ordered by their scores.",
            f"Of {len(units)} candidates {len(unscored)} have none, the first is {unscored[0]}.",
            "Order by a metric that scores this unit, such as bi.",
        )
