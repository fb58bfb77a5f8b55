"""Accuracy on tasks: worked by hand, by a plain loop, and by the public harness's own numbers."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import tiny
import torch

from blockviz.data import load_tasks
from blockviz.data.pairs import encode_pair, special_prefix
from blockviz.errors import BadInput
from blockviz.evaluate import ChoiceResult, accuracy, score_choices, score_removals
from blockviz.models.model import BlockModel
from blockviz.models.stage import Head
from blockviz.types import Done, Progress, TaskRow, TaskSet, run

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ["llama", "qwen3", "gemma3-softcap", "gpt2", "neox"]


def words(n: int, source: random.Random) -> str:
    return " ".join(f"w{source.randrange(1, tiny.VOCAB)}" for _ in range(n))


def questions(n: int = 6, n_options: int = 3, *, mode: str = "choices", seed: int = 0) -> TaskSet:
    """Random words: contexts of 2 to 12, options of 1 to 5."""
    source = random.Random(seed)
    rows = []
    for i in range(n):
        query = words(source.randint(2, 12), source)
        options = [words(source.randint(1, 5), source) for _ in range(n_options)]
        continuation = None
        if mode == "contexts":
            options, continuation = [f"{query} {o}" for o in options], words(3, source)
        if mode == "target":
            options, continuation = options[:1], options[0]
        answer = source.randrange(len(options))
        rows.append(TaskRow(f"q{i}", mode, query, tuple(options), answer, continuation))
    return TaskSet("random", "none", tuple(rows))


def result_of(rows: list[list[float]], tasks: TaskSet, *, greedy: bool = False) -> ChoiceResult:
    return ChoiceResult(tasks, tuple(map(tuple, rows)), (greedy,) * len(rows), add_bos=False)


def by_plain_loop(model: BlockModel, tasks: TaskSet, *removed: str) -> list[list[float]]:
    """One forward of the library's own model an option; float64 log-softmax; words counted here."""
    found = []
    for row in tasks.rows:
        contexts = row.choices if row.mode == "contexts" else [row.query] * len(row.choices)
        texts = row.choices if row.mode == "choices" else [row.continuation] * len(row.choices)
        sums = []
        for context, text in zip(contexts, texts, strict=True):
            ids = [int(w[1:]) for w in f"{context} {text}".split()]
            with torch.no_grad(), model.masked(tiny.ids(*removed)):
                logits = model.module(input_ids=torch.tensor([ids])).logits[0].double()
            logs = logits.log_softmax(dim=-1)
            start = len(context.split())
            sums.append(sum(logs[i - 1, ids[i]].item() for i in range(start, len(ids))))
        found.append(sums)
    return found


def assert_equal(found: ChoiceResult, expected: list[list[float]], rel: float = 1e-5) -> None:
    for ours, theirs in zip(found.loglikelihoods, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=rel)


# ---------------------------------------------------------------- numbers about answers, by hand


def test_accuracies_and_their_errors_by_hand():
    # Sums: row 0 takes option 0 (right), row 1 option 1 (wrong), row 2 option 0 (wrong), row 3
    # option 1 (right). Per character (2 and 4 of them): row 0 -2/2 < -3/4 takes 1 (wrong), row 1
    # -4/2 < -3/4 takes 1 (wrong), row 2 -1/2 > -8/4 takes 0 (wrong), row 3 -9/2 < -1/4 (right).
    answers = enumerate((0, 0, 1, 1))
    rows = tuple(TaskRow(str(i), "choices", "q", ("ab", "abcd"), a) for i, a in answers)
    tasks = TaskSet("t", "none", rows)
    found = result_of([[-2, -3], [-4, -3], [-1, -8], [-9, -1]], tasks)
    assert found.correct == (True, False, False, True)
    assert found.correct_norm == (False, False, False, True)
    assert (found.acc, found.acc_norm, accuracy(found)) == (0.5, 0.25, 0.5)
    assert found.stderr == pytest.approx(math.sqrt(0.5 * 0.5 / 4))
    assert found.acc_norm_stderr == pytest.approx(math.sqrt(0.25 * 0.75 / 4))
    assert found.perplexity is None


def test_a_change_is_paired():
    # Of four answers one turns right and two turn wrong: mean -1/4, spread 3/4 - 1/16 = 11/16.
    rows = tuple(TaskRow(str(i), "choices", "q", ("a", "b"), 0) for i in range(4))
    tasks = TaskSet("t", "none", rows)
    right, wrong = [-1, -2], [-2, -1]
    before = result_of([right, right, wrong, right], tasks)
    after = result_of([wrong, wrong, right, right], tasks)
    assert after.change_from(before) == pytest.approx((-0.25, math.sqrt(11 / 16 / 4)))
    assert before.change_from(before) == (0, 0)
    with pytest.raises(ValueError, match="zip"):
        after.change_from(result_of([right], tasks.head(1)))


def test_a_target_is_right_when_it_is_what_greedy_decoding_writes():
    rows = tuple(TaskRow(str(i), "target", "q", ("w1",), 0, "w1") for i in range(2))
    found = result_of([[-math.log(2)], [-math.log(8)]], TaskSet("t", "none", rows), greedy=True)
    assert found.acc == 1 and found.acc_norm is None
    assert found.perplexity == pytest.approx(4)  # exp of the mean of ln 2 and ln 8


def test_what_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        result_of([[math.nan, 0]], questions(1, 2))


# ---------------------------------------------------------------- log-likelihoods


@pytest.mark.parametrize("mode", ["choices", "contexts", "target"])
@pytest.mark.parametrize("case", FAMILIES)
def test_every_option_is_that_of_a_plain_loop(case: str, mode: str):
    model, tasks = tiny.model(case), questions(mode=mode)
    for removed in ((), ("1.attn", "2.mlp"), ("0.layer",)):
        found = run(score_choices(model, tasks, removed=tiny.ids(*removed)))
        assert_equal(found, by_plain_loop(model, tasks, *removed))


def test_greedy_is_that_of_a_plain_loop():
    """Two of the targets are what the model itself writes; a third differs in its last word."""
    model, tasks = tiny.model("llama"), questions(4, mode="target", seed=5)
    rows = list(tasks.rows)
    for i in (0, 1, 2):
        ids = [int(w[1:]) for w in rows[i].query.split()]
        for _ in range(3):
            ids.append(int(model.module(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        ids[-1] = (ids[-1] + (i == 1)) % tiny.VOCAB
        written = " ".join(f"w{n}" for n in ids[-3:])
        rows[i] = replace(rows[i], choices=(written,), continuation=written)
    found = run(score_choices(model, replace(tasks, rows=tuple(rows))))
    assert found.correct == found.is_greedy == (True, False, True, False)
    assert found.acc == 0.5


def test_T_MC_1_identical_options_tie_and_the_first_counts():
    model = tiny.model("llama")
    row = TaskRow("same", "choices", "w1 w2 w3", ("w5 w6 w7",) * 4, 0)
    # Others of the same and other lengths in the batch, which could part equals in the last bit.
    rows = (row, *questions(20).rows, replace(row, id="again", answer=1))
    found = run(score_choices(model, TaskSet("t", "none", rows)))
    first, last = found.loglikelihoods[0], found.loglikelihoods[-1]
    assert len({*first, *last}) == 1
    assert (found.correct[0], found.correct[-1]) == (True, False)
    assert (found.correct_norm[0], found.correct_norm[-1]) == (True, False)


def test_T_MC_2_a_random_model_answers_one_in_m():
    """Over 400 questions of 4 options of equal length; within four standard errors."""
    source = random.Random(7)
    rows = tuple(
        TaskRow(
            f"q{i}",
            "choices",
            words(6, source),
            tuple(words(2, source) for _ in range(4)),
            source.randrange(4),
        )
        for i in range(400)
    )
    found = run(score_choices(tiny.model("llama"), TaskSet("t", "none", rows)))
    assert abs(found.acc - 1 / 4) < 4 * math.sqrt(0.25 * 0.75 / 400)


def test_T_MC_3_options_of_equal_length_give_equal_accuracies():
    source = random.Random(3)
    rows = tuple(
        TaskRow(
            f"q{i}",
            "choices",
            words(5, source),
            tuple(f"w{source.randrange(10, 60)} w{source.randrange(10, 60)}" for _ in range(3)),
            source.randrange(3),
        )
        for i in range(40)
    )
    found = run(score_choices(tiny.model("gpt2"), TaskSet("t", "none", rows)))
    assert found.correct_norm == found.correct
    # And not for want of a difference: options of unequal length part the two.
    uneven = run(score_choices(tiny.model("gpt2"), questions(40)))
    assert uneven.correct_norm != uneven.correct


@pytest.mark.parametrize("case", FAMILIES)
def test_T_MC_4_batches_and_padding_change_nothing(case: str):
    model, tasks, removed = tiny.model(case), questions(12), tiny.ids("1.mlp", "3.attn")
    at_once = run(score_choices(model, tasks, removed=removed, batch_tokens=4096))
    one_by_one = run(score_choices(model, tasks, removed=removed, batch_tokens=1))
    backwards = replace(tasks, rows=tasks.rows[::-1])
    turned = run(score_choices(model, backwards, removed=removed, batch_tokens=50))
    assert_equal(at_once, [list(row) for row in one_by_one.loglikelihoods])
    assert_equal(turned, [list(row) for row in at_once.loglikelihoods[::-1]])
    assert at_once.correct == one_by_one.correct == turned.correct[::-1]


@pytest.mark.parametrize("case", FAMILIES)
def test_removals_are_those_of_one_run_each(case: str):
    """In any order, blocks and layers mixed, on top of a plan that already lacks some."""
    model, tasks, removed = tiny.model(case), questions(8), tiny.ids("1.attn")
    candidates = tiny.ids("3.mlp", "0.attn", "2.layer", "1.mlp", "0.mlp")
    found = run(score_removals(model, tasks, candidates, removed=removed, batch_tokens=40))
    assert set(found.without) == set(candidates)
    alone = run(score_choices(model, tasks, removed=removed, batch_tokens=40))
    assert found.plan == alone
    for candidate, result in found.without.items():
        expected = by_plain_loop(model, tasks, "1.attn", str(candidate))
        assert_equal(result, expected)
        assert result.loglikelihoods != alone.loglikelihoods


def test_options_of_one_word_cost_one_row(monkeypatch: pytest.MonkeyPatch):
    """And the head runs on the scored positions only."""
    model, seen = tiny.model("llama"), []
    forward = model.layers[0].forward

    def counted(hidden, *args, **kwargs):
        seen.append(tuple(hidden.shape[:2]))
        return forward(hidden, *args, **kwargs)

    monkeypatch.setattr(model.layers[0], "forward", counted)
    row = TaskRow("q", "choices", "w1 w2 w3", ("w4", "w5", "w6"), 0)
    rows = []
    logits = Head.logits
    monkeypatch.setattr(Head, "logits", lambda head, x: rows.append(len(x)) or logits(head, x))
    found = run(score_choices(model, TaskSet("t", "none", (row,))))
    assert seen == [(1, 3)]
    assert sum(rows) == 3
    assert len(set(found.loglikelihoods[0])) == 3


def test_a_text_longer_than_the_context_loses_its_beginning():
    """The context holds 64, so of each text the last 65 words count, one of them never read."""
    model, source = tiny.model("gpt2"), random.Random(1)
    long = TaskRow("long", "choices", words(70, source), (words(2, source), words(1, source)), 0)
    found = run(score_choices(model, TaskSet("t", "none", (long,))))
    assert found.n_cut == 2
    for choice, loglikelihood in zip(long.choices, found.loglikelihoods[0], strict=True):
        ids = [int(w[1:]) for w in f"{long.query} {choice}".split()][-65:]
        n = len(choice.split())
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([ids[:-1]])).logits[0, -n:].double()
        logs = logits.log_softmax(dim=-1)
        expected = sum(logs[i, token].item() for i, token in enumerate(ids[-n:]))
        assert loglikelihood == pytest.approx(expected, rel=1e-5)
    short = run(score_choices(model, questions()))
    assert short.n_cut == 0


def test_an_option_that_the_context_cannot_hold_is_refused():
    row = TaskRow("q", "choices", "w1", (" ".join(["w2"] * 65), "w3"), 0)
    with pytest.raises(BadInput, match=r"row q .* 65 tokens long, and it must be 1 to 64"):
        run(score_choices(tiny.model("llama"), TaskSet("t", "none", (row,))))


def test_partial_results_are_those_of_the_first_rows():
    model, tasks = tiny.model("llama"), questions(30)
    *steps, last = score_choices(model, tasks, batch_tokens=16)
    assert all(isinstance(step, Progress) for step in steps) and isinstance(last, Done)
    partial = [step.partial for step in steps if step.partial is not None]
    sizes = sorted({found.n for found in partial})
    assert len(sizes) > 1 and sizes[-1] < 30
    for found in partial:
        assert found.loglikelihoods == last.result.loglikelihoods[: found.n]
        assert found.tasks == tasks.head(found.n)
        assert found.tasks.n_available == 30
    assert [step.done for step in steps if step.total] == sorted(
        step.done for step in steps if step.total
    )


def test_other_plans_may_run_between_two_batches():
    model, tasks = tiny.model("gemma3"), questions(8)
    removed = tiny.ids("1.attn")
    expected = run(score_choices(model, tasks, removed=removed, batch_tokens=32))
    whole = model.logits(tiny.batch())
    for event in score_choices(model, tasks, removed=removed, batch_tokens=32):
        assert torch.equal(model.logits(tiny.batch()), whole)
        if isinstance(event, Done):
            assert event.result == expected


# ---------------------------------------------------------------- contexts and continuations


class Letters:
    """A tokenizer of characters that writes "ab" as one token, and BOS 1 in front, EOS 2 behind."""

    bos_token_id: int | None = 1
    eos_token_id: int | None = 2

    def __init__(self, *, adds: bool = True) -> None:
        self.adds = adds

    def __call__(self, text: str, *, add_special_tokens: bool = True, **_: object) -> dict:
        ids = [9 if c == "\1" else ord(c) for c in text.replace("ab", "\1")]
        is_dressed = add_special_tokens and self.adds
        return {"input_ids": [1, *ids, 2] if is_dressed else ids}


def test_the_continuation_is_what_lies_behind_the_context():
    # "xa" + "bc" is read as x, ab, c: the context alone is 2 tokens, so c is all that is left.
    assert encode_pair(Letters(), "xa", "bc", ()) == ([ord("x"), 9], [ord("c")])


def test_spaces_at_the_end_of_the_context_go_to_the_continuation():
    before, after = encode_pair(Letters(), "x  ", " y", (1,))
    assert (before, after) == ([1, ord("x")], [ord(c) for c in "   y"])


def test_without_a_context_bos_or_eos_stands_in():
    tokenizer = Letters(adds=False)
    assert encode_pair(tokenizer, "", " y", ()) == ([1], [ord(" "), ord("y")])
    tokenizer.bos_token_id = None
    assert encode_pair(tokenizer, "", " y", ()) == ([2], [ord(" "), ord("y")])
    tokenizer.eos_token_id = None
    with pytest.raises(BadInput, match="neither a BOS nor an EOS"):
        encode_pair(tokenizer, "", " y", ())


def test_the_prefix_is_the_tokenizers_default_unless_it_is_set():
    assert special_prefix(Letters()) == (1,)  # and not what stands behind the text
    assert special_prefix(Letters(adds=False)) == ()
    assert special_prefix(Letters(adds=False), add_bos=True) == (1,)
    assert special_prefix(Letters(), add_bos=False) == ()
    with pytest.raises(BadInput, match="tokenizer has none"):
        special_prefix(tiny.tokenizer(), add_bos=True)


def test_a_bos_token_is_read_and_reported():
    model, tasks = tiny.model("llama"), questions(3)
    model.tokenizer.bos_token = "w9"
    bare = run(score_choices(model, tasks))
    found = run(score_choices(model, tasks, add_bos=True))
    assert (bare.add_bos, found.add_bos) == (False, True)
    longer = [replace(row, query=f"w9 {row.query}") for row in tasks.rows]
    assert_equal(found, by_plain_loop(model, replace(tasks, rows=tuple(longer))))


# ---------------------------------------------------------------- the harness's own numbers

# Source: lm-evaluation-harness 0.4.13, HFLM.loglikelihood in float32 on the weights that blockviz
# calls `demo`. Task -> row -> log-likelihood of every option.
HARNESS: dict[str, dict[str, tuple[float, ...]]] = {
    "piqa": {
        "piqa-valid-0052": (-37.17119, -35.15844),
        "piqa-valid-0991": (-48.59385, -53.46058),
        "piqa-valid-0443": (-47.84945, -79.13087),
        "piqa-valid-1350": (-106.3618, -74.76012),
        "piqa-valid-1341": (-42.40248, -44.85059),
        "piqa-valid-0477": (-137.5061, -99.56693),
    },
    "arc_easy": {
        "MCAS_2004_9_21": (-10.70874, -14.67986, -14.41843, -11.35397),
        "MCAS_2001_5_19": (-13.85469, -13.7266, -9.44628, -12.18448),
        "NYSEDREGENTS_2013_8_14": (-12.91281, -10.5123, -13.48732, -13.67481),
        "Mercury_7115098": (-11.60785, -30.3232, -26.93174, -24.15773),
        "MCAS_2009_5_6511": (-25.18414, -24.94566, -19.96424, -19.98005),
        "Mercury_SC_405883": (-24.07564, -19.06658, -22.05964, -17.55748),
    },
    "hellaswag": {
        "hellaswag-val-02875-44050": (-43.70896, -47.25938, -64.89491, -45.38136),
        "hellaswag-val-01008-14452": (-30.98133, -62.29605, -35.7414, -43.14053),
        "hellaswag-val-00548-7646": (-49.12223, -85.57298, -94.99439, -80.6339),
        "hellaswag-val-00925-12878": (-42.01455, -87.54896, -92.13527, -76.87092),
        "hellaswag-val-00232-2923": (-94.37372, -67.62405, -85.88439, -119.76294),
        "hellaswag-val-01446-21409": (-164.22989, -41.93329, -33.2169, -59.56998),
    },
    "winogrande": {
        "winogrande-xl-valid-0777": (-9.26476, -9.52981),
        "winogrande-xl-valid-0108": (-19.68066, -19.45362),
        "winogrande-xl-valid-0498": (-10.20212, -9.8213),
        "winogrande-xl-valid-0099": (-25.31616, -25.97208),
        "winogrande-xl-valid-1019": (-19.35598, -19.53983),
        "winogrande-xl-valid-0453": (-16.11353, -15.77317),
    },
    "boolq": {
        "boolq-valid-2805": (-3.0696, -4.43414),
        "boolq-valid-0284": (-1.27929, -3.42094),
        "boolq-valid-0077": (-3.27204, -4.04994),
        "boolq-valid-1435": (-2.19893, -4.17747),
        "boolq-valid-0747": (-2.91, -4.20192),
        "boolq-valid-2913": (-1.6702, -3.68103),
    },
    "openbookqa": {
        "9-461": (-25.43218, -35.49412, -31.57017, -19.40054),
        "1457": (-22.04405, -20.83657, -26.82841, -20.81162),
        "9-18": (-42.48532, -16.98837, -36.66113, -30.6621),
        "8-471": (-29.38029, -30.01629, -35.50632, -29.27922),
        "9-686": (-15.10774, -27.91876, -15.90135, -15.65082),
        "8-35": (-46.39326, -37.043, -39.09602, -48.64014),
    },
}


@pytest.mark.network
@pytest.mark.parametrize("name", HARNESS)
def test_the_demo_models_log_likelihoods_are_the_harnesss(demo_float32: BlockModel, name: str):
    whole = run(load_tasks(name))
    rows = {row.id: row for row in whole.rows}
    tasks = replace(whole, rows=tuple(rows[row_id] for row_id in HARNESS[name]))
    found = run(score_choices(demo_float32, tasks))
    assert found.add_bos is False  # this model's tokenizer has a BOS token and does not use it
    for ours, theirs in zip(found.loglikelihoods, HARNESS[name].values(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
