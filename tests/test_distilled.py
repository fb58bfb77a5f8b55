"""LinearPatch with distillation: the loss by hand, what is trained, and what is kept of it."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from student_checks import check_gradients

from blockviz.corrections import (
    CORRECTIONS,
    Distilled,
    Hadamard,
    HadamardDistilled,
    Repair,
    Trained,
    fit,
    repaired_model,
)
from blockviz.corrections.rows import counted
from blockviz.corrections.student import PatchStudent, divergence, lessons_of
from blockviz.corrections.training import Schedule, train
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.models.modeling_blockviz import Residual
from blockviz.models.stage import Head
from blockviz.session import Limits, repairing
from blockviz.session.catalogue import corrections_json
from blockviz.session.opening import provenance_of
from blockviz.session.repair_space import parse_corrections
from blockviz.session.repair_state import load_repair, save_repair
from blockviz.session.repair_views import CorrectionCard, RepairRequest
from blockviz.session.repairing import repair_windows
from blockviz.types import CalibrationBatch, CalibrationSet, Done, Progress, run
from blockviz.ui.repair_form import said

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("llama", "qwen2", "gemma3-softcap", "gpt2", "neox")
families = pytest.mark.parametrize("case", FAMILIES)
TEXT, HELD = tiny.windows(12, 20), tiny.windows(4, 20, seed=5)
PLAN = tiny.plan("1.attn", "2.mlp")
FAST = HadamardDistilled(lr=3e-3, epochs=3, top=16)

shared = functools.cache(tiny.model)


def fitted(case: str, correction: Distilled = FAST, **how) -> Repair:
    plan, text = how.pop("plan", PLAN), how.pop("text", TEXT)
    return run(fit(shared(case), plan, correction, text, **how))


def logits(model: BlockModel, text: CalibrationSet) -> torch.Tensor:
    return model.logits(CalibrationBatch(text.input_ids, text.attention_mask)).double()


def lessons(case: str, text: CalibrationSet, top: int, tokens: str = "all"):
    model = shared(case)
    batch = CalibrationBatch(text.input_ids, text.attention_mask)
    return lessons_of(model, Head(model), batch, counted(text, tokens), top)


def reference(teacher: torch.Tensor, student: torch.Tensor, top: int) -> torch.Tensor:
    """The loss of (token, vocab) float64 logits, from probabilities that are written out."""
    words = teacher.argsort(dim=1, descending=True)[:, :top]
    p, q = (logits.gather(1, words).exp() for logits in (teacher, student))
    p, q = (x / x.sum(dim=1, keepdim=True) for x in (p, q))
    return (p * (p / q).log()).sum(dim=1)


# --- the loss -------------------------------------------------------------------------------------


def test_the_divergence_by_hand():
    """p = 3/4, 1/4 and q = 1/2, 1/2: 3/4 log 3/2 + 1/4 log 1/2."""
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[5.0, 5.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence(teacher, student).tolist() == pytest.approx([expected], rel=1e-6)


@families
def test_T_LPD_1_with_every_word_it_is_the_plain_divergence(case: str):
    whole, pruned = shared(case), repaired_model(shared(case), hadamard(case))
    taught = lessons(case, TEXT, top=10_000)
    assert {lesson.words.shape for lesson in taught} == {(20, tiny.VOCAB)}
    p, q = (logits(m, TEXT).flatten(0, 1).log_softmax(dim=1) for m in (whole, pruned))
    expected = (p.exp() * (p - q)).sum(dim=1).mean().item()
    assert PatchStudent(whole, hadamard(case)).loss(taught) == pytest.approx(expected, rel=1e-4)


@functools.cache
def hadamard(case: str) -> Repair:
    return run(fit(shared(case), PLAN, Hadamard(), TEXT))


@families
@pytest.mark.parametrize("pieces", [1, 48 << 20])
def test_the_loss_is_that_of_the_words_that_the_whole_model_holds_most_likely(
    case: str, pieces: int, monkeypatch
):
    """Of padded windows too, whichever pieces the vocabulary's rows are gathered in."""
    monkeypatch.setattr("blockviz.corrections.student.PIECE_BYTES", pieces)
    text = tiny.windows(4, 20, lengths=(20, 9, 1, 15))
    student = PatchStudent(shared(case), hadamard(case))
    repaired = repaired_model(shared(case), hadamard(case))
    wanted = text.attention_mask.clone()
    wanted[:, 0] = False
    found = student.loss(lessons(case, text, 7, "skip_first"))
    teacher, pruned = (logits(m, text)[wanted] for m in (shared(case), repaired))
    assert found == pytest.approx(reference(teacher, pruned, 7).mean().item(), rel=1e-4)


@families
def test_T_LPD_2_without_a_cut_and_with_identities_there_is_no_loss(case: str):
    identity = Residual(torch.zeros(tiny.HIDDEN, tiny.HIDDEN))
    whole = Repair(FAST, tiny.plan(), maps={b: identity for b in tiny.ids("1.mlp", "2.mlp")})
    assert PatchStudent(shared(case), whole).loss(lessons(case, TEXT, 16)) == pytest.approx(
        0, abs=1e-8
    )


def test_nothing_is_trained_where_nothing_is_cut():
    repair = fitted("llama", plan=tiny.plan())
    assert (repair.maps, repair.fits, repair.passes) == ({}, (), 0)
    assert repair.correction == FAST


# --- gradients ------------------------------------------------------------------------------------


@families
def test_T_LPD_3_only_patches_have_a_gradient_and_the_weights_stay_bit_for_bit(case: str):
    model = tiny.model(case)
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    start = hadamard(case)
    student = PatchStudent(model, start)
    student.learn(lessons(case, TEXT, 16)[0])
    assert all(patch.grad.abs().max() > 0 for patch in student.leaves.values())
    assert all(p.grad is None for p in model.module.parameters())
    assert all(p.grad is None for p in student._model.module.parameters())
    run(fit(model, PLAN, FAST, TEXT))
    after = model.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(not m._forward_hooks for m in model.module.modules())


def test_gradients_are_those_of_small_steps():
    (lesson,) = lessons("llama", tiny.windows(1, 20), 16)
    check_gradients(PatchStudent(shared("llama"), hadamard("llama")), lesson, rel=0.02)


def test_nothing_in_front_of_the_first_patch_is_kept_for_going_back(monkeypatch):
    """Of a cut behind layer 2 the layers in front give streams without a history."""
    model = shared("llama")
    start = run(fit(model, tiny.plan("3.attn"), Hadamard(), TEXT))
    student, seen = PatchStudent(model, start), []
    for layer in student._model.layers:
        layer.register_forward_pre_hook(lambda _m, args: seen.append(args[0].requires_grad))
    student._model.final_norm.register_forward_pre_hook(
        lambda _m, args: seen.append(args[0].requires_grad)
    )
    student.learn(lessons("llama", TEXT, 16)[0])
    assert seen == [False] * tiny.LAYERS + [True]


# --- training -------------------------------------------------------------------------------------


@families
def test_training_brings_predictions_nearer_to_the_whole_model_s(case: str):
    start, repair = hadamard(case), fitted(case)
    taught = lessons(case, TEXT, 16)
    before, after = (PatchStudent(shared(case), r).loss(taught) for r in (start, repair))
    assert after < 0.9 * before
    assert {b: type(m) for b, m in repair.maps.items()} == dict.fromkeys(start.maps, Residual)
    found = repaired_model(shared(case), repair)
    assert found.n_added == 2 * tiny.HIDDEN**2
    assert logits(found, TEXT).isfinite().all()


def test_without_a_step_it_is_linear_patch():
    repair = fitted("llama", replace(FAST, epochs=0))
    for block, module in hadamard("llama").maps.items():
        torch.testing.assert_close(repair.maps[block].matrix, module.matrix, rtol=0, atol=1e-6)
    assert "kept step 0 of 0" in repair.notes[-1]


def test_the_first_step_is_adamw_s_with_decay_towards_zero_written_out(monkeypatch):
    """One window, one step: P (1 - lr decay) - lr g / (|g| + 1e-8); a decay that can be seen."""
    assert HadamardDistilled.decay == 1e-4
    monkeypatch.setattr(HadamardDistilled, "decay", 10.0)
    text = tiny.windows(1, 20)
    start = run(fit(shared("llama"), PLAN, Hadamard(), text))
    student = PatchStudent(shared("llama"), start)
    student.learn(lessons("llama", text, 16)[0])
    repair = fitted("llama", replace(FAST, epochs=1), text=text)
    for block, patch in student.leaves.items():
        expected = patch.detach() * (1 - 3e-3 * 10)
        expected -= 3e-3 * patch.grad / (patch.grad.abs() + 1e-8)
        found = repair.maps[block].matrix + torch.eye(tiny.HIDDEN)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_the_rate_goes_down_along_half_a_cosine():
    how = Schedule(5, 1.0, 0.05, 0.0)
    rates = [how.rate(step) for step in range(5)]
    assert rates[0] == 1.0 and rates[-1] == pytest.approx(0.05)
    assert rates[2] == pytest.approx((1 + 0.05) / 2)
    assert rates == sorted(rates, reverse=True)
    assert how.looks == frozenset(range(6))
    assert min(Schedule(100, 1, 1, 0).looks) == 0 and max(Schedule(100, 1, 1, 0).looks) == 100
    assert len(Schedule(100, 1, 1, 0).looks) == 8


@families
def test_float32_results_do_not_hang_on_the_batch_and_come_again(case: str):
    correction = replace(FAST, lr=1e-4)
    repairs = [fitted(case, correction, batch_tokens=n) for n in (20, 80, 320, 320)]
    found = [logits(repaired_model(shared(case), r), HELD) for r in repairs]
    assert torch.equal(found[2], found[3])
    assert max(tiny.distance(f, found[2]) for f in found[:2]) < 1e-5


def test_the_seed_orders_the_windows():
    a, b = (fitted("llama", replace(FAST, seed=seed)) for seed in (0, 1))
    assert not torch.equal(a.maps[PLAN.removed[0]].matrix, b.maps[PLAN.removed[0]].matrix)


def test_padding_never_enters():
    text = tiny.windows(6, 20, lengths=(20, 7, 13, 2, 1, 19))
    junk = torch.where(text.attention_mask, text.input_ids, 61 - text.input_ids)
    other = CalibrationSet(junk, text.attention_mask, text.origin)
    a, b = (fitted("llama", replace(FAST, tokens="skip_first"), text=t) for t in (text, other))
    for block, module in a.maps.items():
        torch.testing.assert_close(module.matrix, b.maps[block].matrix, rtol=0, atol=1e-6)
    assert a.n_tokens == 62 - 6


# --- what is kept ---------------------------------------------------------------------------------


def walk(losses: list[float], held: list[float] | None) -> tuple[list[Progress], object]:
    """A training of one number that goes up by about 1 a step."""
    leaf = torch.zeros(1, requires_grad=True)
    tried = iter(held or ())

    def backward(step: int) -> float:
        leaf.grad = torch.full((1,), -1.0)
        return losses[step]

    events = train(
        {"a": leaf},
        Schedule(len(losses), 1.0, 1.0, 0.0),
        backward,
        held=(lambda: next(tried)) if held else None,
        stage="training",
        so_far=lambda best: (best.step, round(best.tensors["a"].item())),
    )
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


def test_the_best_is_that_of_the_least_held_loss():
    seen, best = walk([1.0, 1.0, 1.0], [4.0, 2.0, 3.0, 2.5])
    assert (best.step, round(best.tensors["a"].item()), best.held) == (1, 1, 2.0)
    assert [e.partial for e in seen if e.partial] == [(0, 0), (1, 1)]
    assert "kept step 1 of 3, the least loss on held-out text: 2" in best.said
    assert [e.done for e in seen] == [0, 1, 1, 2, 2, 3, 3] and {e.total for e in seen} == {3}
    assert seen[-1].note == "loss 1, held out 2 at best"


def test_without_held_text_the_last_step_is_kept():
    seen, best = walk([1.0, 1.0, 1.0], None)
    assert (best.step, round(best.tensors["a"].item()), best.held) == (3, 3, None)
    assert [e.partial for e in seen if e.partial] == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_a_loss_that_is_no_number_ends_the_training():
    _, best = walk([1.0, math.nan, 1.0], None)
    assert best.step == 1 and "ended at step 2, whose loss was no number" in best.said
    _, best = walk([1.0, 1.0], [3.0, math.nan, 4.0])
    assert (best.step, best.held) == (0, 3.0)


def test_held_text_chooses_the_step_and_is_never_learned_from():
    eager = replace(FAST, lr=0.05, epochs=8)
    repair = fitted("llama", eager, held=HELD)
    start = PatchStudent(shared("llama"), hadamard("llama"))
    tests = lessons("llama", HELD, 16)
    chosen = PatchStudent(shared("llama"), repair).loss(tests)
    events = list(fit(shared("llama"), PLAN, eager, TEXT, held=HELD))
    partials = [e.partial for e in events[:-1] if e.partial is not None]
    assert partials and all(isinstance(p, Repair) for p in partials)
    losses = [PatchStudent(shared("llama"), p).loss(tests) for p in partials]
    assert losses == sorted(losses, reverse=True) and losses[0] == pytest.approx(start.loss(tests))
    assert chosen == pytest.approx(losses[-1], rel=1e-5)
    alone = list(fit(shared("llama"), PLAN, eager, TEXT))
    assert losses_told(events) == losses_told(alone)
    assert all(f.held_after is not None for f in repair.fits)


def losses_told(events: list) -> list[str]:
    steps = [e for e in events[:-1] if e.stage.startswith("distilling") and "loss" in e.note]
    return [f"{e.done} of {e.total}: {e.note.partition(',')[0]}" for e in steps]


def test_every_place_is_looked_at_and_its_cost_is_told():
    repair = fitted("llama", held=HELD)
    assert [f.gap for f in repair.fits] == [(b,) for b in PLAN.removed]
    # Once for the whole model's words, 3 for every time forward and back; as much as a fit takes
    # for the start, and again for looking at the places.
    assert repair.passes == pytest.approx(1 + 3 * 3 + 2 * hadamard("llama").passes)
    assert repair.n_tokens == 12 * 20


# --- refusals, names, files -----------------------------------------------------------------------


def test_what_does_not_fit_into_memory_is_refused_in_three_sentences():
    streams = 2 * 12 * 20 * tiny.HIDDEN * 4
    with pytest.raises(BadInput, match=r"2 patches were to be trained on 240 tokens\. .*16 logits"):
        fitted("llama", memory_bytes=streams)
    needed = 240 * 16 * 8 + 6 * 2 * tiny.HIDDEN**2 * 4
    assert fitted("llama", memory_bytes=max(needed, streams)).maps


def test_a_size_without_a_hadamard_matrix_is_refused_before_any_work():
    with pytest.raises(UnsupportedModel, match="Use the correction diag"):
        HadamardDistilled().check(7)


def test_all_and_auto_leave_trained_ones_out():
    found = parse_corrections(["all", "auto"])
    assert not any(isinstance(c, Trained) for c in found.values())
    assert "hadamard_distilled:top=20" in parse_corrections(["hadamard_distilled:top=20"])


def test_the_page_and_the_list_say_that_they_take_long():
    names = CorrectionCard.__dataclass_fields__
    cards = [CorrectionCard(**{n: getattr(c(), n) for n in names}) for c in CORRECTIONS.classes()]
    engine = SimpleNamespace(
        limits=Limits(), info=shared("llama").info, correction_cards=lambda: cards
    )
    for name in ("hadamard_distilled:top=20", "llm_streamline"):
        words = said(engine, RepairRequest(PLAN, ("mean", name)))["note"]
        assert CORRECTIONS.get(name.partition(":")[0]).meaning in words
        assert "Takes minutes" in words
    assert said(engine, RepairRequest(PLAN, ("mean",)))["note"] == ""
    listed = {c["name"]: c for c in corrections_json()["corrections"]}
    assert listed["hadamard_distilled"]["is_experimental"] and listed["llm_streamline"]["meaning"]


def test_bfloat16_models_are_distilled_in_float32():
    model = tiny.model("llama")
    model.module.to(torch.bfloat16)
    repair = run(fit(model, PLAN, FAST, TEXT))
    assert all(m.matrix.dtype == torch.float32 for m in repair.maps.values())
    taught_loss = [
        PatchStudent(model, r).loss(
            lessons_of(model, Head(model), next(TEXT.batches(12)), TEXT.attention_mask, 16)
        )
        for r in (run(fit(model, PLAN, Hadamard(), TEXT)), repair)
    ]
    assert taught_loss[1] < taught_loss[0]


def test_a_state_gives_the_same_model(tmp_path):
    model, repair = shared("llama"), fitted("llama")
    save_repair(tmp_path / "state", model, repair, provenance_of(model, TEXT.origin))
    again = load_repair(tmp_path / "state", model)
    assert again.correction == FAST and again.notes == repair.notes
    found, expected = (repaired_model(model, r) for r in (again, repair))
    assert torch.equal(logits(found, HELD), logits(expected, HELD))


# --- what is kept when it is stopped --------------------------------------------------------------


def table_events(monkeypatch, patience: float, keep=None):
    monkeypatch.setattr(repairing, "PATIENCE", patience)
    request = RepairRequest(PLAN, ("hadamard_distilled:lr=0.003:epochs=3:top=16",))
    return repair_windows(shared("llama"), TEXT, HELD, tiny.windows(3, 20, seed=7), request, keep)


def test_a_cancelled_training_leaves_a_row_and_a_repair_of_the_best_so_far(monkeypatch):
    kept: list[Repair] = []
    events, tables = table_events(monkeypatch, 0.0, kept.append), []
    for event in events:
        if event.partial is not None:
            tables.append(event.partial)
        if len(tables) == 5:
            break
    events.close()
    row = tables[-1].rows[2]
    assert tables[-1].is_partial and row.correction.startswith("hadamard_distilled")
    assert math.isfinite(row.nll) and repairing.UNFINISHED in row.notes
    assert "Distillation kept step" in row.notes[0]
    found = repaired_model(shared("llama"), kept[-1])
    again = run(repairing.measure_perplexity(found, tiny.windows(3, 20, seed=7)))
    assert again.nll == pytest.approx(row.nll, rel=1e-6)


def test_the_whole_table_has_one_row_of_it_and_the_steps_tell_the_loss(monkeypatch):
    *steps, done = list(table_events(monkeypatch, 0.0))
    assert isinstance(done, Done)
    (row,) = done.result.rows[2:]
    assert repairing.UNFINISHED not in row.notes and row.n_added == 2 * tiny.HIDDEN**2
    assert any("loss" in s.note and "2 of 3 rows done" in s.note for s in steps)
    assert all(s.partial is None or s.partial.is_partial for s in steps)


def test_rows_of_the_best_so_far_are_not_measured_more_than_their_time_is_worth(monkeypatch):
    tables = [e.partial for e in table_events(monkeypatch, 1e9) if getattr(e, "partial", None)]
    assert [len(t.rows) for t in tables] == [1, 2, 3]
