"""Repacking: the order of blocks is kept, the count is the least, and the numbers are the same."""

from __future__ import annotations

import itertools
import random

import pytest
import tiny
import torch

from blockviz.corrections import WriterRefit, fit, repaired_model
from blockviz.errors import UnsupportedModel
from blockviz.export import Slot, packed, stock_module, stock_parameters, stored_parameters, zeroed
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel
from blockviz.session.evaluation import evaluate_request
from blockviz.session.repair_views import RepairRequest
from blockviz.session.views import ScoreRequest
from blockviz.types import BlockId, PruningPlan, run

pytestmark = pytest.mark.usefixtures("one_thread")

SERIAL = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gpt2", "neox-serial")


def drawn(n_layers: int, seed: int) -> tuple[BlockId, ...]:
    """Some of the blocks, never all of them."""
    dice = random.Random(seed)
    every = [b for i in range(n_layers) for b in BlockId(i, "layer").parts]
    return tuple(dice.sample(every, dice.randint(1, len(every) - 1)))


def names(slots: tuple[Slot, ...]) -> list[tuple[str, str]]:
    return [(str(s.attn or "-"), str(s.mlp or "-")) for s in slots]


def test_by_hand():
    """Of 0A 0M 1A 1M 2A 2M 3A 3M without 0M, 1A and 3A: 0A takes 1M, and 3M is left alone."""
    found = packed(tiny.ids("0.mlp", "1.attn", "3.attn"), 4)
    assert names(found) == [("0.attn", "1.mlp"), ("2.attn", "2.mlp"), ("-", "3.mlp")]
    assert names(zeroed(tiny.ids("0.mlp", "3.attn"), 4)) == [
        ("0.attn", "-"), ("1.attn", "1.mlp"), ("2.attn", "2.mlp"), ("-", "3.mlp"),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_order_is_kept_and_no_fewer_layers_would_do(seed: int):
    removed = drawn(9, seed)
    slots = packed(removed, 9)
    alive = [b for i in range(9) for b in BlockId(i, "layer").parts if b not in removed]
    assert [b for s in slots for b in (s.attn, s.mlp) if b is not None] == alive
    pairs = sum(a.part == "attn" and b.part == "mlp" for a, b in itertools.pairwise(alive))
    assert len(slots) == len(alive) - pairs


def test_the_mask_of_a_known_plan_packs_into_27_layers():
    """Llama-2-7B without 12 attention and 5 MLP blocks, chosen by BlockPruner's own code."""
    attn, mlp = (20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 8), (7, 9, 10, 11, 12)
    removed = (*(BlockId(i, "attn") for i in attn), *(BlockId(i, "mlp") for i in mlp))
    slots = packed(removed, 32)
    assert sum(s.attn is not None for s in slots) == 20
    assert sum(s.mlp is not None for s in slots) == 27
    assert len(slots) == 47 - sum(s.attn is not None and s.mlp is not None for s in slots)


def test_parallel_layers_are_never_paired_anew():
    slots = packed(tiny.ids("0.mlp", "1.attn"), 3, is_parallel=True)
    assert names(slots) == [("0.attn", "-"), ("-", "1.mlp"), ("2.attn", "2.mlp")]


@pytest.mark.parametrize("case", SERIAL)
@pytest.mark.parametrize("pack", [packed, zeroed])
@pytest.mark.parametrize("seed", range(3))
def test_t_exp_0_repacked_and_silenced_models_are_the_masked_one(case: str, pack, seed: int):
    model, removed = tiny.model(case), drawn(4, seed)
    slots = pack(removed, model.info.n_layers)
    found = stock_module(RepairedModel(model, PruningPlan(removed)), model, slots)
    assert type(found) is type(model.module)
    assert found.config.num_hidden_layers == len(slots)
    before = [p.clone() for p in model.module.parameters()]
    for batch in (tiny.batch(), tiny.batch(2, 7, lengths=(7, 4))):
        with torch.inference_mode(), model.masked(removed):
            expected = model.logits(batch)
        whole = bool(batch.attention_mask.all())
        with torch.inference_mode():
            logits = found(
                input_ids=batch.input_ids,
                attention_mask=None if whole else batch.attention_mask,
                use_cache=False,
            ).logits
        counted = batch.attention_mask
        assert tiny.distance(logits[counted], expected[counted]) < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(before, model.module.parameters(), strict=True))
    n = sum(p.numel() for p in found.parameters())
    assert n == stored_parameters(model.info, slots)


@pytest.mark.parametrize("case", ["llama", "gpt2", "qwen2"])
def test_a_repair_in_weights_goes_with_its_blocks(case: str):
    model = tiny.model(case)
    plan = tiny.plan("1.attn", "2.mlp")
    repaired = repaired_model(model, run(fit(model, plan, WriterRefit(), tiny.windows(8, 20))))
    slots = packed(plan.removed, model.info.n_layers)
    found = stock_module(repaired, model, slots)
    with torch.inference_mode():
        logits = found(input_ids=tiny.batch().input_ids, use_cache=False).logits
    assert tiny.distance(logits, repaired.logits(tiny.batch())) < 1e-5


def test_generation_with_a_cache_equals_generation_without(case: str = "qwen3"):
    model, removed = tiny.model(case), tiny.ids("0.attn", "1.mlp", "3.attn")
    slots = packed(removed, model.info.n_layers)
    found = stock_module(RepairedModel(model, PruningPlan(removed)), model, slots)
    ids = tiny.batch(1, 6).input_ids
    how = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    with_cache, without = (found.generate(ids, use_cache=c, **how) for c in (True, False))
    assert torch.equal(with_cache, without)


@pytest.mark.parametrize("case", ["gemma2", "gemma3", "olmo2", "mixtral", "qwen2-moe", "granite"])
@pytest.mark.parametrize("removed", [("1.attn",), ("0.mlp", "2.attn"), ("3.mlp",)], ids="+".join)
def test_halves_are_silent_behind_post_norms_and_with_experts(case: str, removed: tuple[str, ...]):
    """A post-norm's gain is set to nothing; of experts, the last matrix of each."""
    model, gone = tiny.model(case), tiny.ids(*removed)
    slots = packed(gone, model.info.n_layers)
    assert any(slot.of(part) is None for slot in slots for part in ("attn", "mlp"))
    found = stock_module(RepairedModel(model, PruningPlan(gone)), model, slots)
    with model.masked(gone):
        assert tiny.gap(found, model) < 1e-5


def test_a_writer_of_no_known_name_is_refused():
    model = tiny.model("llama")
    part = model.part(BlockId(1, "mlp"))
    part.last = part._modules.pop("down_proj")
    slots = packed(tiny.ids("1.mlp"), model.info.n_layers)
    with pytest.raises(UnsupportedModel, match="not under a known name"):
        stock_module(RepairedModel(model, tiny.plan("1.mlp")), model, slots)


def test_layers_with_experts_by_their_number_are_refused():
    model = tiny.model("qwen3-moe", mlp_only_layers=[1])
    removed = tiny.ids("0.layer")
    slots = packed(removed, model.info.n_layers)
    with pytest.raises(UnsupportedModel, match="which of them have experts"):
        stock_module(RepairedModel(model, PruningPlan(removed)), model, slots)


def test_layers_of_another_size_have_no_formula():
    model: BlockModel = tiny.model("llama")
    from dataclasses import replace

    blocks = (replace(model.info.blocks[0], n_parameters=1), *model.info.blocks[1:])
    with pytest.raises(UnsupportedModel, match="not of one size"):
        stored_parameters(replace(model.info, blocks=blocks), ())


def test_what_a_stock_file_holds_of_a_plan():
    """Two lone halves of the four blocks that go stay in the file as zeros."""
    model = tiny.model("llama")
    attn, mlp = (model.info.parameters_of([BlockId(1, part)]) for part in ("attn", "mlp"))
    removed = tiny.ids("1.attn", "3.mlp")
    assert stock_parameters(model, removed) == model.info.n_parameters
    assert stock_parameters(model, tiny.ids("1.attn", "0.mlp")) == (
        model.info.n_parameters - attn - mlp
    )
    gemma = tiny.model("gemma3")
    assert stock_parameters(gemma, tiny.ids("1.attn")) == gemma.info.n_parameters
    layer = gemma.info.parameters_of(tiny.ids("1.layer"))
    assert stock_parameters(gemma, tiny.ids("1.layer")) == gemma.info.n_parameters - layer


def test_a_report_says_what_a_stock_file_saves(tmp_path):
    """One lone half: 0.attn, 0.mlp, 2.attn, 2.mlp, 3.attn, 3.mlp and 1.mlp take four layers."""
    path = tmp_path / "words.txt"
    path.write_text(" ".join(f"w{i % tiny.VOCAB}" for i in range(400)), encoding="utf-8")
    text = ScoreRequest(calibration=str(path), n_samples=3, seq_len=16)
    model = tiny.model("llama")
    layer = model.info.parameters_of(tiny.ids("1.layer")) / model.info.n_parameters

    def saved(removed: str, *corrections: str) -> list[float | None]:
        plan = tiny.plan(*removed.split(","))
        repair = RepairRequest(plan, corrections, text=text, n_held=0) if corrections else None
        report = run(evaluate_request(model, text, plan, repair=repair))
        return [row["params"]["stored_ratio"] for row in report["rows"]]

    assert saved("1.attn") == [0.0, 0.0]
    assert saved("0.mlp,1.attn") == pytest.approx([0.0, layer])
    # A map needs a module of its own, which no stock file has; a refitted weight does not.
    assert saved("0.mlp,1.attn", "mean", "writer_refit")[1:] == [None, pytest.approx(layer)]
