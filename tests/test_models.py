"""One contract for every family: what a block is, and what leaving it out means."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import tiny
import torch
import transformers

from blockviz.errors import BadPlan, UnsupportedModel
from blockviz.models import load
from blockviz.models.families import FAMILIES, detect, family_of
from blockviz.models.load import wrap
from blockviz.models.model import BlockModel, trim_config, unwrap
from blockviz.models.modeling_blockviz import scatter_mlp
from blockviz.types import BlockId

HALVES = ("attn", "mlp", "layer")
SINGLES = tuple(f"{i}.{part}" for i in range(tiny.LAYERS) for part in HALVES)
# Removals that a key-value cache survives only if positions are counted on the right slot.
CACHE_PLANS = (
    ("0.attn",),
    ("0.mlp",),
    ("0.layer",),
    ("3.layer",),
    ("0.layer", "2.layer"),  # every sliding layer of the mixed families
    ("1.layer", "3.layer"),  # every full layer of them
    ("0.attn", "1.attn", "2.attn"),
    ("0.attn", "1.attn", "2.attn", "3.attn"),
    ("0.mlp", "1.layer", "3.attn"),
)
pytestmark = pytest.mark.usefixtures("one_thread")
# What a layout without a case of its own is tried with.
FEW = (("0.layer",), ("0.attn", "1.attn", "2.attn"), ("0.mlp", "1.layer", "3.attn"))


def over(plans: tuple[tuple[str, ...], ...]) -> pytest.MarkDecorator:
    """Every case of the common ones with every plan, the others with a few."""
    pairs = [(c, p) for c in tiny.EVERY for p in plans if c in tiny.CASES or p in FEW]
    ids = [f"{case}-{'+'.join(plan)}" for case, plan in pairs]
    return pytest.mark.parametrize(("case", "names"), pairs, ids=ids)


any_plan = over(CACHE_PLANS)

shared = functools.cache(tiny.model)


@pytest.fixture(params=tiny.EVERY)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(case: str) -> BlockModel:
    """Shared between tests: nothing may change it."""
    return shared(case)


def test_every_family_of_the_table_is_held_to_this_contract():
    listed = {model_type for family in FAMILIES for model_type in family.model_types}
    assert listed == {model_type for model_type, _ in tiny.EVERY.values()}


# --- watching -------------------------------------------------------------------------------------


def _watched(model: BlockModel, batch: Any) -> dict[BlockId, tuple[torch.Tensor, torch.Tensor]]:
    seen: dict[BlockId, tuple[torch.Tensor, torch.Tensor]] = {}

    def note(block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
        assert block not in seen
        seen[block] = (before, update)

    with model.watch(note):
        model.logits(batch)
    return seen


def _plain_streams(model: BlockModel, batch: Any) -> list[torch.Tensor]:
    """What the library itself says is in front of each layer; then behind the last, unnormed."""
    last: list[torch.Tensor] = []
    handle = model.layers[-1].register_forward_hook(lambda _m, _a, out: last.append(unwrap(out)))
    with torch.inference_mode():
        states = model.module(input_ids=batch.input_ids, output_hidden_states=True).hidden_states
    handle.remove()
    return [*states[:-1], last[0]]


def test_watch_shows_the_stream_and_updates_that_add_up_to_the_next(model: BlockModel):
    batch = tiny.batch()
    seen, streams = _watched(model, batch), _plain_streams(model, batch)
    assert list(seen) == [BlockId.parse(name) for name in SINGLES]
    for i in range(tiny.LAYERS):
        before, attn = seen[BlockId(i, "attn")]
        _, mlp = seen[BlockId(i, "mlp")]
        whole, update = seen[BlockId(i, "layer")]
        assert torch.equal(before, streams[i]) and torch.equal(whole, streams[i])
        assert tiny.distance(before + attn + mlp, streams[i + 1]) < 1e-6
        assert tiny.distance(before + update, streams[i + 1]) < 1e-6
        assert attn.abs().max() > 0.01 and mlp.abs().max() > 0.01  # else the sum says little


def test_before_is_what_the_block_reads(model: BlockModel):
    """The stream that reaches a block's own norm, by a plain hook on that norm."""
    read: dict[BlockId, torch.Tensor] = {}
    handles = []
    for i, layer in enumerate(model.layers):
        for part in ("attn", "mlp"):
            path = model.family.reads(part) or model.family.module(part)
            keep = functools.partial(read.__setitem__, BlockId(i, part))

            def hook(_module, args, kwargs, keep=keep):
                keep(args[0] if args else kwargs["hidden_states"])

            reader = layer.get_submodule(path)
            handles.append(reader.register_forward_pre_hook(hook, with_kwargs=True))
    seen = _watched(model, tiny.batch())
    for handle in handles:
        handle.remove()
    for block, stream in read.items():
        assert tiny.distance(seen[block][0], stream) < 1e-6, block


def test_a_masked_block_is_watched_as_an_update_of_zero(model: BlockModel):
    with model.masked(tiny.ids("1.attn", "2.layer")):
        seen = _watched(model, tiny.batch())
    for name in ("1.attn", "2.attn", "2.mlp", "2.layer"):
        assert not seen[BlockId.parse(name)][1].any(), name
    assert seen[BlockId(1, "mlp")][1].any()


# --- masking --------------------------------------------------------------------------------------


def _state(model: BlockModel) -> dict[str, Any]:
    """Everything that a mask or a watch could leave behind."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    modules = dict(model.module.named_modules())
    return {
        "weights": {n: p.clone() for n, p in model.module.state_dict().items()},
        "classes": {n: type(m) for n, m in modules.items()},
        "attributes": {n: {k: id(v) for k, v in m.__dict__.items()} for n, m in modules.items()},
        "hooks": {n: [len(getattr(m, h)) for h in hooks] for n, m in modules.items()},
        "config": copy.deepcopy(model.module.config.to_dict()),
        "logits": model.logits(tiny.batch()),
    }


def _assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert after["weights"].keys() == before["weights"].keys()
    assert all(torch.equal(after["weights"][n], w) for n, w in before["weights"].items())
    assert torch.equal(after["logits"], before["logits"])
    for kind in ("classes", "attributes", "hooks", "config"):
        assert after[kind] == before[kind], kind


def test_a_mask_leaves_nothing_behind(model: BlockModel):
    before = _state(model)
    with model.masked(tiny.ids("0.attn", "2.layer")):
        inside = model.logits(tiny.batch())
    assert not torch.equal(inside, before["logits"])
    _assert_same(before, _state(model))


def test_a_mask_leaves_nothing_behind_when_the_body_raises(model: BlockModel):
    before = _state(model)
    with pytest.raises(KeyError, match="stop"), model.masked(tiny.plan("1.mlp", "3.layer")):
        raise KeyError("stop")
    _assert_same(before, _state(model))


def test_a_mask_that_cannot_be_set_leaves_nothing_behind(model: BlockModel):
    before = _state(model)
    with pytest.raises(IndexError), model.masked(tiny.ids("1.mlp", "9.attn")):
        pass
    _assert_same(before, _state(model))


def test_a_mask_inside_a_mask_gives_the_outer_one_back(model: BlockModel):
    batch = tiny.batch()
    with model.masked(tiny.ids("1.attn")):
        outer = model.logits(batch)
        with model.masked(tiny.ids("1.layer", "2.mlp")):
            both = model.logits(batch)
        assert torch.equal(model.logits(batch), outer)
    with model.masked(tiny.ids("1.layer", "2.mlp")):
        assert torch.equal(model.logits(batch), both)


def test_a_watch_leaves_nothing_behind_when_its_reader_raises(model: BlockModel):
    def fail(block: BlockId, _before: torch.Tensor, _update: torch.Tensor) -> None:
        if block == BlockId(2, "attn"):
            raise KeyError("stop")

    before = _state(model)
    with pytest.raises(KeyError, match="stop"), model.watch(fail):
        model.logits(tiny.batch())
    _assert_same(before, _state(model))


def test_t_mech_2_masking_nothing_changes_no_bit(model: BlockModel):
    expected = model.logits(tiny.batch())
    with model.masked(()):
        assert torch.equal(model.logits(tiny.batch()), expected)


def test_t_mech_3_masking_is_writing_zeros(case: str, model: BlockModel):
    """Every attention, every MLP, every layer: as if its last projection held only zeros."""
    batch, base = tiny.batch(), model.logits(tiny.batch())
    written = shared(case, seed=0)
    for name in SINGLES:
        with model.masked(tiny.ids(name)):
            masked = model.logits(batch)
        with tiny.zeroed(written, case, tiny.ids(name)):
            assert tiny.distance(masked, written.logits(batch)) < 1e-6, name
        assert tiny.distance(masked, base) > 1e-3, name  # the block does something
    assert torch.equal(written.logits(batch), base)


def test_masking_works_on_padded_windows(case: str, model: BlockModel):
    """Padded together with longer windows or alone: the same logits where there is text."""
    lengths = (20, 13, 5)
    padded = tiny.batch(lengths=lengths)
    with model.masked(tiny.ids("0.attn", "2.mlp")):
        together = model.logits(padded)
        for row, length in enumerate(lengths):
            ids = padded.input_ids[row : row + 1, :length]
            with torch.inference_mode():
                alone = model.module(input_ids=ids, use_cache=False).logits[0]
            assert tiny.distance(together[row, :length], alone) < 1e-5, length


# --- pruning --------------------------------------------------------------------------------------


@over((*((n,) for n in SINGLES), *(p for p in CACHE_PLANS if len(p) > 1)))
def test_pruned_equals_masked(model: BlockModel, names: tuple[str, ...]):
    with model.masked(tiny.ids(*names)):
        masked = model.logits(tiny.batch())
    pruned = model.prune(tiny.plan(*names))
    assert tiny.distance(pruned.logits(tiny.batch()), masked) < 1e-6


def test_pruning_leaves_the_original_as_it_was(model: BlockModel):
    before = _state(model)
    pruned = model.prune(tiny.plan("0.layer", "1.attn", "3.mlp"))
    pruned.logits(tiny.batch())
    _assert_same(before, _state(model))


def test_a_pruned_model_holds_the_kept_weights_and_no_other(model: BlockModel):
    pruned = model.prune(tiny.plan("0.layer", "1.attn", "3.mlp"))
    whole = {p.data_ptr() for p in model.module.parameters()}
    kept = list(pruned.module.parameters())
    assert {p.data_ptr() for p in kept} <= whole, "weights were copied"
    counted = sum(p.numel() for p in kept)
    assert counted == pruned.info.n_parameters
    gone = tiny.ids("0.layer", "1.attn", "3.mlp")
    assert counted == model.info.n_parameters - model.info.parameters_of(gone)
    for part, layer in (("attn", 0), ("mlp", 2)):  # layers 1 and 3 of the original
        assert not list(pruned.part(BlockId(layer, part)).parameters())
        for norm in model.family.norms(part):
            assert not list(pruned.layers[layer].get_submodule(norm).parameters())


def test_blocks_and_the_rest_are_all_the_parameters(model: BlockModel):
    """What is in no block: embeddings, head, final norm, counted by name."""
    layers = f"{model.family.layers}."
    outside = sum(p.numel() for n, p in model.module.named_parameters() if not n.startswith(layers))
    everything = [b.id for b in model.info.blocks]
    assert outside + model.info.parameters_of(everything) == model.info.n_parameters


def test_a_pruned_model_is_renumbered_and_its_config_trimmed(model: BlockModel):
    pruned = model.prune(tiny.plan("0.layer", "2.attn"))
    config, old = pruned.module.config, model.module.config
    assert (config.num_hidden_layers, old.num_hidden_layers) == (3, 4)
    assert pruned.info.n_layers == len(pruned.layers) == 3
    if getattr(old, "layer_types", None):
        assert config.layer_types == list(old.layer_types[1:])
        assert len(old.layer_types) == 4
    for index, layer in enumerate(pruned.layers):
        numbers = [m.layer_idx for m in layer.modules() if hasattr(m, "layer_idx")]
        assert numbers and set(numbers) == {index}
    config.validate()  # what the library checks when a config is saved or loaded
    empty = [b for b in pruned.info.blocks if not b.n_parameters]
    assert [str(b.id) for b in empty] == ["1.attn"]
    assert empty[0].kv_bytes_per_token == 0


def test_a_config_list_is_trimmed_only_if_it_is_per_layer():
    config = transformers.Qwen3Config(
        **{**tiny.LLAMA_LIKE, "num_hidden_layers": 2},
        layer_types=["sliding_attention", "full_attention"],
        architectures=["A", "B"],
        use_sliding_window=True,
    )
    config.eos_token_id, config.labels = [5, 6], ["a", "b"]
    trim_config(config, [1])
    assert config.layer_types == ["full_attention"] and config.num_hidden_layers == 1
    assert (config.eos_token_id, config.labels) == ([5, 6], ["a", "b"])
    assert config.architectures == ["A", "B"]


def test_pruning_twice_is_pruning_at_once(model: BlockModel):
    twice = model.prune(tiny.plan("0.layer", "2.mlp")).prune(tiny.plan("0.attn", "2.layer"))
    once = model.prune(tiny.plan("0.layer", "1.attn", "2.mlp", "3.layer"))
    assert torch.equal(twice.logits(tiny.batch()), once.logits(tiny.batch()))
    assert twice.info.n_parameters == once.info.n_parameters


def test_a_pruned_model_can_be_masked_and_watched(model: BlockModel):
    pruned = model.prune(tiny.plan("0.layer", "2.mlp"))
    with pruned.masked(tiny.ids("1.layer")):  # layer 2 of the original
        found = pruned.logits(tiny.batch())
    with model.masked(tiny.ids("0.layer", "2.layer")):
        assert tiny.distance(found, model.logits(tiny.batch())) < 1e-6
    seen = _watched(pruned, tiny.batch())
    assert not seen[BlockId(1, "mlp")][1].any()


# --- the key-value cache --------------------------------------------------------------------------


def _last_logits(model: BlockModel, ids: torch.Tensor, split: int) -> torch.Tensor:
    """Logits behind the last token: `split` tokens at once, then one by one through the cache."""
    with torch.inference_mode():
        out = model.module(input_ids=ids[:, :split], use_cache=True)
        for i in range(split, ids.shape[1]):
            out = model.module(
                input_ids=ids[:, i : i + 1], past_key_values=out.past_key_values, use_cache=True
            )
    return out.logits[:, -1]


@any_plan
@pytest.mark.parametrize("split", [19, 5])  # 20 tokens; windows of 8 are overrun in both
def test_t_mech_1_a_cache_under_a_mask_equals_none(
    model: BlockModel, names: tuple[str, ...], split: int
):
    batch = tiny.batch()
    with model.masked(tiny.ids(*names)):
        whole = model.logits(batch)[:, -1]
        cached = _last_logits(model, batch.input_ids, split)
    assert tiny.distance(cached, whole) < 1e-5


@any_plan
@pytest.mark.parametrize("split", [19, 5])
def test_t_mech_1_a_cache_of_a_pruned_model_equals_none(
    model: BlockModel, names: tuple[str, ...], split: int
):
    pruned, batch = model.prune(tiny.plan(*names)), tiny.batch()
    cached = _last_logits(pruned, batch.input_ids, split)
    assert tiny.distance(cached, pruned.logits(batch)[:, -1]) < 1e-5


@any_plan
def test_a_pruned_model_generates_the_same_with_and_without_a_cache(
    model: BlockModel, names: tuple[str, ...]
):
    """By the library's own `generate`, past the sliding window, from prompts of two tokens."""
    pruned = model.prune(tiny.plan(*names))
    ids = tiny.batch(2, 6).input_ids
    texts = [
        pruned.module.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            min_new_tokens=12,
            do_sample=False,
            use_cache=use_cache,
            pad_token_id=0,
        )
        for use_cache in (True, False)
    ]
    assert torch.equal(*texts)
    assert texts[0].shape == (2, 18)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_family_is_proved_at_low_precision_too(case: str, dtype: torch.dtype):
    model_type, config = tiny.EVERY[case]
    built = tiny.module(model_type, config).to(dtype)
    assert wrap(built, tiny.tokenizer(), name=case).info.dtype in ("bfloat16", "float16")


# --- refusals -------------------------------------------------------------------------------------


def _refusal(model_type: str, **config: Any) -> UnsupportedModel:
    with pytest.raises(UnsupportedModel) as caught:
        wrap(tiny.module(model_type, config), tiny.tokenizer(), name=model_type)
    assert all((caught.value.asked, caught.value.found, caught.value.todo))
    return caught.value


def test_a_structure_without_attention_and_mlp_modules_is_refused():
    """BioGPT keeps its MLP as two loose layers."""
    error = _refusal(
        "biogpt",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    assert "'biogpt'" in error.asked
    assert error.found == (
        "Its structure is not understood: 0 lists of 2 attention + MLP layers exist."
    )
    assert "Llama" in error.todo


def test_blocks_that_add_the_stream_themselves_are_refused():
    """MPT's feed-forward returns stream + update: the sum of the parts is not the layer."""
    error = _refusal("mpt", vocab_size=64, d_model=32, n_layers=2, n_heads=4, max_seq_len=64)
    assert "misses its residual sum" in error.found
    assert "input + attention + MLP" in error.found


def test_opt_with_its_norms_behind_the_sums_is_refused():
    error = _refusal("opt", **tiny.EVERY["opt"][1], do_layer_norm_before=False)
    assert "do_layer_norm_before" in error.found
    assert "350M" in error.todo


def test_opt_is_the_same_model_with_its_mlps_gathered():
    """What the library computes of the same weights, and what it loads again."""
    plain, module = (tiny.module(*tiny.EVERY["opt"]) for _ in range(2))
    wrapped = wrap(module, tiny.tokenizer(), name="opt")
    assert tiny.gap(plain, wrapped) < 1e-6
    assert not hasattr(wrapped.layers[0], "fc1")
    for layer in wrapped.layers:
        scatter_mlp(layer)
    assert module.state_dict().keys() == plain.state_dict().keys()
    assert {type(layer) for layer in wrapped.layers} == {type(plain.model.decoder.layers[0])}


def test_an_mlp_that_reads_beside_its_attention_is_refused(monkeypatch):
    """Both norms of NeoX read the layer's input; taken as serial, every sum would still fit."""
    monkeypatch.setattr(load, "family_of", detect)
    error = _refusal("gpt_neox", **tiny.EVERY["neox"][1])
    assert error.found == "The MLP of layer 0 does not read input + attention."


def test_a_head_that_scales_its_logits_in_another_way_is_refused():
    """Cohere multiplies its logits: layers and head are plain, and would still give other numbers.

    Its layers are parallel with one norm, which a guess takes for serial ones; a Llama does here.
    """
    built = tiny.module("llama", tiny.LLAMA_LIKE)
    forward = built.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        found = forward(*args, **kwargs)
        found.logits = found.logits / 4
        return found

    built.forward = scaled
    with pytest.raises(UnsupportedModel, match=r"miss its logits by 3\.0e\+00"):  # 4 z beside z
        wrap(built, tiny.tokenizer(), name="odd")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_factor_of_every_update_is_taken_into_the_writers(dtype: torch.dtype):
    """Granite: the same logits as the library's own, up to one rounding of each weight."""
    model_type, config = tiny.EVERY["granite"]
    built = tiny.module(model_type, config).to(dtype)
    with torch.inference_mode():
        expected = built(input_ids=tiny.batch().input_ids).logits.float()
    weight = built.model.layers[1].mlp.down_proj.weight.clone()
    model = wrap(built, tiny.tokenizer(), name="granite")
    assert built.config.residual_multiplier == 1.0
    assert torch.equal(model.layers[1].mlp.down_proj.weight, weight * 0.3)
    error = tiny.distance(model.logits(tiny.batch()).float(), expected)
    assert error < (1e-5 if dtype == torch.float32 else 0.02)
    again = wrap(built, tiny.tokenizer(), name="granite")
    assert torch.equal(again.layers[1].mlp.down_proj.weight, weight * 0.3)


def test_layers_of_mixed_kinds_are_refused():
    """LFM2 has convolutions in place of some attention blocks."""
    kinds = ["full_attention", "conv", "full_attention", "conv"]
    error = _refusal("lfm2", **tiny.LLAMA_LIKE, layer_types=kinds)
    assert "0 lists of 4 attention + MLP layers" in error.found


def test_layers_that_answer_in_another_way_are_refused():
    """GPT-Neo's attention sits one module deeper and returns its parts in a tuple of its own."""
    error = _refusal(
        "gpt_neo",
        vocab_size=64,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
    )
    assert "cannot be run without its blocks" in error.found


def test_a_family_without_a_row_is_found_by_its_structure():
    found = wrap(tiny.module("starcoder2", tiny.LLAMA_LIKE), tiny.tokenizer(), name="a StarCoder")
    assert family_of(found.module).name == found.info.family == "starcoder2"
    with found.masked(tiny.ids("0.attn", "2.layer")):
        masked = found.logits(tiny.batch())
        assert tiny.distance(_last_logits(found, tiny.batch().input_ids, 5), masked[:, -1]) < 1e-5
    pruned = found.prune(tiny.plan("0.attn", "2.layer"))
    assert tiny.distance(pruned.logits(tiny.batch()), masked) < 1e-6


def test_an_identity_that_fails_is_noticed_at_any_precision():
    """An extra 10 % of the stream behind the MLP: refused in bfloat16 as in float32."""
    for dtype in (torch.float32, torch.bfloat16):
        built = tiny.module("llama", tiny.LLAMA_LIKE).to(dtype)
        layer = built.model.layers[2]
        forward = layer.forward
        layer.forward = lambda x, *a, forward=forward, **k: forward(x, *a, **k) + 0.1 * x
        with pytest.raises(UnsupportedModel, match="Layer 2 misses its residual sum"):
            wrap(built, tiny.tokenizer(), name="odd")


def test_pruning_everything_is_refused(model: BlockModel):
    everything = tiny.plan(*(f"{i}.layer" for i in range(tiny.LAYERS)))
    with pytest.raises(BadPlan, match="removes all 8 blocks") as caught:
        model.prune(everything)
    assert caught.value.todo == "Keep at least one block."


def test_pruning_a_block_that_is_not_there_is_refused():
    with pytest.raises(BadPlan, match=r"removes 4\.mlp.*layers 0 to 3"):
        shared("llama").prune(tiny.plan("4.mlp"))
