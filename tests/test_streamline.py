"""LLM-Streamline: what its networks start as, what they are trained to, and what is kept."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional

from blockviz.corrections import LlmStreamline, Repair, fit, repaired_model, streamline
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.models.modeling_blockviz import MAPS, Gated
from blockviz.session import repairing
from blockviz.session.opening import provenance_of
from blockviz.session.repair_state import load_repair, save_repair
from blockviz.session.repair_views import RepairRequest
from blockviz.session.repairing import repair_windows
from blockviz.types import CalibrationBatch, CalibrationSet, Done, run

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("llama", "qwen3", "gemma3-softcap", "gpt2", "neox", "neox-serial")
families = pytest.mark.parametrize("case", FAMILIES)
TEXT, HELD = tiny.windows(16, 20), tiny.windows(4, 20, seed=5)
LONG = tiny.plan("0.mlp", "1.layer", "2.layer")
SHORT = tiny.plan("1.attn", "2.mlp")
LAYER, MLP = LlmStreamline(lr=2e-3), LlmStreamline(network="mlp", width=24, lr=5e-3)
either = pytest.mark.parametrize(
    ("plan", "correction"), [(LONG, LAYER), (LONG, MLP), (SHORT, MLP)], ids=["layer", "mlp", "two"]
)

shared = functools.cache(tiny.model)


def fitted(case: str, plan=LONG, correction: LlmStreamline = LAYER, **how) -> Repair:
    return run(fit(shared(case), plan, correction, how.pop("text", TEXT), **how))


def logits(model: BlockModel, text: CalibrationSet = HELD) -> torch.Tensor:
    return model.logits(CalibrationBatch(text.input_ids, text.attention_mask))


def behind(model: BlockModel, name: str, text: CalibrationSet) -> torch.Tensor:
    """(batch, seq, hidden) behind a layer, by watching a plain forward."""
    (wanted,), found = tiny.ids(name), {}
    with model.watch(lambda b, before, update: found.update({b: before + update})):
        logits(model, text)
    return found[wanted]


def missed(case: str, repair: Repair, name: str, text: CalibrationSet) -> float:
    """Mean square distance to the whole model's stream behind a layer, first positions left out."""
    found, whole = (
        behind(m, name, text) for m in (repaired_model(shared(case), repair), shared(case))
    )
    return (found - whole)[:, 1:].double().square().mean().item()


# --- what they start as ---------------------------------------------------------------------------


@families
def test_T_LS_1_an_untrained_layer_is_one_layer_less_that_is_removed(case: str):
    """Of three layers, and of two with half a layer in front, which stays removed."""
    for plan, left in (
        (tiny.plan("1.layer", "2.layer", "3.layer"), tiny.plan("2.layer", "3.layer")),
        (LONG, tiny.plan("0.mlp", "2.layer")),
    ):
        repair = fitted(case, plan, replace(LAYER, epochs=0))
        expected = logits(shared(case).prune(left))
        assert tiny.distance(logits(repaired_model(shared(case), repair)), expected) < 1e-6
        assert repair.revived == tiny.ids("1.attn", "1.mlp")


@families
def test_an_untrained_mlp_adds_nothing(case: str):
    repair = fitted(case, SHORT, replace(MLP, epochs=0))
    expected = logits(shared(case).prune(SHORT))
    assert tiny.distance(logits(repaired_model(shared(case), repair)), expected) < 1e-6


def test_a_gated_map_written_out():
    draw = torch.Generator().manual_seed(0)
    gate, up, down = (torch.randn(s, generator=draw) for s in ((6, 4), (6, 4), (4, 6)))
    stream = torch.randn(3, 5, 6, generator=draw) * 7
    read = functional.rms_norm(stream, (6,), eps=1e-6)
    inner = functional.silu(read @ gate) * (read @ up)
    torch.testing.assert_close(Gated(gate, up, down)(stream), stream + inner @ down)
    assert Gated in MAPS and all(issubclass(m, nn.Module) for m in MAPS)


def test_nothing_is_trained_where_nothing_is_cut():
    repair = fitted("llama", tiny.plan())
    assert (repair.maps, repair.weights, repair.revived, repair.fits) == ({}, {}, (), ())
    assert repair.passes == 0 and repair.n_tokens == 16 * 19


# --- what they are trained to ---------------------------------------------------------------------


@families
@either
def test_training_brings_the_stream_nearer_to_the_whole_model_s(case: str, plan, correction):
    start, repair = (fitted(case, plan, replace(correction, epochs=n)) for n in (0, 10))
    assert missed(case, repair, "2.layer", TEXT) < 0.9 * missed(case, start, "2.layer", TEXT)
    found = repaired_model(shared(case), repair)
    assert logits(found).isfinite().all()
    info = shared(case).info
    if correction.network == "mlp":
        n_gaps = 1 if plan is LONG else 2
        assert found.n_added == n_gaps * 3 * tiny.HIDDEN * 24
    else:
        assert found.n_added == info.parameters_of(tiny.ids("1.attn", "1.mlp"))


def test_the_first_step_of_a_layer_is_adamw_s_written_out(monkeypatch):
    """One gap, all windows in one step: W (1 - lr decay) - lr g / (|g| + 1e-8), where g is the
    gradient of the mean square by a plain forward of the layers up to there, clipped to norm 5.
    With a decay that can be seen."""
    assert (streamline.DECAY, streamline.CLIP) == (1e-3, 5.0)
    monkeypatch.setattr(streamline, "DECAY", 10.0)
    plan, model = tiny.plan("1.layer", "2.layer"), shared("llama")
    correction = replace(LAYER, epochs=1, batch=16)
    repair = fitted("llama", plan, correction)
    other = tiny.model("llama")
    target = behind(model, "2.layer", TEXT)[:, 1:].clone()
    layer = other.layers[1].requires_grad_()
    kept = []
    layer.register_forward_hook(lambda _m, _a, output: kept.append(output))
    other.module(input_ids=TEXT.input_ids, use_cache=False)
    (kept[0][:, 1:] - target).square().mean().backward()
    nn.utils.clip_grad_norm_(layer.parameters(), 5.0)
    found = {n: t for tensors in repair.weights.values() for n, t in tensors.items()}
    assert found.keys() == dict(layer.named_parameters()).keys()
    for name, parameter in layer.named_parameters():
        expected = parameter.detach() * (1 - 2e-3 * 10)
        expected = expected - 2e-3 * parameter.grad / (parameter.grad.abs() + 1e-8)
        # A gradient of about the rounding's size may go either way.
        is_sure = parameter.grad.abs() > 1e-5
        torch.testing.assert_close(found[name][is_sure], expected[is_sure], rtol=0, atol=1e-4)
        assert is_sure.float().mean() > 0.5


def test_in_parallel_every_network_reads_the_whole_model_s_stream():
    """The second gap's network does not hang on whether there is a first gap."""
    both = fitted("llama", tiny.plan("1.attn", "3.mlp"), MLP)
    for name in ("1.attn", "3.mlp"):
        block = tiny.ids(name)[0]
        held_back = fitted("llama", tiny.plan(name), MLP).maps[block]
        if name == "1.attn":
            assert torch.equal(both.maps[block].down, held_back.down)
    later = replace(MLP, is_sequential=True)
    in_turn = fitted("llama", tiny.plan("1.attn", "3.mlp"), later)
    first, second = tiny.ids("1.attn", "3.mlp")
    assert torch.equal(in_turn.maps[first].down, both.maps[first].down)
    assert not torch.equal(in_turn.maps[second].down, both.maps[second].down)


def test_one_after_the_other_meets_the_last_stream_better():
    plan = tiny.plan("0.mlp", "1.attn", "2.mlp")
    a, b = (fitted("llama", plan, replace(MLP, is_sequential=s, epochs=30)) for s in (False, True))
    assert missed("llama", b, "2.layer", TEXT) < missed("llama", a, "2.layer", TEXT)


@families
@either
def test_fits_are_moments_of_the_repaired_model_s_streams(case: str, plan, correction):
    repair = fitted(case, plan, correction, held=HELD)
    found = repaired_model(shared(case), repair)
    assert [f.block for f in repair.fits][-1:] == list(tiny.ids("2.mlp"))
    for text, name in ((TEXT, "after"), (HELD, "held_after")):
        stream = behind(found, "2.layer", text)[:, 1:].flatten(0, 1).double()
        moments = getattr(repair.fits[-1], name)
        assert moments.n == len(text) * 19
        torch.testing.assert_close(moments.mean_u, stream.mean(0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            moments.var_u, stream.var(0, unbiased=False), rtol=1e-4, atol=1e-4
        )
    assert repair.fits[-1].after.mse.mean() < repair.fits[-1].before.mse.mean()


# --- laws -----------------------------------------------------------------------------------------


@families
@either
def test_the_model_stays_bitwise_as_it_was(case: str, plan, correction):
    model = shared(case)
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    repaired_model(model, fitted(case, plan, correction, held=HELD)).logits(tiny.batch())
    after = model.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.grad is None for p in model.module.parameters())
    for module in model.module.modules():
        assert not module._forward_hooks and "forward" not in module.__dict__


@families
@either
def test_float32_results_do_not_hang_on_the_batch_and_come_again(case: str, plan, correction):
    """A step has the same 8 windows, however many of them fit into a batch."""
    found = [
        logits(repaired_model(shared(case), fitted(case, plan, correction, batch_tokens=n)))
        for n in (20, 60, 320, 320)
    ]
    assert torch.equal(found[2], found[3])
    assert max(tiny.distance(f, found[2]) for f in found[:2]) < 1e-5


@either
def test_padding_never_enters(plan, correction):
    text = tiny.windows(10, 20, lengths=(20, 7, 13, 2, 20, 19, 18, 9, 1, 11))
    junk = torch.where(text.attention_mask, text.input_ids, 61 - text.input_ids)
    other = CalibrationSet(junk, text.attention_mask, text.origin)
    a, b = (fitted("llama", plan, correction, text=t) for t in (text, other))
    found, expected = (logits(repaired_model(shared("llama"), r)) for r in (a, b))
    assert tiny.distance(found, expected) < 1e-5
    assert a.n_tokens == 120 - 10


def test_the_seed_changes_what_is_trained_when():
    a, b = (fitted("llama", correction=replace(LAYER, seed=s)) for s in (0, 1))
    (block, _) = a.revived
    assert not torch.equal(*(r.weights[block]["self_attn.q_proj.weight"] for r in (a, b)))


def test_held_text_chooses_the_step_and_is_never_learned_from():
    eager = replace(MLP, lr=0.2, epochs=20)
    events = list(fit(shared("llama"), SHORT, eager, TEXT, held=HELD))
    alone = list(fit(shared("llama"), SHORT, eager, TEXT))
    assert losses_told(events) == losses_told(alone)
    repair = events[-1].result
    last, start = alone[-1].result, fitted("llama", SHORT, replace(eager, epochs=0))
    losses = [missed("llama", r, "1.layer", HELD) for r in (repair, last, start)]
    assert losses[0] == min(losses)
    assert "kept step" in repair.notes[0] and "behind 1.attn" in repair.notes[0]


def losses_told(events: list) -> list[str]:
    steps = [e for e in events[:-1] if "loss" in e.note]
    return [f"{e.done} of {e.total}: {e.note.partition(',')[0]}" for e in steps]


def test_steps_of_all_gaps_are_one_count_and_partials_are_whole_repairs():
    events = list(fit(shared("llama"), SHORT, MLP, TEXT, held=HELD))
    steps = [e for e in events[:-1] if e.total]
    assert {e.total for e in steps} == {2 * 20} and steps[-1].done == 40
    assert [e.done for e in steps] == sorted(e.done for e in steps)
    partials = [e.partial for e in events[:-1] if e.partial is not None]
    assert all(set(p.maps) == set(SHORT.removed) for p in partials)
    # While the first is trained the second adds nothing; a partial does not change afterwards.
    assert partials[0].maps[SHORT.removed[1]].down.abs().max() == 0
    assert partials[0].maps[SHORT.removed[0]].down.abs().max() == 0
    assert partials[-1].maps[SHORT.removed[1]].down.abs().max() > 0


def test_bfloat16_models_are_trained_in_float32():
    model = tiny.model("llama")
    model.module.to(torch.bfloat16)
    for plan, correction in ((LONG, LAYER), (SHORT, MLP)):
        start, repair = (
            run(fit(model, plan, replace(correction, epochs=n), TEXT)) for n in (0, 10)
        )
        for tensors in repair.weights.values():
            assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
        a, b = (r.fits[0].after.mse.mean() for r in (start, repair))
        assert b < 0.9 * a


# --- refusals, cost, files ------------------------------------------------------------------------


def test_a_gap_without_two_whole_layers_has_no_layer():
    for plan in (tiny.plan("1.layer"), tiny.plan("0.mlp", "1.layer", "2.attn"), SHORT):
        with pytest.raises(UnsupportedModel, match="Use llm_streamline:network=mlp") as refusal:
            fitted("llama", plan)
        assert str(refusal.value).count(".") >= 3
    with pytest.raises(UnsupportedModel):
        fitted("llama", tiny.plan("0.attn", "2.layer", "3.layer"))


def test_what_does_not_fit_into_memory_is_refused():
    streams, network = 3 * 320 * tiny.HIDDEN * 4, 5 * 3 * tiny.HIDDEN * 24 * 4
    with pytest.raises(BadInput, match="trained on 320 tokens"):
        fitted("llama", SHORT, MLP, memory_bytes=streams + network - 1)
    assert fitted("llama", SHORT, MLP, memory_bytes=streams + network).maps
    with pytest.raises(BadInput, match="no position is left"):
        fitted("llama", text=tiny.windows(4, 1))


def test_its_cost_is_told():
    """By blocks, of 8: 6 of the whole model up to the gap's end, 1 in front of the gap of the
    pruned one, 2 of the network at the end; ten times forward and back through 2, as long as 3."""
    assert fitted("llama").passes == pytest.approx((6 + 1 + 2 + 10 * 3 * 2) / 8)


@either
def test_a_state_gives_the_same_model(tmp_path, plan, correction):
    model, repair = shared("llama"), fitted("llama", plan, correction)
    save_repair(tmp_path / "state", model, repair, provenance_of(model, TEXT.origin))
    again = load_repair(tmp_path / "state", model)
    assert again.correction == correction and again.revived == repair.revived
    found, expected = (logits(repaired_model(model, r)) for r in (again, repair))
    assert torch.equal(found, expected)


def test_its_row_says_what_it_adds(monkeypatch):
    monkeypatch.setattr(repairing, "PATIENCE", 0.0)
    names = ("llm_streamline:lr=0.002", "mean")
    request = RepairRequest(tiny.plan("1.layer", "2.layer"), names)
    *steps, done = repair_windows(shared("llama"), TEXT, HELD, tiny.windows(3, 20, seed=7), request)
    assert isinstance(done, Done)
    row = done.result.rows[2]
    layer = shared("llama").info.parameters_of(tiny.ids("1.attn", "1.mlp"))
    assert row.n_added == layer and not row.is_free and row.fits
    unfinished = [
        e.partial.rows[-1] for e in steps
        if e.partial is not None and repairing.UNFINISHED in e.partial.rows[-1].notes
    ]  # fmt: skip
    assert unfinished and all(r.n_added == layer for r in unfinished)
    assert done.result.best == ""
