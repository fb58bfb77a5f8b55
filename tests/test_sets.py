"""Losses of any sets of removed blocks, in any order, equal those of plain masked forwards."""

from __future__ import annotations

import functools
import random

import pytest
import tiny
import torch

from blockviz.engine import SetRunner
from blockviz.evaluate import measure_perplexity
from blockviz.models.model import BlockModel
from blockviz.models.stage import Stage
from blockviz.types import BlockId, CalibrationSet, run

pytestmark = pytest.mark.usefixtures("one_thread")

FULL, PADDED = tiny.windows(5, 12), tiny.windows(5, 12, lengths=(12, 7, 2, 10, 5))
ONE_STREAM = 2 * 12 * tiny.HIDDEN * 4  # of a batch of two windows; there are three batches
families = pytest.mark.parametrize("case", tiny.CASES)

shared = functools.cache(tiny.model)


def runner(model: BlockModel, windows: CalibrationSet, **how: int) -> SetRunner:
    """Two windows a batch."""
    return SetRunner(model, windows, batch_tokens=24, **how)


def plain_nll(model: BlockModel, windows: CalibrationSet, removed: tuple[BlockId, ...]) -> list:
    """Window after window, unpadded, through the whole masked model; the loss by hand, float64."""
    found = []
    for ids, mask in zip(windows.input_ids, windows.attention_mask, strict=True):
        ids = ids[: int(mask.sum())]
        with model.masked(removed), torch.inference_mode():
            logs = model.module(input_ids=ids[None]).logits[0].double().log_softmax(dim=-1)
        found.append(-logs[range(len(ids) - 1), ids[1:]].mean().item())
    return found


def random_sets(model: BlockModel, n: int, seed: int) -> list[tuple[BlockId, ...]]:
    """Sets of every size, blocks and layers mixed; every third is the one before and one more."""
    draw = random.Random(seed)
    units = [*model.info.units("block"), *model.info.units("layer")]
    sets: list[tuple[BlockId, ...]] = [()]
    for i in range(n):
        if i % 3 == 2:
            sets.append((*sets[-1], draw.choice(units)))
        else:
            sets.append(tuple(draw.sample(units, draw.randrange(0, 9))))
    return [*sets, tuple(model.info.units("block")), ()]


@families
@pytest.mark.parametrize("windows", [FULL, PADDED], ids=["full", "padded"])
def test_any_sequence_of_sets_equals_plain_masked_forwards(case: str, windows: CalibrationSet):
    model = shared(case)
    sets = SetRunner(model, windows, batch_tokens=24)
    for removed in random_sets(model, 8, seed=len(case)):
        expected = plain_nll(model, windows, removed)
        assert sets.nll(removed).tolist() == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize(
    ("memory", "every"), [(1, 4), (3 * ONE_STREAM, 4), (6 * ONE_STREAM, 2), (12 * ONE_STREAM, 1)]
)
def test_the_memory_decides_how_many_streams_are_kept_and_changes_no_bit(
    case: str, memory: int, every: int
):
    model = shared(case)
    sets = runner(model, PADDED, memory_bytes=memory)
    for removed in random_sets(model, 12, seed=every):
        found = sets.nll(removed)
        anew = runner(model, PADDED).nll(removed)
        assert torch.equal(found, anew)
        kept = [len(one._streams) for one in sets._runs.values()]
        assert kept == [4 // every] * 3
    assert sum(kept) * ONE_STREAM <= max(memory, 3 * ONE_STREAM)


@pytest.mark.parametrize("case", ["llama", "neox", "gemma3"])
def test_equal_to_measure_perplexity(case: str):
    model = shared(case)
    sets = runner(model, PADDED)
    for names in [(), ("0.attn",), ("0.attn", "3.mlp"), ("2.layer", "0.attn"), ("2.layer",)]:
        removed = tiny.ids(*names)
        expected = run(measure_perplexity(model, PADDED, removed=removed, batch_tokens=24))
        assert sets.nll(removed).tolist() == pytest.approx(list(expected.window_nll), rel=1e-12)


def test_only_the_layers_from_the_first_difference_on_are_run(monkeypatch: pytest.MonkeyPatch):
    model, ran = shared("llama"), []
    layer = Stage.layer
    monkeypatch.setattr(
        Stage, "layer", lambda self, index, x: (ran.append(index), layer(self, index, x))[1]
    )
    sets = SetRunner(model, FULL, batch_tokens=1000)
    for names, expected in [
        ((), [0, 1, 2, 3]),
        (("3.mlp",), [3]),
        (("1.attn", "3.mlp"), [1, 2, 3]),
        (("1.attn", "2.layer"), [3]),  # a whole layer that is gone is not run
        (("1.attn",), [2, 3]),
        (("1.attn",), [3]),  # nothing differs: from the last stream that is kept
        (("0.layer", "1.attn"), [1, 2, 3]),
    ]:
        ran.clear()
        sets.nll(tiny.ids(*names))
        assert ran == expected, names


def test_a_layer_is_its_two_blocks_and_order_means_nothing():
    sets = runner(shared("qwen3"), FULL)
    whole = sets.nll(tiny.ids("2.layer", "0.mlp"))
    assert torch.equal(whole, sets.nll(tiny.ids("0.mlp", "2.mlp", "2.attn", "2.attn")))


def test_batch_by_batch_is_the_whole():
    sets, removed = runner(shared("llama"), PADDED), tiny.ids("1.mlp")
    parts = [sets.nll_of_batch(i, removed) for i in (2, 0, 1)]
    assert [len(p) for p in parts] == [1, 2, 2] and parts[0].dtype == torch.float64
    assert torch.equal(torch.cat([*parts[1:], parts[0]]), sets.nll(removed))
    assert torch.equal(sets.batch(1).input_ids, PADDED.input_ids[2:4])


@pytest.mark.parametrize("case", ["llama", "neox"])
def test_a_run_that_breaks_midway_spoils_no_later_one(case: str, monkeypatch: pytest.MonkeyPatch):
    model = shared(case)
    sets, layer = runner(model, FULL), Stage.layer
    sets.nll(tiny.ids("3.mlp"))

    def failing(self: Stage, index: int, stream: torch.Tensor) -> torch.Tensor:
        if index == 2:
            raise MemoryError
        return layer(self, index, stream)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "layer", failing)
        with pytest.raises(MemoryError):
            sets.nll(tiny.ids("0.attn"))
    for names in [("0.attn",), ("0.attn", "2.mlp"), ()]:
        assert torch.equal(sets.nll(tiny.ids(*names)), runner(model, FULL).nll(tiny.ids(*names)))


def test_no_mask_is_left_between_two_sets():
    model = shared("gemma3")
    batch = next(FULL.batches(5))
    before = model.logits(batch)
    sets = runner(model, FULL)
    sets.nll(tiny.ids("0.layer", "2.mlp"))
    assert torch.equal(model.logits(batch), before)
    with model.masked(tiny.ids("1.layer")):  # somebody else's plan
        pass
    assert not any("forward" in m.__dict__ for m in model.module.modules())
