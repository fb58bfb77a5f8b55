"""Window values of many sets at once equal those of each set through the whole masked model."""

from __future__ import annotations

import functools
import random
from collections.abc import Generator, Sequence

import pytest
import tiny
import torch

from blockviz.engine import ReferenceMeter, SetMeter
from blockviz.engine.branches import Branches
from blockviz.metrics.parsing import parse_metric
from blockviz.models.model import BlockModel
from blockviz.models.stage import Stage
from blockviz.types import BlockId, CalibrationBatch, RemovedSet

pytestmark = pytest.mark.usefixtures("one_thread")

FULL, PADDED = tiny.windows(5, 12), tiny.windows(5, 12, lengths=(12, 7, 2, 10, 5))
METRICS = ("ppl", "lds:k=7", "lds:k=7:space=centered", "lds:k=7:space=logprob", "norm", "ang",
           "kl", "js")  # fmt: skip
ALL = range(5)

shared = functools.cache(tiny.model)


def drained(generator: Generator) -> torch.Tensor:
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def meter(model: BlockModel, windows, metric: str = "ppl", **how) -> SetMeter:
    """Two windows at once."""
    return SetMeter(model, windows, parse_metric(metric), chunk_tokens=24, **how)


def random_sets(model: BlockModel, n: int, seed: int = 0) -> list[RemovedSet]:
    """The empty set, sets of every size, some that share much, one twice, and everything."""
    draw, blocks = random.Random(seed), model.info.units("block")
    sets = [frozenset()]
    for i in range(n):
        base = sets[-1] if i % 3 else frozenset()
        sets.append(base | set(draw.sample(blocks, draw.randrange(1, 5))))
    return [*sets, sets[2], frozenset(blocks)]


def by_hand(model: BlockModel, windows, sets: Sequence[RemovedSet]) -> torch.Tensor:
    """Mean next-token NLL in float64, window after window without padding."""
    rows = []
    for removed in sets:
        row = []
        for ids, mask in zip(windows.input_ids, windows.attention_mask, strict=True):
            ids = ids[: int(mask.sum())]
            with model.masked(removed), torch.inference_mode():
                logs = model.module(input_ids=ids[None]).logits[0].double().log_softmax(dim=-1)
            row.append(-logs[range(len(ids) - 1), ids[1:]].mean())
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("case", tiny.CASES)
@pytest.mark.parametrize("windows", [FULL, PADDED], ids=["full", "padded"])
def test_losses_equal_plain_masked_forwards(case: str, windows):
    model = shared(case)
    sets = random_sets(model, 8)
    found = drained(meter(model, windows).values(sets, ALL))
    assert torch.allclose(found, by_hand(model, windows, sets), atol=2e-5)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("case", ["llama", "neox", "gemma3-softcap"])
def test_every_metric_equals_the_reference(case: str, name: str):
    model = shared(case)
    sets = random_sets(model, 6)
    found = drained(meter(model, PADDED, name).values(sets, ALL))
    reference = ReferenceMeter(model, PADDED, parse_metric(name), batch_tokens=24)
    expected = drained(reference.values(sets, ALL))
    assert torch.allclose(found, expected, rtol=2e-4, atol=2e-5)
    assert found.std(dim=0).min() > 0


@pytest.mark.parametrize("name", ["ppl", "lds:k=7", "kl"])
def test_the_budget_changes_nothing_but_the_groups(name: str):
    model = shared("llama")
    sets = random_sets(model, 20)
    whole = drained(meter(model, FULL, name).values(sets, ALL))
    tight = drained(meter(model, FULL, name, memory_bytes=1).values(sets, ALL))
    assert torch.allclose(whole, tight, atol=1e-6)


def test_windows_may_come_in_any_order():
    model = shared("llama")
    sets = random_sets(model, 4)
    whole = drained(meter(model, PADDED).values(sets, ALL))
    some = drained(meter(model, PADDED).values(sets, [3, 0, 4]))
    assert torch.allclose(some, whole[:, [3, 0, 4]], atol=1e-6)


def test_groups_hold_every_set_once_within_the_budget():
    model = shared("llama")
    batch = CalibrationBatch(FULL.input_ids[:2], FULL.attention_mask[:2])
    branches = Branches(model, batch)
    sets = random_sets(model, 20)
    groups = list(branches.groups(sets, 6 * branches.stream_bytes))
    assert max(map(len, groups)) == 5  # and the stream of what they share
    flat = [s for group in groups for s in group]
    assert len(flat) == len(set(sets))
    assert set(flat) == set(sets)


def test_what_sets_share_is_run_once(monkeypatch):
    """Streams through each layer: the plan's, and one for every cut that lies before or in it."""
    model = shared("llama")
    n_layers = model.info.n_layers
    rows: dict[int, int] = dict.fromkeys(range(n_layers), 0)
    run = Stage.run

    def counted(self, stream, start, removed, *, stop):
        rows[start] += len(stream) // 2
        return run(self, stream, start, removed, stop=stop)

    monkeypatch.setattr(Stage, "run", counted)
    batch = CalibrationBatch(FULL.input_ids[:2], FULL.attention_mask[:2])
    singles = [frozenset([b]) for b in model.info.units("block")]
    list(drained(Branches(model, batch).run([frozenset(), *singles])))
    # Through layer i go the whole model and the 2 i cuts in front of it; its own two are branches.
    assert rows == {i: 1 + 2 * i + 2 for i in range(n_layers)}


def test_a_removed_layer_costs_nothing(monkeypatch):
    model = shared("llama")
    seen = []
    run = Stage.run

    def spied(self, stream, start, removed, *, stop):
        seen.append(start)
        return run(self, stream, start, removed, stop=stop)

    monkeypatch.setattr(Stage, "run", spied)
    batch = CalibrationBatch(FULL.input_ids[:1], FULL.attention_mask[:1])
    gone = frozenset(BlockId(1, "layer").parts)
    drained(Branches(model, batch).run([gone]))
    assert seen == [i for i in range(model.info.n_layers) if i != 1]


def test_a_sample_reads_the_same_positions_of_every_set():
    """All positions in two halves: the window's mean is the mean of the halves."""
    model, metric = shared("llama"), parse_metric("ppl")
    sets = random_sets(model, 3)
    whole = drained(SetMeter(model, FULL, metric).values(sets, ALL))
    some = drained(SetMeter(model, FULL, metric, n_positions=6, seed=1).values(sets, ALL))
    other = drained(SetMeter(model, FULL, metric, n_positions=6, seed=2).values(sets, ALL))
    same = drained(SetMeter(model, FULL, metric, n_positions=6, seed=1).values(sets[1:], [2, 0]))
    every = drained(SetMeter(model, FULL, metric, n_positions=11, seed=1).values(sets, ALL))
    assert not torch.allclose(some, whole, atol=1e-3)
    assert not torch.allclose(some, other, atol=1e-3)
    assert torch.allclose(same, some[1:][:, [2, 0]], atol=1e-6)
    assert torch.allclose(every, whole, atol=1e-6)


def test_out_of_memory_halves_what_is_run_at_once(monkeypatch):
    model = shared("llama")
    sets, full = random_sets(model, 6), tiny.windows(5, 12)
    expected = drained(meter(model, full).values(sets, ALL))
    run, refused = Branches.run, []

    def greedy_run(self, asked):
        if self._batch.input_ids.numel() > 12:
            refused.append(len(asked))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, asked)

    monkeypatch.setattr(Branches, "run", greedy_run)
    found = drained(meter(model, full).values(sets, ALL))
    assert refused
    assert torch.allclose(found, expected, atol=1e-6)


def test_an_error_that_is_no_lack_of_memory_is_raised(monkeypatch):
    def broken(self, asked):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(Branches, "run", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        drained(meter(shared("llama"), FULL).values([frozenset()], ALL))


def test_memory_that_never_suffices_is_an_error(monkeypatch):
    def hungry(self, asked):
        raise MemoryError

    monkeypatch.setattr(Branches, "run", hungry)
    with pytest.raises(MemoryError):
        drained(meter(shared("llama"), FULL).values([frozenset()], ALL))


def test_comparisons_are_with_the_whole_model():
    """A set's divergence from itself is 0 only for the empty set, whatever else was asked."""
    model = shared("llama")
    sets = [frozenset([BlockId(1, "mlp")]), frozenset(), frozenset([BlockId(0, "attn")])]
    found = drained(meter(model, FULL, "kl", memory_bytes=1).values(sets, ALL))
    assert found[1].abs().max() < 1e-6
    assert found[[0, 2]].min() > 1e-4
