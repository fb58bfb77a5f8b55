"""Objectives without a model for searches, and what answers a search by them.

The answers are no more than an answer has to hold: values of the sets that were wanted, and
nothing of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from blockviz.search import Goal, Space, Strategy, race
from blockviz.types import Answer, Ask, BlockId, Chosen, RemovedSet, Rescore, parts_of

Objective = Callable[[RemovedSet], float]
WindowValues = Callable[[RemovedSet], np.ndarray]


@dataclass(frozen=True)
class Played:
    """What a search decided and asked; `last` is what it returned."""

    decisions: tuple[Chosen, ...]
    asks: tuple[Ask, ...]
    last: Chosen

    @property
    def removed(self) -> tuple[str, ...]:
        """What is gone in the end, in order of removal."""
        return names(self.last.removed)

    @property
    def n_sets(self) -> int:
        return sum(len(ask.sets) for ask in self.asks)


def played(strategy: Strategy, space: Space, objective: Objective) -> Played:
    """The whole search, every question answered exactly."""
    return _played(strategy, space, lambda ask: exact(ask, objective))


def raced(strategy: Strategy, space: Space, values: WindowValues, *, level: float = 0.01) -> Played:
    """The whole search, every question answered by a race over windows."""
    return _played(strategy, space, lambda ask: by_race(ask, values, level=level))


def _played(strategy: Strategy, space: Space, answered: Callable[[Ask], Answer]) -> Played:
    searching, told = strategy.search(space), None
    decisions, asks = [], []
    while True:
        try:
            said = searching.send(told)
        except StopIteration as end:
            return Played(tuple(decisions), tuple(asks), end.value)
        told = None
        if isinstance(said, Chosen):
            decisions.append(said)
        elif isinstance(said, Rescore):
            told = space.scores
        else:
            asks.append(said)
            told = answered(said)


def exact(ask: Ask, objective: Objective) -> Answer:
    found = [objective(s) for s in ask.sets]
    found = [math.inf if math.isnan(v) else v for v in found]
    ranked = sorted(range(len(found)), key=found.__getitem__)[: ask.keep]
    best = tuple(ask.sets[i] for i in ranked)
    gaps = {s: v - found[ranked[0]] for s, v in zip(ask.sets, found, strict=True)}
    return Answer(best, {ask.sets[i]: found[i] for i in ranked}, gaps, len(found), ask.of)


def by_race(ask: Ask, values: WindowValues, *, level: float) -> Answer:
    table = np.stack([values(s) for s in ask.sets])
    n = table.shape[1]
    racing = race(len(table), n, keep=ask.keep, level=level, seed=1)
    look, evaluated = next(racing), 0.0
    while True:
        evaluated += len(look.sets) * len(look.windows) / n
        try:
            look = racing.send(table[np.ix_(look.sets, look.windows)])
        except StopIteration as end:
            found = end.value
            break
    means = dict(zip(ask.sets, found.means, strict=True))
    whole = [s for s, seen in zip(ask.sets, found.n_seen, strict=True) if seen == n]
    return Answer(
        best=tuple(ask.sets[i] for i in found.best),
        values={s: means[s] for s in whole},
        gaps=dict(zip(ask.sets, found.gaps, strict=True)),
        evaluated=evaluated,
        of=ask.of,
        doubt=found.doubt,
    )


def names(blocks: Sequence[BlockId]) -> tuple[str, ...]:
    return tuple(str(b) for b in blocks)


def blocks_of(n_layers: int) -> tuple[BlockId, ...]:
    return tuple(BlockId(i, part) for i in range(n_layers) for part in ("attn", "mlp"))


def layers_of(n_layers: int) -> tuple[BlockId, ...]:
    return tuple(BlockId(i, "layer") for i in range(n_layers))


def space_of(
    units: tuple[BlockId, ...], goal: Goal | int, *, n_blocks: int | None = None, **more: object
) -> Space:
    """A space of a model that has one layer more than the units reach, so that all of them fit."""
    goal = Goal(goal) if isinstance(goal, int) else goal
    n_blocks = 2 * max(u.layer for u in units) + 4 if n_blocks is None else n_blocks
    return Space(units, goal, n_blocks, **more)


def additive(costs: Mapping[str, float]) -> Objective:
    """The sum of what each block costs; blocks that are not named cost nothing."""
    return lambda removed: math.fsum(costs.get(str(b), 0.0) for b in removed)


def rugged(seed: int, *, scale: float = 1.0) -> Objective:
    """Costs of single blocks and of pairs, drawn once: removals help and harm each other."""
    dice = np.random.default_rng(seed)
    alone, together = dice.random(200), scale * dice.normal(size=(200, 200))

    def value(removed: RemovedSet) -> float:
        places = sorted(2 * b.layer + (b.part == "mlp") for b in removed)
        return float(alone[places].sum() + np.triu(together[np.ix_(places, places)], 1).sum())

    return value


def window_values(objective: Objective, n_windows: int, *, seed: int = 0) -> WindowValues:
    """Values on windows with the objective as their mean; alike sets vary alike."""
    dice = np.random.default_rng(seed)
    easy, noise = dice.normal(size=n_windows), dice.normal(size=(200, n_windows))
    easy, noise = easy - easy.mean(), noise - noise.mean(axis=1, keepdims=True)

    def values(removed: RemovedSet) -> np.ndarray:
        places = [2 * b.layer + (b.part == "mlp") for b in removed]
        return objective(removed) + easy + 0.1 * noise[places].sum(axis=0)

    return values


def brute_force(space: Space, objective: Objective, n: int) -> float:
    """The lowest objective of any n units."""
    from itertools import combinations

    return min(objective(parts_of(some)) for some in combinations(space.units, n))
