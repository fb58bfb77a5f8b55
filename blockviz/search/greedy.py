"""Greedy: the block whose removal raises the objective least, again and again."""

from __future__ import annotations

from dataclasses import dataclass

from blockviz.search.base import STRATEGIES, Space, Strategy, check_space
from blockviz.types import Ask, BlockId, Chosen, Searching, parts_of


@STRATEGIES.register
@dataclass(frozen=True)
class Greedy(Strategy):
    """R <- R + argmin over b of objective(R + b), until the goal; arXiv 2406.10594, Algorithm 1.

    Equal candidates: attention before MLP, then the shallower one. Every round asks for all units
    that are left.
    """

    name = "greedy"
    title = "Greedy"
    meaning = "Removes the block that hurts least, measures all others anew, and goes on."
    reference = "https://arxiv.org/abs/2406.10594"
    citation = "Zhong et al. 2025, BlockPruner, Algorithm 1; Song et al. 2024, SLEB"

    def n_sets(self, space: Space) -> int:
        return sum(len(space.units) - k for k in range(space.most_units()))

    def search(self, space: Space) -> Searching:
        check_space(space)
        chosen = Chosen(())
        while not space.goal.is_reached(chosen.removed):
            found = yield from greedy_step(space, chosen.removed)
            if found is None or not space.goal.accepts(found.value):
                break
            chosen = found
            yield chosen
        return chosen


def greedy_step(space: Space, removed: tuple[BlockId, ...]) -> Searching:
    """The best set with one unit more, or None where nothing may go."""
    units = space.next_units(removed)
    if not units:
        return None
    sets = {parts_of((*removed, u)): u for u in units}
    answer = yield Ask(tuple(sets), note=f"removal {len(removed) + 1}")
    unit = sets[answer.best[0]]
    return Chosen((*removed, unit), answer.value, answer.evaluated, answer.of, answer.doubt)
