"""Custom exports: nothing of a removed block is left, maps act where they did, caches are dense."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from blockviz.corrections import Asc, Diag, Hadamard, NormRidge, Ridge, fit, repaired_model
from blockviz.corrections.base import Correction, Repair
from blockviz.errors import UnsupportedModel
from blockviz.export import (
    assembled,
    custom_module,
    custom_parameters,
    modelling_file,
    no_repair,
    write_weights,
)
from blockviz.models.config_check import check_config
from blockviz.models.custom import is_custom
from blockviz.models.load import load_model
from blockviz.models.model import BlockModel
from blockviz.types import BlockId, run

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = tuple(case for case in tiny.EVERY if case != "gemma3-softcap")
PLANS = (
    ("1.layer", "2.layer"),
    ("0.attn", "2.attn"),
    ("1.mlp", "3.mlp"),
    ("0.attn", "1.mlp", "2.attn", "3.mlp"),
    ("0.mlp", "1.attn", "2.layer"),
)
CORRECTIONS = (Diag(), Ridge(), NormRidge(), Asc(site="norm_out"), Asc(site="every_block"))


def repaired(model: BlockModel, correction: Correction | None, removed: tuple[str, ...]) -> Repair:
    plan = tiny.plan(*removed)
    if correction is None:
        return no_repair(plan)
    return run(fit(model, plan, correction, tiny.windows(8, 20)))


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("removed", PLANS, ids=",".join)
def test_half_layers_are_gone_and_the_logits_stay(case: str, removed: tuple[str, ...]):
    model = tiny.model(case)
    repair = repaired(model, None, removed)
    module = custom_module(model, repair)
    assert tiny.gap(module, repaired_model(model, repair)) < 1e-5
    n = model.info.n_parameters - model.info.parameters_of(repair.plan.removed)
    assert sum(p.numel() for p in module.parameters()) == n == custom_parameters(model, repair)


@pytest.mark.parametrize("case", ["llama", "gemma3", "gpt2", "neox"])
@pytest.mark.parametrize("correction", CORRECTIONS, ids=str)
def test_maps_act_where_they_did(case: str, correction: Correction):
    model = tiny.model(case)
    for removed in PLANS[1:] if case != "neox" else PLANS[:1]:
        repair = repaired(model, correction, removed)
        module = custom_module(model, repair)
        assert tiny.gap(module, repaired_model(model, repair)) < 1e-5


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("removed", [("0.attn", "2.attn", "1.mlp"), ("0.layer", "3.attn")])
def test_t_exp_3_a_cache_has_an_entry_for_every_attention_block_and_no_other(
    case: str, removed: tuple[str, ...]
):
    model = tiny.model(case)
    module = custom_module(model, repaired(model, None, removed))
    n_attention = 4 - sum(b.part == "attn" for b in tiny.plan(*removed).removed)
    assert module.config.num_hidden_layers == n_attention
    ids = tiny.batch(1, 6).input_ids
    how = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    with torch.inference_mode():
        cache = module(input_ids=ids, use_cache=True).past_key_values
        with_cache, without = (module.generate(ids, use_cache=c, **how) for c in (True, False))
    assert torch.equal(with_cache, without)
    assert len(cache.layers) == n_attention
    assert all(layer.keys.shape[-2] == 6 for layer in cache.layers)


def test_a_block_and_the_mlp_behind_it_share_a_layer():
    """0A 1M 2A 2M 3M: 0A with 1M, 2A with 2M, 3M behind it."""
    model = tiny.model("llama")
    module = custom_module(model, no_repair(tiny.plan("0.mlp", "1.attn", "3.attn")))
    spec = module.config.blockviz
    assert [entry["has_mlp"] for entry in spec["stack"]] == [True, True]
    assert [len(entry["behind"]) for entry in spec["stack"]] == [0, 1]
    donor = model.layers[1].mlp.up_proj.weight
    assert module.model.layers[0].mlp.up_proj.weight is donor


def test_without_any_attention_there_is_no_such_export():
    model = tiny.model("llama")
    plan = tiny.plan(*(f"{i}.attn" for i in range(4)))
    with pytest.raises(UnsupportedModel, match="no attention block"):
        custom_module(model, no_repair(plan))


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("correction", [None, Ridge()], ids=str)
def test_an_export_opened_again_is_the_model_that_was_written(
    case: str, correction: Correction | None, tmp_path: Path
):
    """Opened by blockviz, never by the file in the folder: it may hold anything."""
    model = tiny.model(case)
    removed = ("1.layer",) if case == "neox" and correction else ("0.attn", "1.mlp", "2.layer")
    repair = repaired(model, correction, removed)
    write_weights(tmp_path, assembled(model, repair, "custom"), tiny.tokenizer())
    (tmp_path / "modeling_blockviz.py").write_text("raise SystemExit('this was run')")
    found = run(load_model(tmp_path, name="again", dtype="float32"))
    hooked = repaired_model(model, repair)
    assert tiny.distance(found.logits(tiny.batch()), hooked.logits(tiny.batch())) < 1e-5
    n = sum(b.n_parameters > 0 for b in found.info.blocks)
    assert n == 8 - len(repair.plan.removed)
    again = assembled(found, no_repair(tiny.plan()), "custom")
    assert tiny.gap(again.module, hooked) < 1e-5
    assert again.n_parameters == assembled(model, repair, "custom").n_parameters


def test_t_exp_1_an_export_opened_again_can_be_cut_once_more(tmp_path: Path):
    model = tiny.model("llama")
    repair = repaired(model, None, ("0.attn", "2.mlp"))
    write_weights(tmp_path, assembled(model, repair, "custom"), tiny.tokenizer())
    found = run(load_model(tmp_path, name="again", dtype="float32"))
    lone = next(b.id for b in found.info.blocks if not b.n_parameters)
    target = next(b.id for b in found.info.blocks if b.n_parameters and b.id.layer != lone.layer)
    for mode in ("custom", "stock-compact", "stock-zeroed"):
        plan = tiny.plan(str(target))
        made = assembled(found, no_repair(plan), mode).module
        with found.masked(plan.removed), torch.inference_mode():
            expected = found.logits(tiny.batch())
        with torch.inference_mode():
            logits = made(input_ids=tiny.batch().input_ids, use_cache=False).logits
        assert tiny.distance(logits, expected) < 1e-5


def test_the_file_says_which_class_it_builds_on():
    stock = type(tiny.model("qwen3").module)
    text = modelling_file(stock)
    assert "from transformers import Qwen3ForCausalLM" in text
    assert "class BlockvizForCausalLM(Pruned, Qwen3ForCausalLM):" in text
    assert "blockviz.models" not in text
    compile(text, "modeling_blockviz.py", "exec")


def test_a_config_is_ours_to_the_last_setting(tmp_path: Path):
    model = tiny.model("llama")
    repair = repaired(model, Hadamard(), ("0.attn", "1.mlp"))
    write_weights(tmp_path, assembled(model, repair, "custom"), tiny.tokenizer())
    config = json.loads((tmp_path / "config.json").read_text())
    assert is_custom(config)
    check_config(config, "ours")

    def spoilt(**changes) -> dict:
        return {**config, "blockviz": {**config["blockviz"], **changes}}

    entry = config["blockviz"]["stack"][0]
    item = {"kind": "Channels", "shapes": {"scale": [1 << 30]}, "has_norm": False}
    for bad in (
        {**config, "auto_map": {"AutoModelForCausalLM": "other.Model"}},
        {**config, "auto_map": None},
        {**config, "num_hidden_layers": 9},
        spoilt(schema="blockviz/custom/2"),
        spoilt(layers="__class__"),
        spoilt(attn="../x"),
        spoilt(extra=1),
        spoilt(stack=[]),
        spoilt(front=[item]),
        spoilt(front=[{"kind": "Linear", "shapes": {}, "has_norm": False}]),
        spoilt(stack=[{**entry, "has_mlp": "yes"}] * len(config["blockviz"]["stack"])),
    ):
        assert not is_custom(bad)
        with pytest.raises(UnsupportedModel, match="code of its own"):
            check_config(bad, "another's")


def test_scaling_by_a_layers_number_is_refused():
    model = tiny.model("gpt2", scale_attn_by_inverse_layer_idx=True)
    for mode in ("custom", "stock-compact"):
        with pytest.raises(UnsupportedModel, match="number of its layer"):
            assembled(model, no_repair(tiny.plan("1.attn")), mode)


def test_a_map_in_front_of_every_block_survives(tmp_path: Path):
    model = tiny.model("llama")
    repair = repaired(model, Ridge(), ("0.layer",))
    assert BlockId(0, "mlp") in repair.maps
    write_weights(tmp_path, assembled(model, repair, "custom"), tiny.tokenizer())
    found = run(load_model(tmp_path, name="again", dtype="float32"))
    hooked = repaired_model(model, replace(repair))
    assert tiny.distance(found.logits(tiny.batch()), hooked.logits(tiny.batch())) < 1e-5


def test_what_an_opened_export_lacks_is_no_candidate(tmp_path: Path):
    """A search would take it first: its removal costs nothing."""
    model = tiny.model("llama")
    repair = repaired(model, None, ("0.attn", "2.layer"))
    write_weights(tmp_path, assembled(model, repair, "custom"), tiny.tokenizer())
    info = run(load_model(tmp_path, name="again", dtype="float32")).info
    assert [str(b) for b in info.absent] == ["0.attn"] and info.n_layers == 3
    assert [str(b) for b in info.candidates("attn")] == ["1.attn", "2.attn"]
    assert len(info.candidates("block")) == 5 and len(info.candidates("layer")) == 3
