"""The distilled writer refit: what it starts from, what is trained, and that it stores nothing."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import tiny
import torch
from student_checks import check_gradients

from blockviz.corrections import Repair, WriterDistilled, WriterRefit, fit, repaired_model
from blockviz.corrections.base import Writing
from blockviz.corrections.rows import counted
from blockviz.corrections.student import WriterStudent, divergence_with_rest, lessons_of
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.models.stage import Head
from blockviz.models.writers import writer_weight
from blockviz.session.opening import provenance_of
from blockviz.session.repair_space import parse_corrections
from blockviz.session.repair_state import load_repair, save_repair
from blockviz.types import CalibrationBatch, CalibrationSet, run

pytestmark = pytest.mark.usefixtures("one_thread")

families = pytest.mark.parametrize("case", ("llama", "qwen2", "gpt2", "neox"))
TEXT, HELD = tiny.windows(12, 20), tiny.windows(4, 20, seed=5)
PLAN = tiny.plan("1.attn", "2.mlp")
FAST = WriterDistilled(lr=3e-3, epochs=3, top=16)

shared = functools.cache(tiny.model)


def some(text: CalibrationSet, first: int, last: int) -> CalibrationSet:
    return CalibrationSet(text.input_ids[first:last], text.attention_mask[first:last], text.origin)


@functools.cache
def refitted(case: str) -> Repair:
    """On a quarter of the windows, as the training starts."""
    return run(fit(shared(case), PLAN, WriterRefit(), some(TEXT, 0, 3)))


def fitted(case: str, correction: WriterDistilled = FAST, **how) -> Repair:
    plan, text = how.pop("plan", PLAN), how.pop("text", TEXT)
    return run(fit(shared(case), plan, correction, text, **how))


def logits(model: BlockModel, text: CalibrationSet) -> torch.Tensor:
    return model.logits(CalibrationBatch(text.input_ids, text.attention_mask)).double()


def lessons(case: str, text: CalibrationSet, top: int = 16):
    model = shared(case)
    batch = CalibrationBatch(text.input_ids, text.attention_mask)
    return lessons_of(model, Head(model), batch, counted(text, "skip_first"), top)


def loss(case: str, repair: Repair, text: CalibrationSet) -> float:
    return WriterStudent(shared(case), repair).loss(lessons(case, text))


# --- the loss -------------------------------------------------------------------------------------


def test_all_other_words_count_as_one_by_hand():
    """p = 1/2 and 1/2 for the rest, q = 1/4 and 3/4: log 2 / 2 + log(2/3) / 2."""
    teacher, student = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.25)]])
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert divergence_with_rest(teacher, student).tolist() == pytest.approx([expected], rel=1e-6)


@families
@pytest.mark.parametrize("pieces", [1, 48 << 20])
def test_the_loss_is_that_of_probabilities_written_out(case: str, pieces: int, monkeypatch):
    monkeypatch.setattr("blockviz.corrections.student.PIECE_BYTES", pieces)
    text = tiny.windows(4, 20, lengths=(20, 9, 2, 15))
    wanted = text.attention_mask.clone()
    wanted[:, 0] = False
    p, q = (
        logits(m, text)[wanted].softmax(dim=1)
        for m in (shared(case), repaired_model(shared(case), refitted(case)))
    )
    words = p.argsort(dim=1, descending=True)[:, :16]
    p, q = (
        torch.cat([x, 1 - x.sum(dim=1, keepdim=True)], 1)
        for x in (p.gather(1, words), q.gather(1, words))
    )
    expected = (p * (p / q).log()).sum(dim=1).mean().item()
    assert loss(case, refitted(case), text) == pytest.approx(expected, rel=1e-4)


@families
def test_without_a_cut_there_is_no_loss(case: str):
    whole = run(fit(shared(case), PLAN, WriterRefit(), TEXT))
    own = {b: Writing(writer_weight(shared(case), b).float()) for b in whole.writers}
    same = Repair(FAST, tiny.plan(), writers=own)
    assert loss(case, same, TEXT) == pytest.approx(0, abs=1e-6)


# --- training -------------------------------------------------------------------------------------


@families
def test_training_brings_predictions_nearer_to_the_whole_model_s(case: str):
    repair = fitted(case)
    assert repair.writers.keys() == refitted(case).writers.keys() and not repair.maps
    before, after = (loss(case, r, some(TEXT, 3, 12)) for r in (refitted(case), repair))
    assert after < 0.9 * before
    assert repaired_model(shared(case), repair).n_added == 0


@families
def test_only_writers_have_a_gradient_and_the_weights_stay_bit_for_bit(case: str):
    model = tiny.model(case)
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    student = WriterStudent(model, refitted(case))
    student.learn(lessons(case, TEXT)[0])
    assert all(leaf.grad.abs().max() > 0 for leaf in student.leaves.values())
    assert all(p.grad is None for p in student._model.module.parameters())
    run(fit(model, PLAN, FAST, TEXT))
    after = model.module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@families
def test_gradients_are_those_of_small_steps(case: str):
    (lesson,) = lessons(case, tiny.windows(1, 20))
    check_gradients(WriterStudent(shared(case), refitted(case)), lesson, rel=0.03)


def test_without_a_step_it_is_the_refit_of_the_first_quarter():
    repair = fitted("llama", replace(FAST, epochs=0))
    for block, writing in refitted("llama").writers.items():
        assert torch.equal(repair.writers[block].weight, writing.weight)
        assert torch.equal(repair.writers[block].bias, writing.bias)
    assert "kept step 0 of 0" in repair.notes[-1]


def test_one_window_is_fitted_on_and_learned_from():
    repair = fitted("llama", replace(FAST, epochs=1), text=tiny.windows(1, 20))
    assert "kept step 1 of 1" in repair.notes[-1] and repair.n_tokens == 19


def test_nothing_is_trained_where_nothing_is_cut():
    repair = fitted("llama", plan=tiny.plan())
    assert (repair.writers, repair.fits, repair.correction) == ({}, (), FAST)


@families
def test_float32_results_do_not_hang_on_the_batch_and_come_again(case: str):
    correction = replace(FAST, lr=1e-4)
    repairs = [fitted(case, correction, batch_tokens=n) for n in (20, 80, 320, 320)]
    found = [logits(repaired_model(shared(case), r), HELD) for r in repairs]
    assert torch.equal(found[2], found[3])
    assert max(tiny.distance(f, found[2]) for f in found[:2]) < 1e-5


def test_held_text_chooses_the_step_and_is_never_learned_from():
    eager = replace(FAST, lr=0.05, epochs=8)
    events = list(fit(shared("llama"), PLAN, eager, TEXT, held=HELD))
    partials = [e.partial for e in events[:-1] if e.partial is not None]
    losses = [loss("llama", p, HELD) for p in partials]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(loss("llama", refitted("llama"), HELD))
    assert loss("llama", events[-1].result, HELD) == pytest.approx(losses[-1], rel=1e-5)
    assert all(f.held_after is not None for f in events[-1].result.fits)


def test_every_place_is_looked_at_and_its_cost_is_told():
    repair, start = fitted("llama", held=HELD), refitted("llama")
    assert [f.gap for f in repair.fits] == [f.gap for f in start.fits]
    look = repair.passes - 0.25 * start.passes - 0.75 * (1 + 3 * 3)
    assert look == pytest.approx(start.passes)


def test_padding_never_enters():
    text = tiny.windows(6, 20, lengths=(20, 7, 13, 2, 3, 19))
    junk = torch.where(text.attention_mask, text.input_ids, 61 - text.input_ids)
    other = CalibrationSet(junk, text.attention_mask, text.origin)
    a, b = (fitted("llama", replace(FAST, lr=1e-4), text=t) for t in (text, other))
    for block, writing in a.writers.items():
        torch.testing.assert_close(writing.weight, b.writers[block].weight, rtol=0, atol=1e-6)


# --- refusals, names, files -----------------------------------------------------------------------


def test_a_writer_with_a_norm_behind_it_is_refused():
    with pytest.raises(UnsupportedModel, match="a norm follows it"):
        fitted("gemma3-softcap")


def test_what_does_not_fit_into_memory_is_refused_in_three_sentences():
    with pytest.raises(BadInput, match=r"matrices were to be trained on 180 tokens\. .*16 logits"):
        fitted("llama", memory_bytes=2 * 12 * 20 * tiny.HIDDEN * 4)


def test_it_is_asked_for_by_name_only():
    assert "writer_distilled" not in parse_corrections(["all", "auto"])
    assert "writer_distilled:epochs=3" in parse_corrections(["writer_distilled:epochs=3"])


def test_bfloat16_models_are_trained_in_float32():
    model = tiny.model("gpt2")
    model.module.to(torch.bfloat16)
    repair = run(fit(model, PLAN, FAST, TEXT))
    assert all(w.weight.dtype == torch.float32 for w in repair.writers.values())
    assert not all(torch.equal(w.weight, w.weight.bfloat16()) for w in repair.writers.values())


def test_a_state_gives_the_same_model(tmp_path):
    model, repair = shared("gpt2"), fitted("gpt2")
    save_repair(tmp_path / "state", model, repair, provenance_of(model, TEXT.origin))
    again = load_repair(tmp_path / "state", model)
    assert again.correction == FAST and again.notes == repair.notes
    found, expected = (repaired_model(model, r) for r in (again, repair))
    assert torch.equal(logits(found, HELD), logits(expected, HELD))
