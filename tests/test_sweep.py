"""The ablation sweep: the fast road, the plain road and a loop by hand give the same numbers."""

from __future__ import annotations

import functools

import pytest
import tiny
import torch

from blockviz.engine import SweepResult, sweep
from blockviz.engine.roads import FastRoad, ReferenceRoad
from blockviz.metrics import parse_metrics
from blockviz.models.model import BlockModel
from blockviz.stats import RelativeSize, StreamCosine
from blockviz.types import (
    AblationTable,
    BlockId,
    CalibrationSet,
    Done,
    Progress,
    Readout,
    run,
)

pytestmark = pytest.mark.usefixtures("one_thread")

METRICS = tuple(parse_metrics(["ppl", "lds:k=10"]).values())
STATISTICS = (StreamCosine, RelativeSize)
FEW_BYTES = 1  # no stream but the first is kept: every=4
FULL, PADDED = tiny.windows(4, 16), tiny.windows(4, 16, lengths=(16, 9, 3, 12))
units = pytest.mark.parametrize("unit", ["block", "layer", "attn", "mlp"])
families = pytest.mark.parametrize("case", tiny.CASES)

shared = functools.cache(tiny.model)


def swept(model: BlockModel, windows: CalibrationSet = FULL, **how: object) -> SweepResult:
    """The sweep of every block, or of what `how` says, two windows a batch."""
    how = {"candidates": model.info.units("block"), "batch_tokens": 32, **how}
    return run(sweep(model, windows, METRICS, **how))


def assert_close(found: SweepResult, expected: SweepResult, rel: float = 1e-5) -> None:
    for one, other in zip(found.tables, expected.tables, strict=True):
        assert one.values.keys() == other.values.keys()
        # The baseline of lds is zero but for rounding.
        torch.testing.assert_close(one.baseline, other.baseline, rtol=rel, atol=1e-7)
        for block, values in other.values.items():
            torch.testing.assert_close(one.values[block], values, rtol=rel, atol=2e-8)


# --- two roads ------------------------------------------------------------------------------------


@families
@units
def test_fast_equals_reference(case: str, unit: str):
    model = shared(case)
    how = {"candidates": model.info.units(unit)}
    assert_close(swept(model, **how), swept(model, engine="reference", **how))


@families
@units
@pytest.mark.parametrize("memory", [FEW_BYTES, 3 * 2 * 16 * 32 * 4, 1 << 30])
def test_fast_equals_reference_with_blocks_gone_padding_and_little_memory(
    case: str, unit: str, memory: int
):
    """The middle budget keeps every second stream: from it one layer is run again."""
    model, gone = shared(case), tiny.ids("0.mlp", "2.attn", "3.layer")
    candidates = [b for b in model.info.units(unit) if not {*b.parts} <= {*gone, *gone[2].parts}]
    how = {"candidates": candidates, "removed": gone}
    fast = swept(model, PADDED, memory_bytes=memory, **how)
    assert_close(fast, swept(model, PADDED, engine="reference", **how))


@pytest.mark.parametrize(
    ("memory", "every", "middles"),
    [(1, 4, False), (3 * 4096, 2, False), (4 * 4096, 1, False), (8 * 4096, 1, True)],
)
def test_the_memory_budget_bounds_the_streams_that_are_kept(memory: int, every: int, middles: bool):  # noqa: FBT001
    """One stream is 2 x 16 x 32 float32 numbers, 4096 bytes; there are four layers."""
    batch = next(FULL.batches(2))
    road = FastRoad(shared("llama"), batch, (), memory_bytes=memory)
    assert len(road._streams) == 4 // every + 1
    assert bool(road._middles) == middles
    parallel = FastRoad(shared("neox"), batch, (), memory_bytes=memory)
    assert not parallel._middles  # its MLP reads the layer's input: there is no stream in between


def test_a_sweep_equals_a_loop_by_hand():
    """Masked forwards one window at a time; cross entropy and cosine written out in float64."""
    model = shared("gemma3")
    result = swept(model, PADDED, removed=tiny.ids("1.attn"))
    for row, length in enumerate((16, 9, 3, 12)):
        ids = PADDED.input_ids[row : row + 1, :length]

        def logits(*names: str, ids: torch.Tensor = ids) -> torch.Tensor:
            with model.masked(tiny.ids("1.attn", *names)), torch.inference_mode():
                return model.module(input_ids=ids, use_cache=False).logits[0].double()

        dense = logits()
        top = dense.topk(10).indices
        for block in model.info.units("block"):
            z = logits(str(block))
            nll = -z.log_softmax(-1)[range(length - 1), ids[0, 1:]].mean()
            a, b = dense.gather(1, top), z.gather(1, top)
            lds = (1 - (a * b).sum(-1) / a.norm(dim=-1) / b.norm(dim=-1)).mean()
            ppl_table, lds_table = result.tables
            assert ppl_table.values[block][row].item() == pytest.approx(nll.item(), rel=1e-5)
            assert lds_table.values[block][row].item() == pytest.approx(
                lds.item(), rel=1e-4, abs=1e-7
            )


def test_the_two_roads_hand_out_the_same_logits():
    model, batch = shared("qwen3"), next(PADDED.batches(4))
    fast = FastRoad(model, batch, tiny.ids("0.attn"), memory_bytes=1 << 30)
    fast.head.chunk_rows = 7
    plain = ReferenceRoad(model, batch, tiny.ids("0.attn"))
    for candidate in (None, BlockId(2, "mlp"), BlockId(0, "layer")):
        pieces = list(fast.chunks(candidate))
        ((rows, expected),) = plain.chunks(candidate)
        assert len(pieces) == 6 and rows == slice(0, 40)  # 16 + 9 + 3 + 12 positions, by sevens
        assert tiny.distance(torch.cat([z for _, z in pieces]), expected) < 1e-6


# --- statistics of the same pass ------------------------------------------------------------------


@families
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_statistics_come_out_of_the_same_pass(case: str, engine: str):
    model = shared(case)
    blocks = (*model.info.units("block"), *model.info.units("layer"))
    found = swept(
        model, PADDED, statistics=dict.fromkeys(STATISTICS, blocks), engine=engine
    ).statistics
    running = {(b, kind): kind() for b in blocks for kind in STATISTICS}
    for batch in PADDED.batches(4):

        def note(block: BlockId, before: torch.Tensor, update: torch.Tensor, batch=batch) -> None:
            for kind in STATISTICS:
                running[block, kind].add(before, update, batch.attention_mask)

        with model.watch(note):
            model.logits(batch)
    assert (found.n_tokens, found.n_samples) == (40, 4)
    for (block, kind), statistic in running.items():
        for name, expected in statistic.result().items():
            value = found.values[block][f"{kind.name}.{name}"]
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


def test_statistics_alone_need_no_candidates():
    model = shared("llama")
    blocks = model.info.units("layer")
    events = sweep(
        model,
        FULL,
        (),
        candidates=model.info.units("block"),
        statistics=dict.fromkeys(STATISTICS, blocks),
    )
    result = run(events)
    assert result.tables == () and tuple(result.statistics.values) == blocks


def test_statistics_are_those_of_the_model_with_blocks_gone():
    model, gone = shared("llama"), tiny.ids("0.layer")
    block = BlockId(2, "mlp")
    how = {"statistics": dict.fromkeys(STATISTICS, (block,))}
    found = swept(model, removed=gone, **how).statistics.values[block]
    expected = swept(
        model.prune(tiny.plan("0.layer")),
        statistics=dict.fromkeys(STATISTICS, (BlockId(1, "mlp"),)),
    )
    for name, values in expected.statistics.values[BlockId(1, "mlp")].items():
        torch.testing.assert_close(found[name], values, rtol=1e-6, atol=1e-6)


# --- step by step ---------------------------------------------------------------------------------


def test_every_step_is_counted_and_every_batch_is_a_result():
    model = shared("llama")
    blocks = model.info.units("block")
    *steps, last = sweep(model, FULL, METRICS, candidates=blocks, batch_tokens=32)
    assert [s.done for s in steps] == list(range(1, 2 * 9 + 1))
    assert {s.total for s in steps} == {18}
    assert [s.note for s in steps[:3]] == ["whole model", "0.attn", "0.mlp"]
    partial = [s.partial for s in steps if s.partial is not None]
    assert [p.n_windows for p in partial] == [2, 4]
    assert isinstance(last, Done) and last.result == partial[-1]


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_partial_result_is_the_sweep_of_fewer_windows(engine: str):
    model = shared("gpt2")
    how = {"statistics": dict.fromkeys(STATISTICS, model.info.units("block"))}
    events = sweep(
        model,
        FULL,
        METRICS,
        candidates=model.info.units("block"),
        batch_tokens=32,
        engine=engine,
        **how,
    )
    first = next(e.partial for e in events if e.partial is not None)
    events.close()
    half = CalibrationSet(FULL.input_ids[:2], FULL.attention_mask[:2], FULL.origin)
    expected = swept(model, half, engine=engine, **how)
    assert_close(first, expected, rel=0)
    for block, values in expected.statistics.values.items():
        assert all(torch.equal(first.statistics.values[block][n], v) for n, v in values.items())
    assert (first.n_windows, first.statistics.n_tokens) == (2, 32)


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("n_steps", [1, 4, 9, 11])
def test_a_sweep_that_is_closed_midway_leaves_no_mark(engine: str, n_steps: int):
    model = shared("gemma3")
    before = model.logits(next(FULL.batches(4)))
    events = sweep(
        model,
        FULL,
        METRICS,
        candidates=model.info.units("block"),
        removed=tiny.ids("1.mlp"),
        batch_tokens=32,
        statistics=dict.fromkeys(STATISTICS, model.info.units("block")),
        engine=engine,
    )
    for _ in range(n_steps):
        assert isinstance(next(events), Progress)
    events.close()
    for module in model.module.modules():
        assert "forward" not in module.__dict__
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert torch.equal(model.logits(next(FULL.batches(4))), before)


def test_a_sweep_whose_metric_raises_leaves_no_mark():
    class Failing:
        compares_logits = False

        def positions(self, readout: Readout) -> torch.Tensor:
            return readout.has_target

        def remember(self, _readout: Readout) -> dict[str, torch.Tensor]:
            return {}

        def per_position(self, _readout: Readout, _kept: object) -> torch.Tensor:
            raise ArithmeticError("stop")

    model = shared("llama")
    with pytest.raises(ArithmeticError, match="stop"):
        run(sweep(model, FULL, [Failing()], candidates=model.info.units("block")))
    assert not any("forward" in m.__dict__ for m in model.module.modules())


@pytest.mark.parametrize("engine", ["fast", "reference"])
@families
def test_other_plans_may_run_between_two_steps(case: str, engine: str):
    """The lock on the model is free between steps: no mask may be in force there, nor kept."""
    model = shared(case)
    undisturbed = swept(model, PADDED, engine=engine)
    batch = next(FULL.batches(4))
    with model.masked(tiny.ids("0.layer", "2.mlp")):
        expected = model.logits(batch)
    whole = model.logits(batch)
    result = None
    for event in sweep(
        model, PADDED, METRICS, candidates=model.info.units("block"), batch_tokens=32, engine=engine
    ):
        if isinstance(event, Done):
            result = event.result
            continue
        assert torch.equal(model.logits(batch), whole)
        with model.masked(tiny.ids("0.layer", "2.mlp")):
            assert torch.equal(model.logits(batch), expected)
    assert_close(result, undisturbed, rel=0)


def test_two_sweeps_in_turns_do_not_see_each_other():
    model = shared("neox-serial")
    plain, pruned = {}, {"removed": tiny.ids("1.layer")}
    alone = [swept(model, **how) for how in (plain, pruned)]
    candidates = model.info.units("block")
    turns = [
        sweep(model, FULL, METRICS, candidates=candidates, batch_tokens=32, **how)
        for how in (plain, pruned)
    ]
    for events in zip(*turns, strict=True):
        results = [e.result for e in events if isinstance(e, Done)]
    for found, expected in zip(results, alone, strict=True):
        assert_close(found, expected, rel=0)


def test_windows_too_long_for_a_batch_go_one_by_one():
    found = swept(shared("llama"), batch_tokens=3)
    assert_close(found, swept(shared("llama"), batch_tokens=1000))


def test_tables_hold_a_number_per_window():
    for table in swept(shared("llama")).tables:
        assert isinstance(table, AblationTable)
        assert table.baseline.shape == (4,) and table.baseline.dtype == torch.float64
        assert all(values.shape == (4,) for values in table.values.values())
        assert len({tuple(v.tolist()) for v in table.values.values()}) == 8  # no two blocks alike
