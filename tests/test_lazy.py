"""Leaving out what was far too dear: greedy's answer for fewer questions, and its limits."""

from __future__ import annotations

import math

import pytest
import toy_search as toy

from blockviz.search.greedy import Greedy
from blockviz.search.lazy import ALWAYS, REMEMBERED, Prices
from blockviz.types import BlockId

UNITS = toy.blocks_of(20)


def drifting(seed: int) -> toy.Objective:
    """Costs of 40 blocks from 1 to 40, of which other removals change each by a third at most."""
    import numpy as np

    dice = np.random.default_rng(seed)
    alone = dice.permutation(40) + 1.0
    together = dice.uniform(-1, 1, size=(40, 40)) / 3 / 10

    def value(removed):
        places = [UNITS.index(b) for b in sorted(removed)]
        return sum(alone[i] * (1 + sum(together[i, j] for j in places if j < i)) for i in places)

    return value


def search(objective: toy.Objective, k: int, slack: float = 4.0, **space) -> toy.Played:
    there = toy.space_of(UNITS, k, baseline=0.0, **space)
    return toy.played(Greedy(slack=slack), there, objective)


def test_prices_that_drift_a_little_give_the_same_removals_for_far_fewer_questions():
    for seed in range(20):
        objective = drifting(seed)
        lazy, eager = search(objective, 10), search(objective, 10, slack=0.0)
        assert lazy.removed == eager.removed
        assert lazy.last.value == pytest.approx(eager.last.value)
        assert eager.n_sets == sum(40 - k for k in range(10))
        assert lazy.n_sets < 0.8 * eager.n_sets


def test_what_is_left_out_counts_as_settled():
    lazy = search(drifting(0), 6)
    assert [chosen.of for chosen in lazy.decisions] == [40 - k for k in range(6)]
    assert lazy.decisions[0].evaluated == 40
    assert all(chosen.evaluated < chosen.of for chosen in lazy.decisions[1:4])


def test_an_exhaustive_search_leaves_nothing_out():
    found = search(drifting(0), 5, is_exhaustive=True)
    assert [len(ask.sets) for ask in found.asks] == [40 - k for k in range(5)]


def test_a_search_without_a_baseline_measures_all_of_the_second_removal_too():
    there = toy.space_of(UNITS, 3)
    found = toy.played(Greedy(), there, drifting(0))
    assert [len(ask.sets) for ask in found.asks][:2] == [40, 39]


def test_where_all_cheap_ones_grow_dear_those_left_out_are_looked_at_after_all():
    """Twelve cost 1 and, once one of them is gone, 50; all others cost 5."""
    cheap = set(UNITS[:12])

    def value(removed):
        n = len(cheap & removed)
        return 5.0 * len(removed - cheap) + (0 if n == 0 else 1 + 50.0 * (n - 1))

    found = search(value, 2)
    assert found.removed == (str(UNITS[0]), str(UNITS[12]))
    # First the eleven; then, since the best of them costs 50, it and the twenty-eight others.
    assert [len(ask.sets) for ask in found.asks] == [40, 11, 29]
    assert found.decisions[1].of == 39


def test_a_price_that_collapses_is_seen_within_a_few_removals():
    """Past what the measurement promises: a dear unit costs nothing once the first one is gone."""
    costs = {str(u): 1.0 + i / 100 for i, u in enumerate(UNITS)}

    def value(removed):
        gone = {str(b) for b in removed}
        total = sum(costs[name] for name in gone)
        if str(UNITS[-1]) in gone:
            total += 99.0 if str(UNITS[0]) not in gone else -costs[str(UNITS[-1])]
        return total

    found = search(value, REMEMBERED + 3)
    assert found.removed[REMEMBERED + 1] == str(UNITS[-1])


def units(n: int) -> tuple[BlockId, ...]:
    return toy.layers_of(n)


def test_the_rule_by_hand():
    some, prices = units(12), Prices(slack=2.0)
    prices.learn({u: float(i) for i, u in enumerate(some, 1)})
    assert prices.too_dear(some, 3.0) == some[6:]  # 7 and more are above 2 x 3
    assert prices.too_dear(some, -1.0) == some
    prices.next_turn()
    # 2 x 1 leaves out all from 3 on; the ALWAYS cheapest are looked at nevertheless.
    assert prices.worth_a_look(some) == some[:ALWAYS]
    for _ in range(REMEMBERED):
        prices.next_turn()
    assert prices.worth_a_look(some) == some


def test_what_gave_no_number_is_looked_at_again():
    some, prices = units(20), Prices(slack=2.0)
    prices.learn({u: float(i + 1) for i, u in enumerate(some)})
    prices.learn({some[15]: math.nan, some[16]: math.inf})
    prices.next_turn()
    looked = prices.worth_a_look(some)
    assert some[15] in looked
    assert some[16] not in looked
