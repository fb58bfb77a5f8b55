"""A plan beside the original and its repairs, on tiny models: every number by another road."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import tiny
import torch
from test_choices import questions

from blockviz.corrections import CORRECTIONS, Repair, fit, repaired_model
from blockviz.engine.costs import multiply_adds
from blockviz.errors import BadInput, BadPlan, OverLimit, UnknownName
from blockviz.evaluate import measure_perplexity, score_choices
from blockviz.models.generate import continue_greedily, prompt_ids
from blockviz.session import Engine, Limits, ScoreRequest
from blockviz.session.columns import questions_of
from blockviz.session.compare_views import CompareRequest
from blockviz.session.comparing import check_compare, compare_windows
from blockviz.session.example import Example
from blockviz.session.live import LiveText
from blockviz.session.repair_views import RepairRequest
from blockviz.session.repairing import FitWindows
from blockviz.session.scoring import score_windows
from blockviz.settings import parse_method
from blockviz.types import (
    Comparison,
    ComparisonColumn,
    Done,
    Provenance,
    Question,
    TaskAnswers,
    TaskRow,
    TaskSet,
    run,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FIT, HELD, OTHER = tiny.windows(24, 20), tiny.windows(6, 20, seed=5), tiny.windows(5, 20, seed=6)
PLAN = tiny.plan("1.attn", "2.mlp")
PROMPT = "w3 w17 w40"


def asked(*names: str, prompt: str = PROMPT, n_new: int = 6, **more) -> CompareRequest:
    repair = RepairRequest(more.pop("plan", PLAN), names, **more)
    return CompareRequest(repair, prompt, n_new)


def events_of(model, *names: str, tasks=(), is_timed=False, **more) -> list:
    request = replace(asked(*names, **more), is_timed=is_timed)
    windows = FitWindows(FIT, HELD) if names else None
    ids = prompt_ids(model, PROMPT, is_chat=False)
    return list(compare_windows(model, request, ids, windows, OTHER, tasks))


def comparison_of(model, *names: str, **more) -> Comparison:
    return events_of(model, *names, **more)[-1].result


@pytest.fixture(scope="module")
def model():
    return tiny.model("llama")


@pytest.fixture(scope="module")
def comparison(model) -> Comparison:
    return comparison_of(model, "replaceme", "mean")


# -- the columns --


def test_every_column_is_the_perplexity_and_the_text_of_the_model_that_it_names(model, comparison):
    variants = {"original": model, "none": model.prune(PLAN)}
    for name in ("replaceme", "mean"):
        repair = run(fit(model, PLAN, parse_method(CORRECTIONS, name), FIT))
        variants[name] = repaired_model(model, repair)
    assert [column.label for column in comparison.columns] == list(variants) == [*comparison.asked]
    whole = run(measure_perplexity(model, OTHER))
    for column in comparison.columns:
        variant = variants[column.label]
        found = run(measure_perplexity(variant, OTHER))
        gaps = torch.tensor(found.window_nll) - torch.tensor(whole.window_nll)
        assert column.window_nll == pytest.approx(found.window_nll, rel=1e-5)
        assert column.perplexity == pytest.approx(found.value, rel=1e-5)
        assert column.stderr == pytest.approx(found.nll_stderr, abs=1e-6)
        rise, error = comparison.rise(column)
        assert rise == pytest.approx(gaps.mean().item(), abs=1e-5)
        assert error == pytest.approx(gaps.std().item() / math.sqrt(5), abs=1e-5)
        ids = prompt_ids(model, PROMPT, is_chat=False)
        assert column.text == list(continue_greedily(variant, ids, max_new_tokens=6))[-1]
    assert len(comparison.columns[0].text.split()) == 6
    assert (comparison.n_tokens, comparison.n_predicted) == (24 * 19, 5 * 19)


def test_sizes_of_each_column(model, comparison):
    info, d = model.info, tiny.HIDDEN
    columns = {column.label: column for column in comparison.columns}
    left = info.n_parameters - info.parameters_of(PLAN.removed)
    sizes = {label: (c.n_parameters, c.n_added) for label, c in columns.items()}
    assert sizes == {"original": (info.n_parameters, 0), "none": (left, 0),
                     "replaceme": (left, 0), "mean": (left + 2 * d, 2 * d)}  # fmt: skip
    assert columns["replaceme"].folds and not columns["mean"].folds
    # One of four attention blocks is gone.
    whole = info.kv_bytes_per_token()
    assert columns["original"].kv_bytes == whole > 0
    assert {c.kv_bytes for c in comparison.columns[1:]} == {whole * 3 // 4}


def test_a_block_that_stands_after_all_is_counted(model, monkeypatch):
    """A repair of two cuts brings the attention block back: its cache, its weights, its work."""
    attn, mlp = PLAN.removed
    made = Repair(parse_method(CORRECTIONS, "mean"), PLAN, revived=(attn,))
    monkeypatch.setattr("blockviz.session.comparing.fitted", lambda *_: (e for e in [Done(made)]))
    column = comparison_of(model, "mean").columns[2]
    info = model.info
    assert column.n_parameters == info.n_parameters - info.parameters_of([mlp])
    assert column.n_added == info.parameters_of([attn])
    assert column.kv_bytes == info.kv_bytes_per_token()
    cost = multiply_adds(model, [mlp])
    assert (column.multiply_adds, column.per_position) == (cost.weights, cost.per_position)
    assert column.window_nll == pytest.approx(
        run(measure_perplexity(model, OTHER, removed=[mlp])).window_nll, rel=1e-5
    )


def test_columns_arrive_one_by_one_and_an_empty_one_says_what_is_asked(model):
    events = events_of(model, "mean")
    partials = [event.partial for event in events[:-1] if event.partial is not None]
    assert [len(p.columns) for p in partials] == [0, 1, 2, 3]
    assert all(p.is_partial and p.asked == ("original", "none", "mean") for p in partials)
    for partial in partials:
        text = json.dumps(partial.to_json(), allow_nan=False)
        assert Comparison.from_json(json.loads(text)) == partial
    assert isinstance(events[-1], Done) and not events[-1].result.is_partial
    assert any(event.stage == "writing, none" and event.total == 6 for event in events[:-1])


def test_without_corrections_nothing_is_fitted(model):
    found = comparison_of(model)
    assert found.asked == ("original", "none") and found.n_tokens == 0
    assert found.provenance.data is None and found.evaluation.data is not None


def test_one_that_the_model_cannot_have_becomes_a_column_that_says_why():
    found = comparison_of(tiny.model("gemma3"), "writer_refit", "mean")
    refused, mean = found.columns[2:]
    assert "a norm follows it" in refused.refused and refused.window_nll == ()
    assert math.isnan(refused.perplexity) and found.rise(refused) is found.closed(refused) is None
    assert mean.window_nll and mean.text


def test_a_comparison_leaves_the_shared_model_as_it_was(model, comparison):
    before = {name: p.clone() for name, p in model.module.named_parameters()}
    logits = model.logits(tiny.batch())
    comparison_of(model, "replaceme")
    assert torch.equal(model.logits(tiny.batch()), logits)
    assert all(torch.equal(p, before[name]) for name, p in model.module.named_parameters())


def test_differences_and_shares_by_hand():
    """Nats of the original 1 and 3, of the plan 2 and 4.4, of a repair 1 and 4: rises of 1.2 and
    0.5; the gaps 1 and 1.4 spread by 0.2 around 1.2, so the error is sqrt(0.08 / 2) = 0.2.
    """
    columns = tuple(
        ComparisonColumn(label, label, nll)
        for label, nll in (("original", (1.0, 3.0)), ("none", (2.0, 4.4)), ("a", (1.0, 4.0)))
    )
    provenance = Provenance(None, "m", "r", "", "float32", "cpu", 1, {})
    found = Comparison(
        provenance, provenance, PLAN.removed, ("original", "none", "a", "b"), columns, "", 1
    )
    assert found.rise(columns[1]) == pytest.approx((1.2, 0.2))
    assert found.rise(columns[2]) == pytest.approx((0.5, 0.5))
    assert found.closed(columns[2]) == pytest.approx(0.7 / 1.2)
    assert found.closed(columns[0]) == 1.0 and found.closed(columns[1]) == 0.0
    assert found.column("b") is None
    assert replace(found, columns=()).rise(columns[1]) is None
    assert replace(found, columns=columns[:1]).closed(columns[2]) is None
    with pytest.raises(ValueError, match="do not follow"):
        replace(found, columns=columns[1:])


def test_the_losses_of_tokens_are_those_of_the_variant_and_lie_beside_their_words(
    model, comparison
):
    assert ["".join(row) for row in comparison.pieces] == [
        model.tokenizer.decode(ids[there].tolist())
        for ids, there in zip(OTHER.input_ids, OTHER.attention_mask, strict=True)
    ]
    assert [len(row) for row in comparison.pieces] == OTHER.attention_mask.sum(-1).tolist()
    repair = run(fit(model, PLAN, parse_method(CORRECTIONS, "mean"), FIT))
    losses = run(measure_perplexity(repaired_model(model, repair), OTHER, n_kept=5)).token_nll
    column = comparison.column("mean")
    for row, expected, mean in zip(column.token_nll, losses, column.window_nll, strict=True):
        assert row == pytest.approx(expected, abs=1e-4)
        assert sum(row) / len(row) == pytest.approx(mean, abs=1e-4)
    rises = comparison.token_rises(column)
    flat = [x for row in rises for x in row]
    assert sum(flat) / len(flat) == pytest.approx(comparison.rise(column)[0], abs=1e-4)
    assert replace(comparison, columns=comparison.columns[1:2], asked=("none",)).token_rises(
        column
    ) == ()  # fmt: skip


def test_what_is_kept_of_long_texts_is_bounded(model, monkeypatch):
    monkeypatch.setattr("blockviz.session.columns.MOST_PIECES", 45)
    found = comparison_of(model)
    assert len(found.pieces) == 2 == len(found.columns[1].token_nll)
    assert len(found.columns[1].window_nll) == 5


def test_answers_are_those_of_each_variant_alone(model):
    tasks = (questions(12), replace(questions(8, seed=3), name="other", has_acc_norm=False))
    found = comparison_of(model, "mean", tasks=tasks)
    repair = run(fit(model, PLAN, parse_method(CORRECTIONS, "mean"), FIT))
    variants = {"original": model, "none": model.prune(PLAN), "mean": repaired_model(model, repair)}
    for column in found.columns:
        for task in tasks:
            alone = run(score_choices(variants[column.label], task))
            by_length, answers = task.has_acc_norm, column.answers[task.name]
            assert answers.accuracy == (alone.acc_norm if by_length else alone.acc)
            right = alone.correct_norm if by_length else alone.correct
            rows = found.questions[task.name]
            asked = zip(answers.taken, rows, strict=True)
            assert tuple(taken == row.answer for taken, row in asked) == right
    assert found.columns[1].timing is None and found.timed == ""
    assert Comparison.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_question_is_shown_as_it_is_asked():
    rows = (
        TaskRow("a", "choices", "Q" * 700, ("one", "two"), 1),
        TaskRow("b", "choices", "2 + 2?", ("long four", "long five"), 0, options=("A", "B")),
    )
    shown = questions_of([TaskSet("t", "test", rows)])["t"]
    assert shown[0].text == "… " + "Q" * 600 and shown[1].choices == ("A", "B")
    held = TaskRow("c", "contexts", "", ("He ate", "She ate"), 1, continuation="fish")
    assert questions_of([TaskSet("t", "test", (held,))])["t"][0].text == "… fish"
    said = TaskRow("d", "target", "The sea is", ("blue",), 0, continuation="blue")
    assert questions_of([TaskSet("t", "test", (said,))])["t"][0].choices == ("blue",)


def made(taken: dict[str, tuple[int, ...]], accuracy: dict[str, float]) -> ComparisonColumn:
    answers = {n: TaskAnswers(t, accuracy[n], 0.0) for n, t in taken.items()}
    return ComparisonColumn("original", "o", (1.0,), answers=answers)


def test_flips_and_retention_by_hand_T_RET_1():
    """Task a: right is 0, 1, 1; the original says 0, 1, 0, the plan 1, 1, 1: one lost, one won.
    Accuracies 0.5 and 0.8 fall to 0.25 and 0.6: shares 0.5 and 0.75, mean 0.625; of the means
    0.425 / 0.65. The original keeps all of itself by either."""
    rows = tuple(Question("q", ("x", "y"), n) for n in (0, 1, 1))
    whole = made({"a": (0, 1, 0), "b": ()}, {"a": 0.5, "b": 0.8})
    cut = replace(made({"a": (1, 1, 1), "b": ()}, {"a": 0.25, "b": 0.6}), label="none")
    provenance = Provenance(None, "m", "r", "", "float32", "cpu", 1, {})
    found = Comparison(
        provenance, provenance, PLAN.removed, ("original", "none"), (whole, cut), "", 1,
        questions={"a": rows, "b": ()},
    )  # fmt: skip
    assert found.flips(cut, "a") == ((0,), (2,)) and found.flips(whole, "a") == ((), ())
    assert found.flips(cut, "c") == ((), ())
    assert found.retention(cut) == pytest.approx((0.625, 0.425 / 0.65))
    assert found.retention(whole) == (1.0, 1.0)
    nothing = replace(whole, answers={"a": TaskAnswers((1, 0, 0), 0.0, 0.0)})
    assert replace(found, columns=(nothing, cut)).retention(cut) is None
    assert replace(found, questions={}).retention(cut) is None


def test_columns_are_timed_in_turns_and_only_if_asked(model):
    events = events_of(model, "mean", is_timed=True)
    found = events[-1].result
    assert any(event.stage == "timing" for event in events[:-1])
    for column in found.columns:
        assert column.timing.prefill > 0 and column.timing.decode > 0
        low, high = column.timing.decode_speedup[1:]
        assert low <= column.timing.decode_speedup[0] <= high
    assert found.columns[0].timing.decode_speedup == (1.0, 1.0, 1.0)
    assert "64 tokens after a prompt of 64" in found.timed
    assert Comparison.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_tasks_are_held_to_the_limits_of_the_server(model):
    hosted = Limits(task_rows=20, bundled_only=True)
    for tasks, limit in ((("arc_easy",), 21), (("arc_easy",), None), (("mine.jsonl",), 5)):
        with pytest.raises(OverLimit):
            check_compare(model, replace(asked(), tasks=tasks, limit=limit), hosted)
    check_compare(model, replace(asked(), tasks=("arc_easy",), limit=20), hosted)


def test_a_perplexity_that_is_no_number_is_a_refused_column(model):
    broken = tiny.model("llama")
    with torch.no_grad():
        broken.layers[3].mlp.down_proj.weight[0, 0] = math.inf
    found = comparison_of(broken, "mean")
    assert all(column.refused and not column.window_nll for column in found.columns)
    assert "original model" in found.columns[0].refused
    assert "correction mean" in found.columns[2].refused


# -- multiply-adds --


def test_multiply_adds_of_a_tiny_llama_by_hand(model):
    """Hidden 32, 4 heads of 8 and 2 for keys and values, inner 48, 64 words, 4 layers.

    Attention: q 32*32, k and v 32*16 each, o 32*32 = 3072. MLP: 3 * 32*48 = 4608. Head: 32*64 =
    2048. Attention reads a key and a value of 4 heads of 8 for each position: 64 a block.
    """
    whole = multiply_adds(model)
    assert (whole.weights, whole.per_position) == (4 * (3072 + 4608) + 2048, 4 * 64)
    cut = multiply_adds(model, PLAN.removed)
    assert (cut.weights, cut.per_position) == (3 * (3072 + 4608) + 2048, 3 * 64)
    assert multiply_adds(model, tiny.ids("1.layer")).weights == cut.weights


def test_a_pruned_model_and_a_masked_one_cost_the_same(model):
    for case in ("gpt2", "gemma3", "neox", "qwen3"):
        found = tiny.model(case)
        assert multiply_adds(found.prune(PLAN)) == multiply_adds(found, PLAN.removed)


def test_multiply_adds_of_gpt2_by_hand():
    """Conv1D: 32*96 + 32*32 and 2 * 32*128 a layer; its head is the embedding, a product still."""
    assert multiply_adds(tiny.model("gpt2")).weights == 4 * (4096 + 8192) + 2048


def test_a_head_size_of_its_own_counts():
    """Qwen3 here: 4 heads of 16 in a hidden size of 32."""
    assert multiply_adds(tiny.model("qwen3")).per_position == 4 * 2 * 4 * 16


@pytest.mark.parametrize(("name", "more"), [("mean", 0), ("ridge", 2 * 32 * 32), ("replaceme", 0)])
def test_a_repair_costs_its_own_maps(model, name, more):
    repair = run(fit(model, PLAN, parse_method(CORRECTIONS, name), FIT))
    bare = multiply_adds(model, PLAN.removed)
    found = multiply_adds(repaired_model(model, repair))
    assert found == replace(bare, weights=bare.weights + more)


def test_matrices_of_another_kind_are_not_counted_at_all():
    found = tiny.model("llama")
    found.layers[0].mlp.experts = torch.nn.Parameter(torch.zeros(2, 3, 4))
    assert multiply_adds(found) is None
    assert multiply_adds(found, tiny.ids("0.mlp")) is not None
    column = comparison_of(found).columns[0]
    assert column.multiply_adds is None and column.window_nll


# -- requests --


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (asked("glue"), UnknownName, "glue"),
        (asked("mean", "asc", "ridge"), BadInput, "At most 2"),
        (asked("mean", plan=tiny.plan()), BadInput, "plan removes nothing"),
        (asked(plan=tiny.plan()), BadInput, "plan removes nothing"),
        (asked("mean", plan=tiny.plan("7.mlp")), BadPlan, "layers 0 to 3"),
        (asked(n_new=0), BadInput, "0 new tokens"),
        (asked(prompt=""), BadInput, "no token"),
        (asked(n_new=62), BadInput, "at most 64"),
        (asked(evaluation=ScoreRequest(seq_len=1)), BadInput, "least is 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_compared_says_so(model, request_, error, message):
    with pytest.raises(error, match=message):
        check_compare(model, request_, Limits())


def test_settings_are_all_but_the_plan():
    request = asked("mean")
    assert asked("mean", plan=tiny.plan("0.mlp")).settings == request.settings
    for other in (asked("asc"), asked("mean", prompt="w1"), asked("mean", n_new=7),
                  asked("mean", n_held=0), replace(request, is_chat=True)):  # fmt: skip
        assert other.settings != request.settings


# -- the job --


@pytest.fixture
def engine(model):
    live = {(): run(measure_perplexity(model, OTHER))}
    scores = run(score_windows(model, OTHER, {}, ScoreRequest()))
    made = Engine(example=Example(model.info, scores, OTHER.origin, live, (), None))
    made._model, made._live = model, LiveText(model, OTHER, made.store, None)
    yield made
    made.close()


TEXT = ScoreRequest(calibration="own", n_samples=6, seq_len=16)
HOW = {"text": TEXT, "n_held": 2, "evaluation": replace(TEXT, n_samples=3)}
OWN = asked("mean", "replaceme", **HOW)


def test_a_compare_job_ends_in_columns(engine):
    view = engine.jobs.wait(engine.start_compare(OWN, owner="me"), 60)
    assert view.state == "done", view.error
    found = engine.comparison(view.result["compare_key"])
    assert [c.label for c in found.columns] == ["original", "none", "mean", "replaceme"]
    assert found.evaluation.data.role == "evaluation" and found.settings == OWN.settings
    assert found.provenance.data.n_samples == 6 and not found.is_partial
    assert engine.comparison("forgotten") is None
    # Another plan is kept beside it.
    other = replace(OWN, repair=replace(OWN.repair, plan=tiny.plan("0.mlp")))
    view = engine.jobs.wait(engine.start_compare(other, owner="me"), 60)
    assert engine.comparison(view.result["compare_key"]).removed == other.repair.plan.removed
    assert found.removed == PLAN.removed


def test_none_twice_compares_the_plan_with_the_original(engine):
    view = engine.jobs.wait(engine.start_compare(asked("none", "none", **HOW), owner="me"), 60)
    assert engine.comparison(view.result["compare_key"]).asked == ("original", "none")


def test_hosted_limits_hold_for_texts_prompt_and_new_tokens(engine, model):
    limits = Limits(n_samples=8, seq_len=64, max_prompt_chars=20, max_prompt_tokens=4,
                    max_new_tokens=8, bundled_only=True, heavy_per_address=1)  # fmt: skip
    hosted = Engine(example=engine.example, limits=limits)
    hosted._model, hosted._live = model, engine._live
    for change, message in (
        ({"n_skip": 1}, "9 windows were asked for"),
        ({"evaluation": replace(TEXT, calibration="c4")}, "bundled texts only"),
        ({"prompt": "w1 " * 7}, "characters in the prompt"),
        ({"prompt": "w1 w1 w1 w1 w1"}, "tokens in the prompt"),
        ({"n_new": 9}, "new tokens"),
    ):
        with pytest.raises(OverLimit, match=message):
            hosted.start_compare(asked("mean", **{**HOW, **change}), owner="me", address="1.2.3.4")
    view = hosted.jobs.wait(hosted.start_compare(OWN, owner="me", address="1.2.3.4"), 60)
    assert view.state == "done", view.error
    with pytest.raises(OverLimit, match="1 of 1 an hour"):
        hosted.start_compare(OWN, owner="me", address="1.2.3.4")
    hosted.close()
