"""What the removal of each unit cost when it was last measured, and who need not be measured again.

The price of a unit, how much the objective rises with it, changes while other blocks go, but not by
leaps: on the demo model none of 400 prices that were far from the cheapest one fell by more than
half within four removals. A unit whose price was many times the cheapest is therefore left out for
a few removals. For a supermodular objective prices never fall and leaving out is exact (lazy
greedy, Minoux 1978); here it rests on that measurement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from blockviz.types import BlockId

# A price is not relied on for longer than so many removals.
REMEMBERED = 4
# So many of the cheapest are always measured, and a quarter of all.
ALWAYS = 8


class Prices:
    """Units and what they cost; `slack`: how many times the cheapest one is too much to look at.

    0: all are always looked at.
    """

    def __init__(self, slack: float) -> None:
        self._slack, self._turn = slack, 0
        self._last: dict[BlockId, tuple[float, int]] = {}

    def learn(self, prices: Mapping[BlockId, float]) -> None:
        """What was measured in this turn; a price that is no number is not relied on."""
        for unit, price in prices.items():
            if math.isnan(price):
                self._last.pop(unit, None)
            else:
                self._last[unit] = price, self._turn

    def next_turn(self) -> None:
        self._turn += 1

    def worth_a_look(self, units: Sequence[BlockId]) -> tuple[BlockId, ...]:
        """Those that might be the cheapest now, in the order given."""
        known = {u: self._last[u][0] for u in units if u in self._last}
        if not self._slack or not known:
            return tuple(units)
        dear = set(self.too_dear(units, min(known.values())))
        cheapest = sorted(known, key=known.__getitem__)[: max(ALWAYS, -(-len(units) // 4))]
        dear -= set(cheapest)
        return tuple(u for u in units if u not in dear)

    def too_dear(self, units: Sequence[BlockId], least: float) -> tuple[BlockId, ...]:
        """Those that cost more than `slack` times `least` not long ago."""
        limit = self._slack * max(least, 0.0)
        found = ((u, *self._last.get(u, (-math.inf, 0))) for u in units)
        return tuple(u for u, price, at in found if price > limit and self._turn - at <= REMEMBERED)
