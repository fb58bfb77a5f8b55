"""Streams that are held between removals: nothing is run twice, and no value changes by it."""

from __future__ import annotations

import random
from collections.abc import Generator

import pytest
import tiny
import torch

from blockviz.engine import SetMeter
from blockviz.engine.trunk import Trunk
from blockviz.metrics.parsing import parse_metric
from blockviz.models.model import BlockModel
from blockviz.models.stage import Stage
from blockviz.types import RemovedSet

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS = tiny.windows(6, 12, lengths=(12, 7, 2, 10, 5, 12))
ALL = range(6)


@pytest.fixture(scope="module")
def model() -> BlockModel:
    return tiny.model("llama")


def drained(generator: Generator) -> torch.Tensor:
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def meter(model: BlockModel, metric: str = "ppl", **how) -> SetMeter:
    return SetMeter(model, WINDOWS, parse_metric(metric), chunk_tokens=24, **how)


def grown(model: BlockModel, plan: RemovedSet) -> list[RemovedSet]:
    return [plan | {b} for b in model.info.units("block") if b not in plan]


def stream(value: float, n: int = 1) -> torch.Tensor:
    return torch.full((n, 3, 2), value)


@pytest.mark.parametrize("name", ["ppl", "lds:k=7", "kl"])
@pytest.mark.parametrize("memory_bytes", [1, 1 << 16, 1 << 30])
def test_removal_after_removal_the_values_are_those_of_a_fresh_meter(model, name, memory_bytes):
    draw, kept = random.Random(1), meter(model, name, memory_bytes=memory_bytes)
    plan: RemovedSet = frozenset()
    for _ in range(5):
        sets = grown(model, plan)
        some = draw.sample(ALL, 4)
        fresh = drained(meter(model, name).values(sets, some))
        assert torch.allclose(drained(kept.values(sets, some)), fresh, atol=1e-6)
        plan = draw.choice(sets)
    # And back: a swap takes away what was settled first.
    sets = grown(model, frozenset(sorted(plan)[1:]))
    fresh = drained(meter(model, name).values(sets, ALL))
    assert torch.allclose(drained(kept.values(sets, ALL)), fresh, atol=1e-6)


def test_what_was_settled_is_not_run_again(model, monkeypatch):
    rows: list[int] = [0] * model.info.n_layers
    run = Stage.run

    def counted(self, stream, start, removed, *, stop):
        rows[start] += len(stream)
        return run(self, stream, start, removed, stop=stop)

    monkeypatch.setattr(Stage, "run", counted)
    kept = meter(model)
    drained(kept.values([frozenset()], ALL))
    assert rows == [6] * model.info.n_layers
    rows[:] = [0] * model.info.n_layers
    drained(kept.values(grown(model, frozenset()), ALL))
    # Through layer i go the 2 i cuts in front of it and its own two, and not the whole model.
    assert rows == [6 * (2 * i + 2) for i in range(model.info.n_layers)]
    plan = frozenset(model.info.units("mlp")[1:2])  # of layer 1
    rows[:] = [0] * model.info.n_layers
    drained(kept.values(grown(model, plan), ALL))
    # Layer 0 is held, layer 1 not: it goes without its MLP, its attention's cut is the whole layer.
    assert rows[:2] == [6 * 2, 6 * (1 + 2)]


def test_a_trunk_holds_what_fits_and_no_more():
    size = stream(0).numel() * 4
    trunk = Trunk(2 * size)
    trunk.put((0, 1, 2), 1, stream(1.0, 3))
    assert torch.equal(trunk.get((1, 0), 1), stream(1.0, 2))
    assert trunk.get((0, 2), 1) is None
    assert trunk.get((), 1) is None
    trunk.forget()
    trunk.put((4, 5), 1, stream(2.0, 2))
    assert torch.equal(trunk.get((4,), 1), stream(2.0))
    assert trunk.get((5,), 1) is None


def test_what_two_plans_have_in_common_stays():
    early, late = (frozenset(tiny.ids(name)) for name in ("1.attn", "3.mlp"))
    trunk = Trunk(1 << 20)
    trunk.follow(early)
    for layer in range(1, 5):
        trunk.put((0,), layer, stream(float(layer)))
    trunk.follow(early | late)
    assert torch.equal(trunk.get((0,), 3), stream(3.0))
    assert trunk.get((0,), 4) is None
    trunk.follow(late)
    assert torch.equal(trunk.get((0,), 1), stream(1.0))
    assert trunk.get((0,), 2) is None


def test_what_is_held_is_a_copy_of_its_own():
    big = stream(1.0, 8)
    trunk = Trunk(1 << 20)
    trunk.put((0,), 1, big[3:4])
    assert trunk.get((0,), 1).untyped_storage().nbytes() < big.untyped_storage().nbytes()
    big.zero_()
    assert torch.equal(trunk.get((0,), 1), stream(1.0))
