"""TALE: remove layer after layer for as long as a task's accuracy holds."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from blockviz.errors import BadInput
from blockviz.search.base import STRATEGIES, Space, Strategy, check_space
from blockviz.search.deciding import is_accepted
from blockviz.search.greedy import greedy_step
from blockviz.search.lazy import Prices
from blockviz.types import Ask, BlockId, Chosen, Searching

# Shares of right answers are equal where only the rounding of their means differs.
ROUNDING = 1e-9


@dataclass(frozen=True)
class AccuracyStep:
    """One accepted removal: `block` went, `accuracy` is left of `n_tried` candidates' best."""

    block: BlockId
    accuracy: float
    n_tried: int


@dataclass(frozen=True)
class TaleResult:
    """What a search found. `dense`: accuracy with nothing removed; `steps`: in order of removal.

    `rejected`: the step that would have fallen below the limit; None where the search ended at its
    cap or ran out of candidates.
    """

    dense: float
    steps: tuple[AccuracyStep, ...]
    rejected: AccuracyStep | None = None

    @property
    def last(self) -> tuple[BlockId, ...]:
        """Everything that was accepted."""
        return self.removed(len(self.steps))

    @property
    def best(self) -> tuple[BlockId, ...]:
        """The removals with the highest accuracy, the fewest of equals; none if dense is best."""
        accuracies = [self.dense, *(step.accuracy for step in self.steps)]
        return self.removed(accuracies.index(max(accuracies)))

    @property
    def deepest_lossless(self) -> tuple[BlockId, ...]:
        """The most removals whose accuracy is at least that of the whole model."""
        kept = [n for n, step in enumerate(self.steps, 1) if step.accuracy >= self.dense]
        return self.removed(max(kept, default=0))

    def removed(self, n: int) -> tuple[BlockId, ...]:
        """The first `n` removals."""
        return tuple(step.block for step in self.steps[:n])


# Asks for the accuracy with a set of blocks removed, is sent it as a share in [0, 1].
AccuracyGame = Generator[tuple[BlockId, ...], float, TaleResult]


def tale(
    candidates: Sequence[BlockId], *, epsilon: float = 0.08, max_removals: int | None = None
) -> AccuracyGame:
    """Yields removed sets and is sent their accuracy; returns the TaleResult.

    Every round tries each candidate that is left and keeps the one with the highest accuracy, the
    first of equals. It ends once that is below dense - epsilon, or after `max_removals`, which is
    all candidates but one where it is not given: without any layer there is no model. Naim et al.,
    arXiv 2510.22767; epsilon 0.08 is the default of its code. NaN never wins.
    """
    if not epsilon >= 0:
        raise BadInput(
            f"An allowed loss of accuracy of {epsilon} was asked for.",
            "It must be 0 or more.",
            "Set it to a share, such as 0.08.",
        )
    dense = yield ()
    left, steps = list(dict.fromkeys(candidates)), []
    cap = len(left) - 1 if max_removals is None else min(max_removals, len(left))
    while len(steps) < cap:
        gone = tuple(step.block for step in steps)
        best = AccuracyStep(left[0], -math.inf, len(left))
        for block in left:
            accuracy = yield (*gone, block)
            if accuracy > best.accuracy:
                best = AccuracyStep(block, accuracy, len(left))
        if not best.accuracy >= dense - epsilon:
            return TaleResult(dense, tuple(steps), rejected=best)
        steps.append(best)
        left.remove(best.block)
    return TaleResult(dense, tuple(steps))


@STRATEGIES.register
@dataclass(frozen=True)
class Tale(Strategy):
    """R <- R + argmax over b of accuracy(R + b), until that is below dense - epsilon.

    Naim et al., arXiv 2510.22767; epsilon 0.08 is the default of its code. The objective is
    1 - accuracy, which falls as accuracy rises; with another one epsilon is in its unit. A target
    caps it. The shallower of equals goes. Of the decisions the last is the deepest accepted; the
    best one and the deepest without loss are to be read off their values, as TaleResult does.
    """

    epsilon: float = field(
        default=0.08, metadata={"label": "Loss allowed", "min": 0.0, "max": 1000.0}
    )

    name = "tale"
    ends_itself = True
    title = "TALE"
    meaning = "Removes what a task misses least, for as long as its accuracy holds."
    reference = "https://arxiv.org/abs/2510.22767"
    citation = "Naim et al. 2025, TALE"
    units = ("layer", "block", "attn", "mlp")

    def n_sets(self, space: Space) -> int:
        return 1 + sum(len(space.units) - k for k in range(space.most_units()))

    def search(self, space: Space) -> Searching:
        check_space(space)
        dense = yield Ask((frozenset(),), note="whole model")
        limit = dense.value + self.epsilon + ROUNDING
        chosen, prices = Chosen(()), Prices(slack=0.0)
        if not math.isfinite(limit):
            return chosen
        while not space.goal.is_reached(chosen.removed):
            found = yield from greedy_step(space, chosen, prices)
            if found is None or not (is_accepted(space.goal, found.value) and found.value <= limit):
                break
            chosen = found
            yield chosen
        return chosen
