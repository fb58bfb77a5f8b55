"""Taylor and magnitude: by hand, by autograd on the plain module, by a finite difference."""

from __future__ import annotations

import functools

import pytest
import tiny
import torch

from blockviz.engine import weights_and_gradients, weights_of
from blockviz.errors import BadInput
from blockviz.metrics import parse_metric
from blockviz.metrics.weights import Magnitude, Taylor
from blockviz.models.load import wrap
from blockviz.models.model import BlockModel
from blockviz.types import BlockId, CalibrationSet, Progress, Scores, WeightTensors, run

pytestmark = pytest.mark.usefixtures("one_thread")

PADDED = tiny.windows(3, 10, lengths=(10, 6, 3))
A, B = tiny.ids("0.attn", "0.mlp")
families = pytest.mark.parametrize("case", tiny.CASES)
cases = pytest.mark.parametrize("case", ["llama", "gpt2", "neox"])

shared = functools.cache(tiny.model)


def taylor(model: BlockModel, windows: CalibrationSet, unit: str = "block") -> Scores:
    return Taylor().score(run(weights_and_gradients(model, windows, model.info.units(unit))))


def parameters_of(case: str, block: BlockId) -> list[str]:
    """Every parameter that lies in a block, by the names that the library gives them."""
    layer, names = f".{block.layer}.", []
    inside = {
        "attn": ("self_attn.", "attn.", "attention.", "input_layernorm.", "ln_1."),
        "mlp": ("mlp.", "post_attention_layernorm.", "ln_2."),
    }
    if case.startswith("gemma3"):
        norms = "input_layernorm.", "post_attention_layernorm."
        inside["attn"] = ("self_attn.", *norms)
        inside["mlp"] = "mlp.", "pre_feedforward_layernorm.", "post_feedforward_layernorm."
    for name, _ in shared(case).module.named_parameters():
        head, found, tail = name.partition(layer)
        parts = ("attn", "mlp") if block.part == "layer" else (block.part,)
        is_layer = found and head.endswith(("layers", "transformer.h"))
        if is_layer and tail.startswith(tuple(p for part in parts for p in inside[part])):
            names.append(name)
    return names


def summed_loss(module: torch.nn.Module, windows: CalibrationSet) -> torch.Tensor:
    """The library's own loss, window by window without padding, added up."""
    losses = []
    for ids, mask in zip(windows.input_ids, windows.attention_mask, strict=True):
        ids = ids[None, : int(mask.sum())]
        losses.append(module(input_ids=ids, labels=ids).loss)
    return torch.stack(losses).sum()


# --- by hand --------------------------------------------------------------------------------------


def test_by_hand():
    """A: |1 * 3| + |-2 * 0.5| + |4 * -1| = 8, sizes 1 + 2 + 4 = 7. B: 0 * 5 and 0.5 * 2: 1, 0.5."""
    source = WeightTensors(
        {
            A: {
                "w": (torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.5]])),
                "norm": (torch.tensor([4.0]), torch.tensor([-1.0])),
            },
            B: {"w": (torch.tensor([0.0, 0.5]), torch.tensor([5.0, 2.0]))},
        }
    )
    scores = Taylor().score(source)
    assert scores.raw == scores.values == {A: 8.0, B: 1.0}
    assert scores.stderr is None and scores.per_window is None
    assert Magnitude().score(source).values == {A: 7.0, B: 0.5}


def test_gradients_are_added_up_before_the_absolute_value():
    """Windows that pull a weight both ways cancel out: scores of two are not the sum of each's."""
    model = shared("llama")
    rows = [
        CalibrationSet(PADDED.input_ids[i : i + 1], PADDED.attention_mask[i : i + 1], PADDED.origin)
        for i in range(3)
    ]
    together, alone = taylor(model, PADDED), [taylor(model, row) for row in rows]
    for block, value in together.values.items():
        assert 0 < value < sum(s.values[block] for s in alone) * 0.999


# --- two roads ------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("unit", ["block", "layer"])
def test_taylor_equals_autograd_on_the_plain_module(case: str, unit: str):
    model_type, settings = tiny.CASES[case]
    module = tiny.module(model_type, settings)
    summed_loss(module, PADDED).backward()
    plain = dict(module.named_parameters())
    scores = taylor(shared(case), PADDED, unit)
    for block in shared(case).info.units(unit):
        names = parameters_of(case, block)
        assert len(names) >= 2
        expected = sum((plain[n] * plain[n].grad).abs().sum().item() for n in names)
        assert scores.raw[block] == pytest.approx(expected, rel=1e-4)


@families
def test_mag_adds_up_every_parameter_of_the_block(case: str):
    model = shared(case)
    plain = dict(model.module.named_parameters())
    for unit in ("block", "layer", "mlp"):
        blocks = model.info.units(unit)
        scores = Magnitude().score(weights_of(model, blocks))
        assert tuple(scores.values) == blocks
        for block in blocks:
            names = parameters_of(case, block)
            assert sum(plain[n].numel() for n in names) == model.info.parameters_of((block,))
            expected = sum(plain[n].abs().double().sum().item() for n in names)
            assert scores.values[block] == pytest.approx(expected, rel=1e-6)


@cases
def test_a_layer_is_its_two_blocks(case: str):
    model = shared(case)
    blocks, layers = taylor(model, PADDED), taylor(model, PADDED, "layer")
    for layer, value in layers.values.items():
        assert value == pytest.approx(sum(blocks.values[p] for p in layer.parts), rel=1e-6)


# --- laws -----------------------------------------------------------------------------------------


@families
def test_t_tay_1_a_writer_of_zeros_scores_zero(case: str):
    model, idle = shared(case), tiny.ids("1.attn", "2.mlp")
    with tiny.zeroed(model, case, idle):
        source = run(weights_and_gradients(model, PADDED, model.info.units("block")))
        scores = Taylor().score(source)
        for block in idle:
            for name, (weight, gradient) in source.values[block].items():
                is_bias = name.endswith("bias") and not bool(weight.any())
                assert is_bias or not bool((weight * gradient).any()), name
    assert {b for b, v in scores.values.items() if v == 0} == {*idle}


def test_t_tay_2_mag_needs_no_data_and_is_deterministic():
    model = shared("llama")
    first, again = (Magnitude().score(weights_of(model, model.info.units("block"))) for _ in "12")
    assert first == again
    assert not Magnitude.needs_gradient and Magnitude.cost == "no data"
    doubled = tiny.model("llama")
    with torch.no_grad():
        for parameter in doubled.module.parameters():
            parameter.mul_(-2)
    twice = Magnitude().score(weights_of(doubled, model.info.units("block")))
    assert twice.values == pytest.approx({b: 2 * v for b, v in first.values.items()}, rel=1e-6)


@cases
def test_t_tay_3_weight_times_gradient_is_the_slope_of_scaling_the_tensor(case: str):
    """dL/dc at c = 1 for W -> cW is the sum of W * dL/dW: by a central difference."""
    model = tiny.model(case)
    source = run(weights_and_gradients(model, PADDED, tiny.ids("1.attn", "2.mlp")))
    plain, step = dict(model.module.named_parameters()), 1e-2
    for tensors in source.values.values():
        for name, (weight, gradient) in tensors.items():
            kept, losses = plain[name].detach().clone(), []
            for c in (1 + step, 1 - step):
                with torch.no_grad():
                    plain[name].copy_(kept * c)
                    losses.append(summed_loss(model.module, PADDED).item())
                    plain[name].copy_(kept)
            slope = (losses[0] - losses[1]) / (2 * step)
            product = (weight * gradient).sum().item()
            assert product == pytest.approx(slope, rel=2e-2, abs=5e-4), name


@pytest.mark.parametrize("requires_grad", [True, False])
def test_the_model_is_as_it_was(requires_grad: bool):  # noqa: FBT001
    model = tiny.model("qwen2")  # its head is its embedding
    model.module.requires_grad_(requires_grad)
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    events = weights_and_gradients(model, PADDED, model.info.units("block"))
    for event in events:
        assert all(p.grad is None for p in model.module.parameters())
        if isinstance(event, Progress) and event.done == 1:
            break
    events.close()
    for name, parameter in model.module.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None and parameter.requires_grad == requires_grad
    found = weights_of(model, model.info.units("block")).values
    assert not any(t.requires_grad for ts in found.values() for t, _ in ts.values())


@pytest.mark.parametrize("requires_grad", [True, False])
def test_frozen_parameters_get_their_gradient_too(requires_grad: bool):  # noqa: FBT001
    model = tiny.model("llama")
    model.module.requires_grad_(requires_grad)
    assert taylor(model, PADDED).values == pytest.approx(taylor(shared("llama"), PADDED).values)


def test_half_precision_gradients_are_added_up_in_float32():
    module = tiny.module(*tiny.CASES["llama"]).to(torch.bfloat16)
    model = wrap(module, tiny.tokenizer(), name="half")
    source = run(weights_and_gradients(model, PADDED, model.info.units("block")))
    gradients = [g for tensors in source.values.values() for _, g in tensors.values()]
    assert {g.dtype for g in gradients} == {torch.float32}
    found, wide = Taylor().score(source), taylor(shared("llama"), PADDED)
    for block, value in wide.values.items():
        assert found.values[block] == pytest.approx(value, rel=0.1)


def test_every_window_is_a_step():
    model = shared("llama")
    *steps, _ = weights_and_gradients(model, PADDED, model.info.units("attn"))
    assert [(s.done, s.total) for s in steps] == [(0, 3), (1, 3), (2, 3)]


def test_settings():
    assert parse_metric("taylor").parameters() == {"n": 10}
    with pytest.raises(BadInput, match="at least 1"):
        parse_metric("taylor:n=0")
