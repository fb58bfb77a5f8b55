"""Folding: a repair in stock weights gives the logits of the repair beside the model."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

from blockviz.corrections import (
    Asc,
    Diag,
    FoldAsc,
    LlmStreamline,
    Mean,
    NormRidge,
    ReplaceMe,
    Ridge,
    Scalar,
    WriterDistilled,
    WriterRefit,
    fit,
    repaired_model,
)
from blockviz.corrections.base import Correction, Repair
from blockviz.errors import UnsupportedModel
from blockviz.export import fold, no_repair, packed, stock_module, zeroed
from blockviz.export.folding import gain_offset
from blockviz.export.slots import HELD_OPEN
from blockviz.models.convert import as_llama
from blockviz.models.model import BlockModel
from blockviz.models.modeling_blockviz import Channels, Gated, Residual, Shift
from blockviz.types import BlockId, run

pytestmark = pytest.mark.usefixtures("one_thread")

HALVES = ("1.attn", "2.mlp")
LAYERS = ("1.layer", "2.layer")
# What a norm adds before it divides: without it a factor is folded exactly.
EPS = {"gpt2": "layer_norm_epsilon", "neox": "layer_norm_eps", "neox-serial": "layer_norm_eps"}
PRE_NORM = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gpt2", "neox-serial")


def fitted(model: BlockModel, correction: Correction, *removed: str) -> Repair:
    return run(fit(model, tiny.plan(*removed), correction, tiny.windows(8, 20)))


def stock(whole: BlockModel, repair: Repair, pack=packed) -> nn.Module:
    folded = fold(whole, repair)
    slots = pack(folded.removed, whole.info.n_layers, is_parallel=whole.family.is_parallel) \
        if pack is packed else pack(folded.removed, whole.info.n_layers)  # fmt: skip
    return stock_module(folded.model, whole, slots)


def same(whole: BlockModel, repair: Repair, bound: float = 1e-5, **how) -> nn.Module:
    before = [p.clone() for p in whole.module.parameters()]
    found = stock(whole, repair, **how)
    assert tiny.gap(found, repaired_model(whole, repair)) < bound
    assert all(torch.equal(a, b) for a, b in zip(before, whole.module.parameters(), strict=True))
    return found


@pytest.mark.parametrize("case", [*PRE_NORM, "neox"])
@pytest.mark.parametrize("removed", [HALVES, LAYERS, ("0.attn", "3.mlp"), ("0.layer", "2.attn")])
def test_f1_a_factor_goes_into_everything_in_front(case: str, removed: tuple[str, ...]):
    """Up to the epsilon of the norms, which is next to nothing here."""
    model = tiny.model(case, **{EPS.get(case, "rms_norm_eps"): 1e-12})
    same(model, fitted(model, Scalar(), *removed), 2e-5)
    usual = tiny.model(case)
    same(usual, fitted(usual, Scalar(), *removed), 1e-3)


def test_f1g_behind_a_post_norm_its_gain_is_scaled():
    model = tiny.model("gemma3", rms_norm_eps=1e-12)
    same(model, fitted(model, Scalar(), *LAYERS), 2e-5)


@pytest.mark.parametrize("case", ["qwen2", "gemma3", "gpt2"])
def test_t_exp_5_a_tied_model_stays_tied_and_right(case: str):
    model = tiny.model(case, tie_word_embeddings=True)
    found = same(model, fitted(model, Scalar(), *LAYERS), 1e-3)
    assert found.get_output_embeddings().weight is found.get_input_embeddings().weight


def test_f1_by_hand():
    """Factors 2 behind layer 1 and 3 behind layer 2: in front of both six times as much, between
    them three times, behind them once."""
    model = tiny.model("llama")
    maps = {BlockId(1, "mlp"): Channels(torch.tensor([2.0])),
            BlockId(2, "mlp"): Channels(torch.tensor([3.0]))}  # fmt: skip
    plan = tiny.plan("1.mlp", "2.mlp")
    repair = replace(no_repair(plan), maps=maps)
    folded = fold(model, repair)

    def ratio(path: str) -> float:
        return float(
            (folded.model.module.get_submodule(path).weight
             / model.module.get_submodule(path).weight).mean()
        )  # fmt: skip

    assert ratio("model.embed_tokens") == pytest.approx(6)
    assert ratio("model.layers.0.self_attn.o_proj") == pytest.approx(6)
    assert ratio("model.layers.1.self_attn.o_proj") == pytest.approx(6)
    assert ratio("model.layers.2.self_attn.o_proj") == pytest.approx(3)
    assert ratio("model.layers.3.self_attn.o_proj") == pytest.approx(1)
    assert ratio("model.norm") == pytest.approx(1)


@pytest.mark.parametrize("case", ["llama", "gpt2", "neox", "neox-serial"])
@pytest.mark.parametrize("removed", [HALVES, LAYERS, ("0.mlp", "3.layer")])
def test_f2_a_constant_becomes_a_bias(case: str, removed: tuple[str, ...]):
    model = tiny.model(case)
    same(model, fitted(model, Mean(), *removed))


def test_f2_biases_are_asked_for_where_a_family_can_have_them():
    """All linear maps of a part get one then, since the config knows no other way."""
    model = tiny.model("llama", attention_bias=False, mlp_bias=False)
    found = same(model, fitted(model, Mean(), "2.attn"))
    assert found.config.mlp_bias and not found.config.attention_bias
    assert not model.module.config.mlp_bias
    assert all(layer.mlp.gate_proj.bias is not None for layer in found.model.layers)
    only_attn = same(model, fitted(model, Mean(), "2.mlp"))
    assert only_attn.config.attention_bias and not only_attn.config.mlp_bias


@pytest.mark.parametrize("case", ["mistral", "qwen2"])
def test_f2c_a_family_without_biases_can_become_a_llama(case: str):
    settings = {"sliding_window": None} if case == "mistral" else {}
    model = tiny.model(case, **settings)
    llama = as_llama(model)
    assert type(llama.module).__name__ == "LlamaForCausalLM"
    assert tiny.distance(llama.logits(tiny.batch()), model.logits(tiny.batch())) < 1e-6
    repair = fitted(model, Mean(), "2.attn", "3.mlp")
    with pytest.raises(UnsupportedModel, match="there is none"):
        fold(model, repair)
    found = stock(llama, repair)
    assert tiny.gap(found, repaired_model(model, repair)) < 1e-5


def test_a_window_that_slides_is_no_llama():
    with pytest.raises(UnsupportedModel, match="window"):
        as_llama(tiny.model("mistral"))
    with pytest.raises(UnsupportedModel, match="family"):
        as_llama(tiny.model("gpt2"))


@pytest.mark.parametrize("case", ["llama", "mistral", "qwen2", "phi3", "gpt2", "neox-serial"])
@pytest.mark.parametrize(
    "correction",
    [ReplaceMe(), WriterRefit(), WriterDistilled(epochs=1), FoldAsc()],
    ids=lambda c: c.name,
)
def test_f3_what_is_in_writers_stays_there(case: str, correction: Correction):
    model = tiny.model(case)
    same(model, fitted(model, correction, *HALVES))


@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
def test_f4_channels_of_what_a_block_reads_go_into_its_norm(case: str):
    model = tiny.model(case)
    same(model, fitted(model, Asc(site="norm_out"), *LAYERS))


def test_f4_a_scale_alone_needs_no_bias():
    model = tiny.model("gemma3")
    repair = fitted(model, Asc(site="norm_out", stat="absmean"), *LAYERS)
    same(model, repair)
    with pytest.raises(UnsupportedModel, match="there is none"):
        fold(model, fitted(model, Asc(site="norm_out"), *LAYERS))


@pytest.mark.parametrize("case", ["llama", "gemma3"])
@pytest.mark.parametrize("correction", [Diag(), Ridge(), Mean()], ids=lambda c: c.name)
def test_f5_in_front_of_the_first_block_any_map_goes_into_the_embedding(
    case: str, correction: Correction
):
    model = tiny.model(case, tie_word_embeddings=True)
    found = same(model, fitted(model, correction, "0.layer"), 3e-5)
    assert found.get_output_embeddings().weight is not found.get_input_embeddings().weight
    assert found.config.tie_word_embeddings is False


def test_f5_learned_positions_take_a_constant_only():
    model = tiny.model("gpt2")
    same(model, fitted(model, Mean(), "0.layer"))
    with pytest.raises(UnsupportedModel, match="row of a word"):
        fold(model, fitted(model, Diag(), "0.layer"))


def test_f6_a_map_of_the_normed_stream_stands_where_an_mlp_was():
    assert HELD_OPEN / (1 + math.exp(-HELD_OPEN)) == pytest.approx(1, abs=1e-12)
    model = tiny.model("llama", attention_bias=False, mlp_bias=False)
    repair = fitted(model, NormRidge(), "1.mlp", "2.attn", "3.layer")
    found = same(model, repair)
    # 1.mlp and 3.mlp stand again: 0A 0M 1A 1M 2M 3M.
    assert found.config.num_hidden_layers == 4
    with pytest.raises(UnsupportedModel, match="No MLP was removed there"):
        fold(model, fitted(model, NormRidge(), "2.attn"))
    narrow = tiny.model("llama", intermediate_size=24)
    with pytest.raises(UnsupportedModel, match="needs a width of 32"):
        fold(narrow, fitted(narrow, NormRidge(), "2.mlp"))


@pytest.mark.parametrize("case", ["llama", "mistral", "qwen2", "qwen3"])
def test_f6_a_trained_network_stands_where_an_mlp_was(case: str):
    model = tiny.model(case)
    dice = torch.Generator().manual_seed(3)
    drawn = [torch.randn(32, 16, generator=dice) * 0.3 for _ in range(2)]
    module = Gated(*drawn, torch.randn(16, 32, generator=dice) * 0.3)
    repair = replace(no_repair(tiny.plan("2.layer")), maps={BlockId(2, "mlp"): module})
    same(model, repair, 1e-4)
    assert LlmStreamline.name == "llm_streamline"


def test_x1_maps_of_the_whole_stream_are_refused_with_the_reason():
    model = tiny.model("llama")
    for correction in (Diag(), Ridge(), Asc()):
        with pytest.raises(UnsupportedModel, match="custom"):
            fold(model, fitted(model, correction, *HALVES))


@pytest.mark.parametrize("pack", [packed, zeroed])
def test_folded_models_are_packed_or_silenced_alike(pack):
    model = tiny.model("llama")
    same(model, fitted(model, Scalar(), "0.mlp", "1.attn", "3.mlp"), 1e-3, pack=pack)


def test_a_factor_and_a_constant_together():
    """alpha u + beta: the constant first, divided by alpha, then the factor."""
    model = tiny.model("llama")
    maps = {
        BlockId(1, "mlp"): Channels(torch.tensor([1.5]), torch.linspace(-1, 1, 32)),
        BlockId(3, "attn"): Channels(torch.tensor([0.5]), torch.linspace(1, 0, 32)),
        BlockId(0, "attn"): Shift(torch.linspace(0, 1, 32)),
    }
    repair = replace(no_repair(tiny.plan("0.attn", "1.mlp", "3.attn")), maps=maps)
    same(model, repair, 1e-3)


def test_gains_are_told_apart_by_what_they_do():
    assert gain_offset(tiny.model("gemma3").final_norm) == 1.0
    assert gain_offset(tiny.model("llama").final_norm) == 0.0
    assert gain_offset(tiny.model("gpt2").final_norm) == 0.0


def test_a_map_where_nothing_was_removed_has_no_place():
    model = tiny.model("llama")
    repair = replace(
        no_repair(tiny.plan("3.mlp")), maps={BlockId(1, "mlp"): Residual(torch.zeros(32, 32))}
    )
    with pytest.raises(UnsupportedModel, match="nothing was removed"):
        fold(model, repair)
