"""Greedy: the block whose removal raises the objective least, again and again."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field

from blockviz.search.base import STRATEGIES, Space, Strategy, check_space
from blockviz.search.deciding import decided
from blockviz.search.lazy import Prices
from blockviz.types import Answer, Ask, BlockId, Chosen, Searching, parts_of


@STRATEGIES.register
@dataclass(frozen=True)
class Greedy(Strategy):
    """R <- R + argmin over b of objective(R + b), until the goal; arXiv 2406.10594, Algorithm 1.

    Equal candidates: attention before MLP, then the shallower one. Units that cost more than
    `slack` times the cheapest one when they were last measured, a few removals ago at most, are
    left out (see lazy.Prices); in an exhaustive search, or with slack=0, none is.
    """

    slack: float = field(
        default=4.0, metadata={"label": "Leave out what cost so many times the cheapest", "min": 0}
    )

    name = "greedy"
    title = "Greedy"
    meaning = (
        "Removes the block that hurts least, measures anew all others that were not far dearer "
        "before, and goes on."
    )
    reference = "https://arxiv.org/abs/2406.10594"
    citation = "Zhong et al. 2025, BlockPruner, Algorithm 1; Song et al. 2024, SLEB"

    def n_sets(self, space: Space) -> int:
        return sum(len(space.units) - k for k in range(space.most_units()))

    def search(self, space: Space) -> Searching:
        check_space(space)
        chosen, prices = Chosen(()), Prices(0.0 if space.is_exhaustive else self.slack)
        while not space.goal.is_reached(chosen.removed):
            found = yield from greedy_step(space, chosen, prices)
            if found is None or not space.goal.accepts(found.value):
                break
            chosen = found
            yield chosen
        return chosen


def greedy_step(space: Space, chosen: Chosen, prices: Prices) -> Searching:
    """The best set with one unit more, or None where nothing may go."""
    found = yield from cheapest(space, chosen, prices, 1)
    if found is None:
        return None
    units, answers = found
    return decided((*chosen.removed, units[0]), answers[-1].value, answers)


def cheapest(
    space: Space, chosen: Chosen, prices: Prices, n: int
) -> Generator[Ask, Answer, tuple[tuple[BlockId, ...], list[Answer]] | None]:
    """The `n` units whose removal raises the objective least, the least first, and the askings."""
    removed = chosen.removed
    before = space.baseline if chosen.value is None else chosen.value
    units = space.next_units(removed)
    if not units:
        return None
    prices.next_turn()
    asked, seen, answers = prices.worth_a_look(units), set(), []
    best: tuple[BlockId, ...] = ()
    while asked:
        sets = {parts_of((*removed, u)): u for u in asked}
        n_settled = 0 if answers else len(units)
        keep = min(n, len(sets))
        note = f"removal {len(removed) + 1}"
        answer = yield Ask(tuple(sets), keep=keep, note=note, n_settled=n_settled)
        answers.append(answer)
        best, rise = tuple(sets[s] for s in answer.best), answer.value - before
        prices.learn({u: rise + answer.gaps.get(s, math.nan) for s, u in sets.items()})
        # Where the cheapest is dearer than it was, more of those left out might be cheaper.
        seen |= set(asked)
        late = set(units) - seen - set(prices.too_dear(units, rise))
        asked = tuple(u for u in units if u in late or u in best) if late else ()
    return best, answers
