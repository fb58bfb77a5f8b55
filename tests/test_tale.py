"""TALE's greedy rule on accuracies written down by hand, and on a tiny model's answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
import tiny

from blockviz.errors import BadInput
from blockviz.evaluate import score_choices
from blockviz.search import TaleResult, tale
from blockviz.types import BlockId, TaskRow, TaskSet, run

LAYERS = tiny.ids("0.layer", "1.layer", "2.layer", "3.layer")
Accuracy = Callable[[tuple[BlockId, ...]], float]


def played(game, accuracy: Accuracy) -> tuple[TaleResult, list[tuple[BlockId, ...]]]:
    """The result, and every set that was asked for."""
    asked, answer = [], None
    while True:
        try:
            removed = game.send(answer)
        except StopIteration as over:
            return over.value, asked
        asked.append(removed)
        answer = accuracy(removed)


def table(entries: dict[str, float], *, other: float = 0.0) -> Accuracy:
    """Accuracies by the layers that are gone, "02" for 0 and 2."""
    return lambda removed: entries.get("".join(str(b.layer) for b in sorted(removed)), other)


def layers(blocks: Iterable[BlockId]) -> str:
    return "".join(str(b.layer) for b in blocks)


def test_the_greedy_walk_by_hand():
    """Dense 0.75. Round 1: layer 2 is best with 0.8125, round 2: 0 beside it with 0.75, round 3:
    1 with 0.6875, still 0.0625 below dense only. Round 4 would leave no layer."""
    accuracy = table({"": 0.75, "0": 0.5, "1": 0.625, "2": 0.8125, "02": 0.75, "12": 0.5,
                      "012": 0.6875, "023": 0.25})  # fmt: skip
    result, asked = played(tale(LAYERS), accuracy)
    assert [layers(a) for a in asked] == ["", *"0123", "20", "21", "23", "201", "203"]
    assert [(s.block.layer, s.accuracy, s.n_tried) for s in result.steps] == [
        (2, 0.8125, 4),
        (0, 0.75, 3),
        (1, 0.6875, 2),
    ]
    assert (layers(result.last), layers(result.best)) == ("201", "2")
    assert layers(result.deepest_lossless) == "20"
    assert (result.dense, result.rejected) == (0.75, None)


def test_it_stops_below_the_limit_and_not_at_it():
    entries = {"": 0.75, "1": 0.625, "12": 0.5}
    at, _ = played(tale(LAYERS, epsilon=0.25), table(entries))
    assert layers(at.last) == "12"
    assert (at.rejected.block.layer, at.rejected.accuracy, at.rejected.n_tried) == (0, 0.0, 2)
    above, asked = played(tale(LAYERS, epsilon=0.1875), table(entries))
    assert layers(above.last) == "1"
    assert (above.rejected.block.layer, above.rejected.accuracy) == (2, 0.5)
    assert len(asked) == 1 + 4 + 3


def test_the_default_limit_is_that_of_the_published_code():
    assert played(tale(LAYERS), table({"": 0.75, "0": 0.671}))[0].steps
    assert not played(tale(LAYERS), table({"": 0.75, "0": 0.669}))[0].steps


def test_the_first_of_equals_wins():
    result, _ = played(tale(tiny.ids("3.layer", "1.layer", "2.layer")), lambda _: 0.5)
    assert layers(result.last) == "31"
    assert result.best == ()  # nothing gone is as good, and smaller
    assert layers(result.deepest_lossless) == "31"


def test_a_cap_ends_it():
    one, asked = played(tale(LAYERS, max_removals=1), lambda _: 0.5)
    assert (layers(one.last), len(asked)) == ("0", 5)
    assert layers(played(tale(LAYERS[:2], max_removals=9), lambda _: 0.5)[0].last) == "01"
    assert played(tale(LAYERS, max_removals=0), lambda _: 0.5)[1] == [()]
    assert played(tale(()), lambda _: 0.5)[0].steps == ()


def test_an_accuracy_that_is_no_number_never_wins():
    accuracy = table({"": 0.5, "0": math.nan, "1": 0.5, "01": math.nan}, other=math.nan)
    result, _ = played(tale(LAYERS), accuracy)
    assert layers(result.last) == "1" and result.rejected is not None
    assert not played(tale(LAYERS), lambda removed: 0.5 if removed else math.nan)[0].steps


@pytest.mark.parametrize("epsilon", [-0.1, math.nan])
def test_a_negative_limit_is_refused(epsilon: float):
    with pytest.raises(BadInput, match="0 or more"):
        next(tale(LAYERS, epsilon=epsilon))


def test_t_acc_1_without_allowed_loss_every_step_is_at_least_dense():
    """Accuracies that look random, but are fixed by the set: for many of them."""
    for seed in range(40):

        def accuracy(removed: tuple[BlockId, ...], seed: int = seed) -> float:
            places = sum(1 << b.layer for b in removed)
            return ((places * 2654435761 + seed * 97) >> 4) % 64 / 64

        result, asked = played(tale(LAYERS, epsilon=0), accuracy)
        assert all(step.accuracy >= result.dense for step in result.steps)
        assert result.deepest_lossless == result.last
        assert len({frozenset(a) for a in asked}) == len(asked)  # no set is asked for twice
        for n, step in enumerate(result.steps):
            gone = result.removed(n)
            tried = [accuracy((*gone, b)) for b in LAYERS if b not in gone]
            assert step.accuracy == max(tried)


@pytest.mark.usefixtures("one_thread")
def test_on_a_models_answers_it_removes_what_brute_force_would():
    model = tiny.model("llama")
    rows = tuple(
        TaskRow(f"q{i}", "choices", f"w{i} w{i + 7}", (f"w{i + 3}", f"w{2 * i}"), i % 2)
        for i in range(1, 25)
    )
    tasks = TaskSet("toy", "none", rows)

    def accuracy(removed: tuple[BlockId, ...]) -> float:
        return run(score_choices(model, tasks, removed=removed)).acc

    result, _ = played(tale(LAYERS, epsilon=1.0, max_removals=2), accuracy)
    singles = {b: accuracy((b,)) for b in LAYERS}
    first = max(LAYERS, key=singles.__getitem__)
    pairs = {b: accuracy((first, b)) for b in LAYERS if b != first}
    assert result.last == (first, max(pairs, key=pairs.__getitem__))
    assert result.dense == accuracy(())
