"""A model with a repair in it, held against the plain model with hooks placed by hand."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import tiny
import torch
from torch import nn

from blockviz.errors import BadPlan, UnsupportedModel
from blockviz.models.generate import continue_greedily
from blockviz.models.model import BlockModel, unwrap
from blockviz.models.repaired import RepairedModel, linear_writer
from blockviz.models.stage import Stage
from blockviz.models.writers import watch_writers, writer_weight
from blockviz.types import BlockId

pytestmark = pytest.mark.usefixtures("one_thread")

PLANS = (
    ("1.attn", "2.mlp"),
    ("0.layer", "2.layer"),
    ("0.attn",),
    ("3.mlp",),
    ("2.mlp", "3.layer"),
    ("0.layer", "1.layer", "2.layer", "3.attn"),
)
PROMPT = [7, 1, 33, 12, 5, 60]
PARALLEL = ("neox", "stablelm-parallel", "phi", "falcon", "falcon-two-norms")
POST_NORMED = ("gemma3", "gemma3-softcap", "gemma2", "olmo2")
LINEAR = tuple(case for case in tiny.EVERY if case not in (*POST_NORMED, *tiny.EXPERTS))

shared = functools.cache(tiny.model)
named = pytest.mark.parametrize("names", PLANS, ids="+".join)


@pytest.fixture(params=tiny.EVERY)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(case: str) -> BlockModel:
    return shared(case)


class Affine(nn.Module):
    """A map that no mistake leaves unnoticed: it mixes channels and moves them."""

    def __init__(self, seed: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(tiny.HIDDEN, tiny.HIDDEN, generator=generator)
        self.register_buffer("matrix", torch.eye(tiny.HIDDEN) + 0.1 * noise)
        self.register_buffer("shift", torch.randn(tiny.HIDDEN, generator=generator))

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        assert stream.dtype == torch.float32
        return stream @ self.matrix + self.shift


def masked_logits(model: BlockModel, names: tuple[str, ...]) -> torch.Tensor:
    with model.masked(tiny.plan(*names)):
        return model.logits(tiny.batch())


def with_cache(model: BlockModel, n: int = 12) -> list[str]:
    return list(continue_greedily(model, PROMPT, max_new_tokens=n))


def without_cache(model: BlockModel, n: int = 12) -> list[str]:
    ids = list(PROMPT)
    with torch.inference_mode():
        for _ in range(n):
            logits = model.module(input_ids=torch.tensor([ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
    new = [f"w{i}" for i in ids[len(PROMPT) :]]
    return [" ".join(new[: i + 1]) for i in range(n)]


# --- nothing put in -------------------------------------------------------------------------------


@named
def test_t_mech_3_without_anything_put_in_it_is_the_masked_model(model, names):
    found = RepairedModel(model, tiny.plan(*names))
    assert torch.equal(found.logits(tiny.batch()), masked_logits(model, names))
    padded = tiny.batch(3, 20, lengths=(20, 9, 4))
    with model.masked(tiny.plan(*names)):
        expected = model.logits(padded)
    assert torch.equal(found.logits(padded), expected)
    assert found.n_added == 0


def test_of_an_empty_plan_it_is_the_model(model):
    assert torch.equal(
        RepairedModel(model, tiny.plan()).logits(tiny.batch()), model.logits(tiny.batch())
    )


@named
def test_t_mech_1_it_writes_the_same_with_a_cache_and_without(model, names):
    found = RepairedModel(model, tiny.plan(*names))
    masked = continue_greedily(model, PROMPT, removed=tiny.ids(*names), max_new_tokens=12)
    assert with_cache(found) == without_cache(found) == list(masked)


def test_weights_are_shared_and_the_model_is_left_as_it_is(case, model):
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    logits = model.logits(tiny.batch())
    found = RepairedModel(model, tiny.plan("1.layer", "2.mlp"))
    found.put_map(BlockId.parse("1.mlp"), Affine())
    found.put_input(BlockId.parse("3.mlp"), Affine())
    if case in LINEAR:
        weight = writer_weight(found, BlockId.parse("0.mlp"))
        found.put_writer(BlockId.parse("0.mlp"), 2 * weight)
    found.logits(tiny.batch())
    mine = {t.data_ptr() for t in model.module.parameters()}
    changed = [n for n, t in found.module.named_parameters() if t.data_ptr() not in mine]
    assert len(changed) == (case in LINEAR)
    after = model.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
    assert torch.equal(model.logits(tiny.batch()), logits)
    assert model.module.config.to_dict() == found.module.config.to_dict()


def test_tied_embeddings_stay_tied():
    found = RepairedModel(shared("qwen2"), tiny.plan("1.layer"))
    assert found.module.get_output_embeddings().weight is found.module.get_input_embeddings().weight


def test_a_plan_that_does_not_fit_is_refused():
    with pytest.raises(BadPlan, match=r"removes 9\.attn"):
        RepairedModel(shared("llama"), tiny.plan("9.attn"))


# --- maps -----------------------------------------------------------------------------------------


@contextmanager
def layer_hook(model: BlockModel, index: int, module: nn.Module) -> Iterator[None]:
    """Inside, what the layer gives goes through a module: a map behind its MLP, by hand."""

    def hook(_module: nn.Module, _args: tuple, output):
        changed = module(unwrap(output))
        return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

    handle = model.layers[index].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("names", [("1.layer",), ("1.mlp",), ("1.attn",), ("0.layer", "1.layer")])
@pytest.mark.parametrize("index", [1, 3])
def test_a_map_behind_a_layer_is_a_hook_on_it(model, names, index):
    """Of a layer that is wholly gone too, where the masked layer gives what it is given."""
    module, block = Affine(), BlockId(index, "mlp")
    found = RepairedModel(model, tiny.plan(*names))
    found.put_map(block, module)
    with layer_hook(model, index, module):
        expected = masked_logits(model, names)
    assert tiny.distance(found.logits(tiny.batch()), expected) < 1e-5
    assert tiny.distance(expected, masked_logits(model, names)) > 1e-2
    assert found.n_added == tiny.HIDDEN * (tiny.HIDDEN + 1)


@pytest.mark.parametrize("names", [("1.attn",), ("1.mlp",), ("1.layer",), ()])
@pytest.mark.parametrize("case", [c for c in tiny.EVERY if c not in PARALLEL])
def test_a_map_behind_attention_is_what_the_mlp_reads_and_adds_to(case, names):
    """The layer run in two halves, the map between them."""
    model, module, block = shared(case), Affine(), BlockId(1, "attn")
    found = RepairedModel(model, tiny.plan(*names))
    found.put_map(block, module)
    gone, batch = set(tiny.ids(*names)), tiny.batch()
    gone = {part for b in gone for part in b.parts}
    stage = Stage(model, batch)
    stream = stage.run(stage.stream, 0, gone, stop=1)
    stream = stage.run(stream, 1, gone | {BlockId(1, "mlp")}, stop=2)
    with torch.inference_mode():
        stream = module(stream)
    stream = stage.run(stream, 1, gone | {BlockId(1, "attn")}, stop=2)
    expected = stage.run(stream, 2, gone)
    stage = Stage(found, batch)
    assert tiny.distance(stage.run(stage.stream, 0, ()), expected) < 1e-5


def test_two_maps_in_a_layer_follow_each_other():
    model, first, second = shared("llama"), Affine(1), Affine(2)
    found = RepairedModel(model, tiny.plan("1.layer"))
    found.put_map(BlockId(1, "mlp"), second)
    found.put_map(BlockId(1, "attn"), first)
    with layer_hook(model, 1, nn.Sequential(first, second)):
        expected = masked_logits(model, ("1.layer",))
    assert tiny.distance(found.logits(tiny.batch()), expected) < 1e-5


def test_a_map_may_be_put_in_anew(model):
    found = RepairedModel(model, tiny.plan("1.layer"))
    found.put_map(BlockId(1, "mlp"), Affine(1))
    found.put_map(BlockId(1, "mlp"), Affine(2))
    with layer_hook(model, 1, Affine(2)):
        assert tiny.distance(found.logits(tiny.batch()), masked_logits(model, ("1.layer",))) < 1e-5


def test_between_the_blocks_of_a_parallel_layer_no_map_can_be(case, model):
    assert model.family.is_parallel == (case in PARALLEL)
    if case not in PARALLEL:
        return
    found = RepairedModel(model, tiny.plan("1.attn"))
    with pytest.raises(ValueError, match="added at once"):
        found.put_map(BlockId(1, "attn"), Affine())


def test_with_maps_it_writes_the_same_with_a_cache_and_without(model):
    found = RepairedModel(model, tiny.plan("0.attn", "2.layer"))
    found.put_map(BlockId(2, "mlp"), Affine())
    found.put_input(BlockId(3, "mlp"), Affine(6))
    assert with_cache(found) == without_cache(found)


def test_no_stream_outlives_a_call():
    """Nor a stage, which calls layers without running what is in them, nor one that raises."""
    found = RepairedModel(shared("llama"), tiny.plan("1.mlp"))
    found.put_map(BlockId(1, "mlp"), Affine())
    found.logits(tiny.batch())
    assert found._mapped[1].stream is None
    Stage(found, tiny.batch())
    assert found._mapped[1].stream is None
    found.maps[BlockId(1, "mlp")] = nn.Linear(1, 1)
    with pytest.raises(RuntimeError):
        found.logits(tiny.batch())
    assert found._mapped[1].stream is None


# --- what blocks read -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["2.attn", "2.mlp"])
def test_an_input_is_changed_behind_the_norm(model, name):
    """By hand: a hook in front of the block, which nothing else reads."""
    block, module = BlockId.parse(name), Affine()
    found = RepairedModel(model, tiny.plan("1.layer"))
    found.put_input(block, Affine(1))
    found.put_input(block, module)

    def changed(_module, args, kwargs):
        if args:
            return (module(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": module(kwargs["hidden_states"])}

    handle = model.part(block).register_forward_pre_hook(changed, with_kwargs=True)
    try:
        expected = masked_logits(model, ("1.layer",))
    finally:
        handle.remove()
    assert tiny.distance(found.logits(tiny.batch()), expected) < 1e-5
    assert tiny.distance(expected, masked_logits(model, ("1.layer",))) > 1e-2


# --- writers --------------------------------------------------------------------------------------


def update_of(model: BlockModel, block: BlockId) -> tuple[torch.Tensor, torch.Tensor]:
    """What its writer reads, and what the block adds, in a plain forward."""
    read, added = {}, {}
    note: Callable = lambda b, _before, update: added.__setitem__(b, update)  # noqa: E731
    with watch_writers(model, [block], read.__setitem__), model.watch(note):
        model.logits(tiny.batch())
    return read[block], added[block]


@pytest.mark.parametrize("name", ["1.attn", "1.mlp"])
@pytest.mark.parametrize("case", LINEAR)
def test_a_writer_writes_with_its_new_weight_and_bias(case, name):
    """The sizes tell (out, in) from (in, out) for MLPs, and the numbers do for attention."""
    model, block = shared(case), BlockId.parse(name)
    found = RepairedModel(model, tiny.plan("2.layer"))
    module = linear_writer(found, block)
    weight = writer_weight(model, block)
    new = torch.randn(weight.shape, generator=torch.Generator().manual_seed(8))
    bias = None if module.bias is None else torch.arange(tiny.HIDDEN) / 7
    found.put_writer(block, new, bias)
    features, added = update_of(found, block)
    expected = features @ new.T + (0 if bias is None else bias)
    assert tiny.distance(added, expected) < 1e-5
    torch.testing.assert_close(writer_weight(found, block), new)
    assert found.writers[block] == (new, bias)


@pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])
def test_a_bias_of_none_leaves_the_writers_own(case):
    model, block = shared(case), BlockId(1, "mlp")
    found = RepairedModel(model, tiny.plan("2.layer"))
    own = linear_writer(model, block).bias.clone()
    found.put_writer(block, 0 * writer_weight(model, block))
    _, added = update_of(found, block)
    torch.testing.assert_close(added, own.expand_as(added))


@pytest.mark.parametrize("case", POST_NORMED)
def test_a_writer_in_front_of_a_norm_is_refused(case):
    found = RepairedModel(shared(case), tiny.plan("2.layer"))
    for block in (BlockId(1, "attn"), BlockId(1, "mlp")):
        with pytest.raises(UnsupportedModel) as caught:
            found.put_writer(block, torch.zeros(1))
        assert caught.value.asked == f"What {block} writes was to be changed."
        assert caught.value.found.startswith(f"In {found.family.name} a norm follows it")
        assert re.fullmatch(r"Use a correction of the stream, such as .*\.", caught.value.todo)


@pytest.mark.parametrize("case", ["mistral", "qwen2", "qwen3", "phi3"])
def test_a_bias_that_has_no_place_is_refused_and_nothing_is_changed(case):
    model, block = shared(case), BlockId(1, "mlp")
    found = RepairedModel(model, tiny.plan("2.layer"))
    with pytest.raises(UnsupportedModel) as caught:
        found.put_writer(block, torch.zeros(tiny.HIDDEN, 48), torch.zeros(tiny.HIDDEN))
    assert caught.value.asked == "A bias was to be added to what 1.mlp writes."
    assert caught.value.found == f"Linear of {case} has none."
    assert caught.value.todo == "Use a correction without a bias."
    assert torch.equal(found.logits(tiny.batch()), masked_logits(model, ("2.layer",)))
    assert found.writers == {}


def test_in_bfloat16_the_rest_of_the_stream_is_bitwise_what_it_was():
    """A map in float32 that changes nothing rounds nothing."""
    model = shared("llama")
    model = BlockModel(copy.deepcopy(model.module).bfloat16(), None, model.family, model.info)
    found = RepairedModel(model, tiny.plan("1.layer"))
    found.put_map(BlockId(1, "mlp"), nn.Identity())
    assert torch.equal(found.logits(tiny.batch()), masked_logits(model, ("1.layer",)))
    found.put_map(BlockId(1, "mlp"), Affine())
    with layer_hook(model, 1, lambda s: Affine()(s.float()).bfloat16()):
        expected = masked_logits(model, ("1.layer",))
    assert tiny.distance(found.logits(tiny.batch()).float(), expected.float()) < 2e-2
