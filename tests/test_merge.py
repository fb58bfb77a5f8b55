"""Merging layers: the published formulas by hand, what a search of it writes down, refusals."""

from __future__ import annotations

import itertools

import pytest
import tiny
import torch
from toy_search import layers_of, names, played, space_of

from blockviz.corrections import Merge, Repair, fit, repaired_model
from blockviz.corrections.merge import matrices, parsed
from blockviz.errors import BadInput, BlockvizError, UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.search import Goal, Laco, SlidingMerge
from blockviz.types import CalibrationSet, parts_of, run

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = tiny.windows(3, 12, seed=5)
CASES = ["llama", "gemma3", "gpt2", "neox"]


def merged(model: BlockModel, removed: str, **how: object) -> Repair:
    plan = tiny.plan(*removed.split(","))
    return run(fit(model, plan, Merge(**how), TEXT))


def logits(model: BlockModel, text: CalibrationSet = TEXT) -> torch.Tensor:
    return model.logits(next(text.batches(len(text))))


def of_layer(model: BlockModel, layer: int) -> dict[str, torch.Tensor]:
    """Its matrices, read without the code under test."""
    found = {}
    for name, weight in model.layers[layer].named_parameters():
        if weight.ndim == 2:
            found[name] = weight.detach().clone()
    return found


@pytest.mark.parametrize("case", CASES)
def test_t_laco_1_equal_layers_merge_into_that_layer(case: str):
    model = tiny.model(case)
    for i in range(1, model.info.n_layers):
        for name, weight in of_layer(model, 0).items():
            path, _, attribute = name.rpartition(".")
            module = model.layers[i].get_submodule(path)
            setattr(module, attribute, torch.nn.Parameter(weight, requires_grad=False))
    found = repaired_model(model, merged(model, "1.layer,2.layer"))
    for name, weight in of_layer(found, 0).items():
        torch.testing.assert_close(weight, of_layer(model, 0)[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_t_laco_2_one_layer_merged_is_that_layers_matrices(case: str):
    model = tiny.model(case)
    found = repaired_model(model, merged(model, "2.layer"))
    before = {i: of_layer(model, i) for i in (0, 1, 2)}
    for name, weight in of_layer(found, 1).items():
        torch.testing.assert_close(weight, before[2][name], rtol=1e-6, atol=1e-6)
        assert not torch.equal(weight, before[1][name])
    assert all(torch.equal(w, before[0][n]) for n, w in of_layer(found, 0).items())


def test_laco_by_hand():
    model = tiny.model("llama")
    one, two, three = (of_layer(model, i) for i in (1, 2, 3))
    paper = repaired_model(model, merged(model, "2.layer,3.layer", factor=0.5))
    for name, weight in of_layer(paper, 1).items():
        by_hand = one[name] + 0.5 * (two[name] - one[name]) + 0.5 * (three[name] - one[name])
        torch.testing.assert_close(weight, by_hand, rtol=1e-5, atol=1e-6)
    code = repaired_model(model, merged(model, "2.layer,3.layer", mode="code", factor=0.5))
    for name, weight in of_layer(code, 1).items():
        by_hand = 0.25 * one[name] + 0.25 * two[name] + 0.5 * three[name]
        torch.testing.assert_close(weight, by_hand, rtol=1e-5, atol=1e-6)


def test_t_laco_3_the_code_keeps_the_weights_of_the_highest_layer():
    model = tiny.model("llama")
    found = repaired_model(model, merged(model, "1.layer,2.layer", mode="code"))
    for name, weight in of_layer(found, 0).items():
        torch.testing.assert_close(weight, of_layer(model, 2)[name], rtol=1e-5, atol=1e-6)


def test_norms_and_biases_stay_and_the_model_is_left_as_it_is():
    model = tiny.model("gpt2")
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    found = repaired_model(model, merged(model, "1.layer"))
    assert all(torch.equal(p, before[n]) for n, p in model.module.named_parameters())
    own = dict(model.layers[0].named_parameters())
    for name, parameter in found.layers[0].named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, own[name])


def test_steps_are_made_one_after_the_other_on_what_is_left():
    model = tiny.model("llama")
    one, two, three = (of_layer(model, i) for i in (1, 2, 3))
    nested = repaired_model(model, merged(model, "2.layer,3.layer", steps="2+1/1+1"))
    for name, weight in of_layer(nested, 1).items():
        taken = two[name] + (three[name] - two[name])
        torch.testing.assert_close(weight, one[name] + (taken - one[name]), rtol=1e-5, atol=1e-6)
    assert parsed("10+3/8+1") == ((10, 3), (8, 1))
    assert parsed("") == ()


@pytest.mark.parametrize(
    ("removed", "how", "error", "said"),
    [
        ("1.attn", {}, UnsupportedModel, "half of layer 1"),
        ("0.layer", {}, UnsupportedModel, "none below it"),
        ("1.layer", {"steps": "1+1"}, BadInput, "layer 1."),
        ("1.layer", {"steps": "0+2"}, BadInput, "layer 1."),
        ("1.layer,2.layer", {"steps": "0+1"}, BadInput, "layer 1, 2."),
        ("1.layer", {"steps": "9+1"}, BadInput, "layer 1."),
    ],
)
def test_what_cannot_be_merged_is_refused(
    removed: str, how: dict, error: type[BlockvizError], said: str
):
    with pytest.raises(error) as refused:
        merged(tiny.model("llama"), removed, **how)
    assert said in refused.value.found


@pytest.mark.parametrize("steps", ["x", "3", "3+0", "+1", "-1+2"])
def test_steps_that_are_none_are_refused(steps: str):
    with pytest.raises(BadInput, match="10\\+3"):
        Merge(steps=steps)


def test_matrices_are_all_there_are_of_a_layer():
    for case in CASES:
        model = tiny.model(case)
        assert set(matrices(model, 1)) == set(of_layer(model, 1))


# The searches


def alike(allowed: int):
    """As if up to so many layers may go together before the last stream turns away."""
    return lambda removed: 0.1 if len(removed) <= 2 * allowed else 0.9


def test_laco_walks_from_the_top_and_writes_down_its_steps():
    space = space_of(layers_of(8), Goal(), n_blocks=16)
    found = played(Laco(layers=3, threshold=0.5), space, alike(99))
    # 5 <- 6, 7; of 0..5: 3 <- 4, 5; of 0..3: 1 <- 2, 3; of 0, 1 no three are left.
    assert found.removed == ("6.layer", "7.layer", "4.layer", "5.layer", "2.layer", "3.layer")
    assert found.last.repair == "merge:mode=paper:steps=5+2/3+2/1+2"
    assert next(ask.repair for ask in found.asks) == "merge:mode=paper:steps=5+2"


def test_the_last_merge_of_laco_takes_what_the_target_leaves():
    space = space_of(layers_of(8), Goal(3), n_blocks=16)
    found = played(Laco(layers=3, threshold=0.5), space, alike(99))
    assert found.last.repair == "merge:mode=paper:steps=5+2/3+1"
    few = space_of(layers_of(4), Goal(), n_blocks=8)
    found = played(Laco(threshold=0.5), few, alike(99))
    assert found.last.repair == "merge:mode=paper:steps=0+3"


def test_laco_leaves_an_interval_and_steps_down_where_it_may_not():
    space = space_of(layers_of(8), Goal(), n_blocks=16)
    found = played(Laco(layers=3, interval=3, threshold=0.5), space, alike(99))
    assert found.last.repair == "merge:mode=paper:steps=5+2/2+2"
    sixth_stays = played(
        Laco(layers=2, threshold=0.5),
        space,
        lambda removed: 0.9 if any(b.layer in (6, 7) for b in removed) else 0.1,
    )
    assert sixth_stays.asks[0].sets[0] == parts_of(tiny.ids("7.layer"))
    assert sixth_stays.removed[0] == "5.layer"


def test_t_swm_1_above_every_cosine_nothing_is_merged():
    space = space_of(layers_of(6), Goal(), n_blocks=12)
    found = played(SlidingMerge(threshold=2.0), space, alike(99))
    assert found.removed == () and found.last.value is None


def test_t_swm_2_below_every_cosine_two_layers_are_left():
    space = space_of(layers_of(6), Goal(), n_blocks=12)
    found = played(SlidingMerge(threshold=-2.0), space, alike(99))
    assert found.removed == tuple(f"{i}.layer" for i in (1, 2, 3, 4))
    assert found.last.repair.endswith("steps=0+4")


def test_a_window_that_may_not_grow_is_merged_and_the_next_begins_below_it():
    space = space_of(layers_of(8), Goal(), n_blocks=16)

    # Of two layers of one window no more than two may be gone, of all no more than four.
    def value(removed):
        layers = sorted({b.layer for b in removed})
        runs = [1]
        for a, b in itertools.pairwise(layers):
            runs = [*runs[:-1], runs[-1] + 1] if b == a + 1 else [*runs, 1]
        return 0.9 if max(runs) > 2 else 0.1

    found = played(SlidingMerge(threshold=0.5), space, value)
    # 6, 5 into 4; then 3 is the top of the next window: 3, 2 into 1; 0 is left over.
    assert found.last.repair.endswith("steps=4+2/1+2")
    assert sorted(found.removed) == ["2.layer", "3.layer", "5.layer", "6.layer"]


def test_a_target_and_protected_layers_hold():
    space = space_of(layers_of(8), Goal(2), n_blocks=16)
    for strategy in (Laco(layers=3, threshold=-2.0), SlidingMerge(threshold=-2.0)):
        assert len(played(strategy, space, alike(99)).removed) <= 2
    kept = space_of(layers_of(8)[2:5], Goal(), n_blocks=16)
    for strategy in (Laco(layers=2, threshold=-2.0), SlidingMerge(threshold=-2.0)):
        gone = played(strategy, kept, alike(99)).removed
        assert gone and set(gone) <= set(names(kept.units))
