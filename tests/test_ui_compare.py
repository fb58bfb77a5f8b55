"""The Compare tab without a browser: forged values, states, and what is drawn."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
from fake_compare import growing_comparison, make_comparison
from fake_engine import HOSTILE, FakeEngine
from fake_repair import CORRECTIONS, make_repair

from blockviz.errors import BadInput, BlockvizError
from blockviz.job_view import JobView
from blockviz.session import ScoreRequest, Visitor
from blockviz.session.compare_views import CompareRequest
from blockviz.session.repair_views import RepairRequest
from blockviz.types import Comparison
from blockviz.ui import compare_cards
from blockviz.ui.compare_form import FORM, choices, request_of, said, usual
from blockviz.ui.compare_handlers import DESCRIBED, OFFERED, OUTPUTS, CompareHandlers
from blockviz.ui.compare_view import NOT_YET, NOTHING_CUT
from blockviz.ui.figure_card import card_names
from blockviz.ui.found import MOST_COMPARISONS, step_of, with_found
from blockviz.ui.job_handlers import NO_JOBS, JobHandlers
from blockviz.ui.screen import Call, to_outputs
from blockviz.ui.turns import Turns

GOOD = {
    "compare_a": "writer_refit", "compare_b": "asc", "compare_prompt": "Hello", "compare_new": 48,
    "compare_chat": False, "compare_text": "demo", "compare_samples": 48, "compare_seq_len": 512,
    "compare_skip": 0, "compare_held": 8, "compare_seed": 42, "against_text": "demo",
    "against_samples": 16, "against_seq_len": 512, "compare_tasks": [], "compare_rows": 48,
    "compare_timed": False,
}  # fmt: skip
REMOVED = ("18.attn", "7.attn", "7.mlp")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(step=0.0, is_ready=True)


@pytest.fixture
def visitor(engine) -> Visitor:
    return Visitor(model_key=engine.model_key, removed=REMOVED)


@pytest.fixture
def compare(engine) -> CompareHandlers:
    return CompareHandlers(engine, JobHandlers(engine, Turns()))


def form(**changes) -> list:
    assert tuple(GOOD) == FORM
    return list({**GOOD, **changes}.values())


def is_three_sentences(text: str) -> bool:
    return len(re.findall(r"[.!?](?:\s|$)", text)) >= 3


def keep(engine: FakeEngine, visitor: Visitor, key: str = "mine", form_=None, **more) -> Comparison:
    """A comparison of the visitor's plan, as a finished job leaves one."""
    found = make_comparison(engine.info, request_of(engine, visitor, *(form_ or form())), **more)
    engine._comparisons[key] = found
    return found


def owner_of(visitor: Visitor, *keys: str) -> Visitor:
    return replace(visitor, comparisons=keys)


def drawn(compare: CompareHandlers, visitor: Visitor, shown=None, jobs=None, form_=None) -> dict:
    update = compare.draw(Call("s"), visitor, jobs or dict(NO_JOBS), shown, *(form_ or form()))
    to_outputs(OUTPUTS, update)
    return update


def cells(update: dict, name: str) -> list:
    rows = {row["name"]: row["cells"] for row in update["compare_table"]["rows"]}
    return rows[name]


# The form


def test_the_settings_become_the_request_they_show(engine, visitor):
    request = request_of(engine, visitor, *form(
        compare_a="ridge", compare_b="none", compare_prompt="Hi", compare_new=7, compare_chat=True,
        compare_text="own", compare_samples=24, compare_seq_len=256, compare_skip=3,
        compare_held=4, compare_seed=7, against_samples=5, against_seq_len=128,
        compare_tasks=["piqa", "arc_easy"], compare_rows=20, compare_timed=True,
    ))  # fmt: skip
    repair = RepairRequest(
        plan=visitor.plan(), corrections=("ridge", "none"),
        text=ScoreRequest(calibration="own", n_samples=24, seq_len=256, seed=7), n_skip=3,
        n_held=4, evaluation=ScoreRequest(n_samples=5, seq_len=128, seed=7),
    )  # fmt: skip
    assert request == CompareRequest(
        repair, "Hi", 7, is_chat=True, tasks=("piqa", "arc_easy"), limit=20, is_timed=True
    )


FORGED = [
    ("compare_a", None), ("compare_a", "nope"), ("compare_a", ["asc"]), ("compare_a", "all"),
    ("compare_b", "auto"), ("compare_b", "ridge:ridge=0.01"), ("compare_b", 3),
    ("compare_prompt", None), ("compare_prompt", ["x"]), ("compare_prompt", "x" * 2001),
    ("compare_new", 0), ("compare_new", 129), ("compare_new", "48"), ("compare_new", True),
    ("compare_text", "c4"), ("compare_text", "/etc/passwd"), ("compare_text", "upload"),
    ("compare_samples", 0), ("compare_samples", 65), ("compare_samples", math.nan),
    ("compare_seq_len", 1), ("compare_seq_len", 513), ("compare_skip", -1), ("compare_held", 1.5),
    ("compare_seed", 2**33), ("against_text", None), ("against_samples", math.inf),
    ("against_seq_len", []), ("compare_tasks", ["../x.jsonl"]), ("compare_tasks", "piqa"),
    ("compare_tasks", [["piqa"]]), ("compare_rows", 65), ("compare_rows", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "forged"), FORGED, ids=lambda raw: str(raw)[:24])
def test_forged_settings_start_nothing_and_are_described(name, forged):
    engine = FakeEngine(mode="hosted", is_ready=True, step=0.0)
    compare = CompareHandlers(engine, JobHandlers(engine, Turns()))
    visitor = Visitor(model_key=engine.model_key, removed=REMOVED)
    with pytest.raises(BlockvizError) as caught:
        compare.start(Call("s"), visitor, dict(NO_JOBS), *form(**{name: forged}))
    assert is_three_sentences(str(caught.value))
    assert (engine._jobs, engine.calls) == ({}, [])
    update = compare.describe(Call("s"), visitor, dict(NO_JOBS), None, *form(**{name: forged}))
    to_outputs(DESCRIBED, update)
    assert update["compare_says"]["text"] == str(caught.value)


def test_a_plan_without_cuts_is_not_compared_and_says_where_to_cut(engine, compare):
    nobody = Visitor(model_key=engine.model_key)
    with pytest.raises(BlockvizError, match="Nothing is removed yet"):
        compare.start(Call("s"), nobody, dict(NO_JOBS), *form())
    update = compare.describe(Call("s"), nobody, dict(NO_JOBS), None, *form())
    assert update["start_compare"] == {
        "value": "Nothing is removed yet", "interactive": False, "__type__": "update"
    }  # fmt: skip
    table = update["compare_table"]
    assert (table["empty"], table["to_map"], table["columns"]) == (NOTHING_CUT, True, [])
    assert engine._jobs == {}


@pytest.mark.parametrize(("removed", "said"), [(("3.mlp",), "1 block"), (REMOVED, "3 blocks")])
def test_the_button_counts_what_is_removed(engine, compare, removed, said):
    visitor = Visitor(model_key=engine.model_key, removed=removed)
    update = compare.describe(Call("s"), visitor, dict(NO_JOBS), None, *form())
    assert update["start_compare"]["value"] == f"Compare without {said}"
    assert update["start_compare"]["interactive"]
    table = update["compare_table"]
    assert (table["empty"], table["to_map"]) == (NOT_YET, False)


def test_the_note_says_what_is_fitted_and_measured(engine, visitor):
    words = said(engine, request_of(engine, visitor, *form(compare_skip=2, compare_text="own")))
    fitted = "48 × 512 = 24\u202f576 tokens of Our own short essays, after the first 2"
    assert fitted in words["text"] and "no seed plays a part" in words["text"]
    assert "measured on 16 × 512 of Demo: BoolQ passages, of Wikipedia" in words["text"]
    none = said(engine, request_of(engine, visitor, *form(compare_a="none", compare_b="none")))
    assert "Fitted" not in none["text"] and none["note"] == ""
    twice = said(engine, request_of(engine, visitor, *form(compare_a="asc")))
    assert "one column" in twice["note"]


# What is offered


def with_table(engine: FakeEngine, visitor: Visitor, *names: str) -> Visitor:
    table = make_repair(engine.info, RepairRequest(visitor.plan(), names))
    engine._repairs["repaired"] = table
    return replace(visitor, repairs=("repaired",))


def test_all_corrections_and_none_are_offered_and_two_that_differ_come_first(engine, visitor):
    offered = [label for _, label in choices(engine, visitor)]
    assert offered == [*(card.name for card in CORRECTIONS), "none"]
    assert usual(engine, visitor) == ("writer_refit", "asc")


def test_the_best_of_the_last_repair_is_the_first(engine, visitor):
    who = with_table(engine, visitor, "mean", "replaceme:ridge=0.1", "asc")
    assert usual(engine, who) == ("replaceme:ridge=0.1", "asc")
    assert ("ReplaceMe (ridge=0.1)", "replaceme:ridge=0.1") in choices(engine, who)
    request = request_of(engine, who, *form(compare_a="replaceme:ridge=0.1"))
    assert request.repair.corrections == ("replaceme:ridge=0.1", "asc")
    # One correction is not held against itself.
    engine._repairs["repaired"] = replace(engine._repairs["repaired"], best="asc")
    assert usual(engine, who) == ("asc", "writer_refit")
    # Without a best, or of another model, it is as before.
    engine._repairs["repaired"] = replace(engine._repairs["repaired"], best="")
    assert usual(engine, who)[0] == "writer_refit"
    gone = replace(engine._repairs["repaired"].provenance, model="other")
    engine._repairs["repaired"] = replace(
        engine._repairs["repaired"], provenance=gone, best="replaceme:ridge=0.1"
    )
    assert usual(engine, who)[0] == "writer_refit"


def test_what_was_chosen_by_hand_stays(engine, compare, visitor):
    who = with_table(engine, visitor, "replaceme:ridge=0.1", "mean")
    first = compare.offer(Call("s"), visitor, "writer_refit", "asc", [["writer_refit"], ["asc"]])
    to_outputs(OFFERED, first)
    assert (first["compare_a"]["value"], first["compare_b"]["value"]) == ("writer_refit", "asc")
    moved = compare.offer(Call("s"), who, "writer_refit", "mean", first["compare_offered"])
    assert (moved["compare_a"]["value"], moved["compare_b"]["value"]) == (
        "replaceme:ridge=0.1", "mean"
    )  # fmt: skip
    assert moved["compare_offered"] == [["replaceme:ridge=0.1", "writer_refit"], ["asc"]]
    # Asked for with the fields as they were before that answer had come.
    late = compare.offer(Call("s"), who, "writer_refit", "asc", moved["compare_offered"])
    assert late["compare_a"]["value"] == "replaceme:ridge=0.1"
    # What is no longer there gives way.
    back = compare.offer(Call("s"), visitor, "replaceme:ridge=0.1", "mean", [["x"], ["y"]])
    assert (back["compare_a"]["value"], back["compare_b"]["value"]) == ("writer_refit", "mean")
    for forged in (None, 3, ["a"], "ab", {"a": 1}):
        update = compare.offer(Call("s"), visitor, None, ["x"], forged)
        assert (update["compare_a"]["value"], update["compare_b"]["value"]) == (
            "writer_refit", "asc"
        )  # fmt: skip


# Jobs


def test_a_comparison_starts_one_job_and_a_second_one_waits(engine, compare, visitor):
    engine.step = 1.0
    first = compare.start(Call("s"), visitor, dict(NO_JOBS), *form())
    assert engine.calls == ["compare writer_refit, asc"]
    assert "opened first" in first["compare_note"]["text"]
    with pytest.raises(BadInput, match="still running"):
        compare.start(Call("s"), visitor, first["jobs"], *form())
    engine.cancel(first["jobs"]["own"])


def test_a_plan_of_a_model_that_is_gone_is_not_compared(engine, compare, visitor):
    gone = replace(visitor, model_key="other")
    with pytest.raises(BadInput, match="loaded since"):
        compare.start(Call("s"), gone, dict(NO_JOBS), *form())
    assert engine._jobs == {}


def test_a_poll_shows_columns_as_they_come_and_leaves_the_rest_alone(engine, visitor):
    jobs, request = JobHandlers(engine, Turns()), request_of(engine, visitor, *form())
    parts = list(growing_comparison(engine.info, request))
    engine._comparisons["new"] = parts[0]
    engine._jobs["mine"] = JobView("mine", "compare", "running", partial={"compare_key": "new"})
    state = {**NO_JOBS, "own": "mine"}
    first = jobs.poll(Call("s"), visitor, state, "ppl", "rank")
    assert first["visitor"].comparisons == ("new",)
    assert (first["job"]["found"], first["job"]["step"]) == ("compare", "new 1")
    assert "grid" not in first
    assert "visitor" not in jobs.poll(Call("s"), first["visitor"], state, "ppl", "rank")
    engine._comparisons["new"] = parts[2]
    assert jobs.poll(Call("s"), first["visitor"], state, "ppl", "rank")["job"]["step"] == "new 3"


@pytest.mark.parametrize("state", ["running", "done", "cancelled", "failed"])
def test_every_column_is_there_or_says_that_it_is_not(engine, visitor, state):
    jobs = JobHandlers(engine, Turns())
    request = request_of(engine, visitor, *form())
    parts = list(growing_comparison(engine.info, request))
    engine._comparisons["new"] = (
        make_comparison(engine.info, request) if state == "done" else parts[2]
    )
    found = {"compare_key": "new", "warning": ""}
    kept = {"result": found} if state == "done" else {"partial": found}
    engine._jobs["mine"] = JobView("mine", "compare", state, error="A. B. C.", **kept)
    own = {**NO_JOBS, "own": "mine"}
    who = jobs.poll(Call("s"), visitor, own, "ppl", "rank")["visitor"]
    update = CompareHandlers(engine, jobs).newest(Call("s"), who, own, *form())
    note, table = update["compare_note"]["text"], update["compare_table"]
    expected = {"running": "Comparing: 2 of 4", "done": "", "cancelled": "stopped after 2 of 4",
                "failed": "failed after 2 of 4"}  # fmt: skip
    assert expected[state] in note and bool(note) == (state != "done")
    titles = [column["title"] for column in table["columns"]]
    assert titles == ["Original", "Pruned", "Pruned + Writer refit",
                      "Pruned + Activation statistics"]  # fmt: skip
    tags = [[text for _, text in column["tags"]] for column in table["columns"]]
    waits = {"running": [["now"], ["waits"]], "done": [[], []]}.get(state, [["not run"]] * 2)
    assert tags == [[], [], *waits]
    missing = [[cell is None for cell in row["cells"]] for row in table["rows"]]
    assert missing == [[False, False, state != "done", state != "done"]] * 7
    assert update[card_names("contest")[0]]["title"] == "Every recipe at one size"
    assert update[card_names("comparison_rise")[1]] is not None


def test_nothing_is_drawn_before_there_are_two_columns(engine, visitor, compare):
    request = request_of(engine, visitor, *form())
    for n, part in enumerate(growing_comparison(engine.info, request)):
        engine._comparisons["mine"] = part
        update = drawn(compare, owner_of(visitor, "mine"))
        assert len(update["compare_table"]["columns"]) == 4
        assert (update[card_names("comparison_rise")[1]] is not None) == (n > 1)


def test_the_last_eight_comparisons_are_kept_each_once(engine, visitor):
    found = keep(engine, visitor)
    for i in range(12):
        engine._comparisons[f"c{i}"] = found
        job = JobView("j", "compare", "done", result={"compare_key": f"c{i}"})
        visitor = with_found(engine, visitor, job)
    assert visitor.comparisons == tuple(f"c{i}" for i in range(12 - MOST_COMPARISONS, 12))
    back = with_found(
        engine, visitor, JobView("j", "compare", "done", result={"compare_key": "c7"})
    )
    assert back.comparisons[-1] == "c7" and back.comparisons.count("c7") == 1


@pytest.mark.parametrize("result", [None, "new", {"compare_key": 3}, {"compare_key": "gone"}, {}])
def test_a_result_that_names_nothing_changes_nothing(engine, visitor, result):
    job = JobView("j", "compare", "done", result=result)
    assert with_found(engine, visitor, job) is visitor
    assert step_of(engine, job) == {}


# The table


def test_numbers_of_a_column_by_hand(engine, compare, visitor):
    """Nats 1.9 and 2.1: e^2 = 7.39, error 0.1 nats; 0.5 nats above the original are 64.9 %."""
    found = keep(engine, visitor)
    whole, bare, a, b = found.columns
    sizes = {"n_parameters": 75_000_000, "multiply_adds": 60_000_000, "per_position": 4_000,
             "kv_bytes": 1024}  # fmt: skip
    columns = (
        replace(whole, window_nll=(1.4, 1.6), n_parameters=100_000_000,
                multiply_adds=80_000_000, per_position=5_000, kv_bytes=2048),
        replace(bare, window_nll=(2.4, 2.6), **sizes),
        replace(a, window_nll=(1.9, 2.1), **sizes),
        replace(b, window_nll=(2.6, 2.8), n_added=1_500_000, **sizes),
    )  # fmt: skip
    engine._comparisons["mine"] = replace(found, columns=columns)
    update = drawn(compare, owner_of(visitor, "mine"))
    text = {"Perplexity": "7.39 ± 0.74", "Change to original": "+64.9\u202f%",
            "Parameters left": "75.0\u202fM", "Multiply-adds a token": "60.0\u202fM",
            "KV cache a token": "1\u202fKiB", "Export": "goes into a stock checkpoint"}  # fmt: skip
    assert {name: cells(update, name)[2]["main"] for name in text} == text
    small = {"Change to original": "closes 50.0\u202f% of the gap",
             "Parameters left": "−25.0\u202f%",
             "Multiply-adds a token": "−25.0\u202f%, and 4\u202fk a position",
             "KV cache a token": "−50.0\u202f%",
             "Export": "as weights of surviving blocks"}  # fmt: skip
    assert {name: cells(update, name)[2]["small"] for name in small} == small
    assert cells(update, "Change to original")[0]["main"] == "–"
    assert cells(update, "Change to original")[3]["small"] == "worse than doing nothing"
    assert cells(update, "Export")[0]["main"] == "is a stock checkpoint"
    assert cells(update, "Export")[3] == {
        "main": "needs modules of its own", "small": "+1.5\u202fM parameters"
    }  # fmt: skip
    assert "1.5\u202fM of them added" in cells(update, "Parameters left")[3]["small"]
    assert json.dumps(update["compare_table"])


def test_every_row_says_whether_it_is_measured_and_on_what(engine, compare, visitor):
    keep(engine, visitor)
    table = drawn(compare, owner_of(visitor, "mine"))["compare_table"]
    kinds = [re.match(r"Measured|Counted|As the correction", r["source"]) for r in table["rows"]]
    assert all(kinds)
    first, last = table["rows"][0]["source"], table["rows"][-1]
    for part in ("8\u202f176 tokens", "Wikipedia passages", "seed 42", "bf16"):
        assert part in first
    assert "Greedy, at most 48" in last["source"] and last["prompt"] == "Hello"
    for part in ("SmolLM2", "bfloat16", "evaluation part", "fitted on", "24\u202f528 positions"):
        assert part in table["note"]
    assert "3 blocks: 18.attn, 7.layer" in table["lead"]


def test_answers_and_speed_have_rows_only_where_they_were_asked_for(engine, compare, visitor):
    keep(engine, visitor)
    plain = drawn(compare, owner_of(visitor, "mine"))
    names = [row["name"] for row in plain["compare_table"]["rows"]]
    assert not {"piqa", "Accuracy kept", "Writes"} & set(names)
    assert plain["flips"]["tasks"] == []
    with_tasks = form(compare_tasks=["piqa"], compare_rows=20, compare_timed=True)
    found = keep(engine, visitor, form_=with_tasks)
    update = drawn(compare, owner_of(visitor, "mine"), form_=with_tasks)
    whole, bare = found.columns[:2]
    lost, won = found.flips(bare, "piqa")
    accuracy = cells(update, "piqa")
    assert accuracy[0]["small"] == "" and accuracy[0]["main"].startswith(
        f"{100 * whole.answers['piqa'].accuracy:.1f} ± "
    )
    assert accuracy[1]["small"] == f"{len(lost)} lost, {len(won)} won"
    share = bare.answers["piqa"].accuracy / whole.answers["piqa"].accuracy
    assert cells(update, "Accuracy kept")[1]["main"].startswith(f"{100 * share:.1f}")
    assert cells(update, "Writes")[1]["main"] == f"{bare.timing.decode:.1f} tokens/s"
    assert cells(update, "Reads a prompt")[0]["small"] == ""
    (task,) = update["flips"]["tasks"]
    assert [v["title"] for v in task["variants"]] == ["Pruned", "Pruned + Writer refit",
                                                      "Pruned + Activation statistics"]  # fmt: skip
    states = [q["state"] for q in task["variants"][0]["questions"]]
    assert states == ["lost"] * len(lost) + ["won"] * len(won)
    first = task["variants"][0]["questions"][0]
    question = found.questions["piqa"][lost[0]]
    assert first["right"] == question.choices[question.answer] != first["other"]


def test_the_words_of_the_text_carry_what_they_cost(engine, compare, visitor):
    found = keep(engine, visitor)
    view = drawn(compare, owner_of(visitor, "mine"))["hurt_words"]
    assert ["".join(w) for w in view["windows"]] == ["".join(w) for w in found.pieces]
    whole, bare = found.columns[:2]
    assert view["before"][1] == [round(100 * x) for x in whole.token_nll[1]]
    gaps = zip(bare.token_nll[0], whole.token_nll[0], strict=True)
    assert view["variants"][0]["rises"][0] == pytest.approx([100 * (b - w) for b, w in gaps], abs=1)
    kinds = [kind["name"] for kind in view["kinds"]]
    told = dict(zip(view["windows"][0], view["marks"][0], strict=True))
    assert kinds.index("number") in told[" 1870"] and kinds.index("name") in told[" Mont"]
    keep(engine, visitor, n_columns=1)
    assert drawn(compare, owner_of(visitor, "mine"))["hurt_words"]["windows"] == []


def test_only_as_many_words_are_drawn_as_a_browser_bears(engine, compare, visitor, monkeypatch):
    row = ("The", *[" sea"] * 99)
    keep(engine, visitor, pieces=(row,) * 30)
    view = drawn(compare, owner_of(visitor, "mine"))["hurt_words"]
    assert len(view["windows"]) == 21 and view["note"].startswith("21 of 16 windows.")


def test_what_cannot_be_counted_says_so(engine, compare, visitor):
    found = keep(engine, visitor)
    columns = tuple(replace(c, multiply_adds=None, per_position=None) for c in found.columns)
    engine._comparisons["mine"] = replace(found, columns=columns)
    update = drawn(compare, owner_of(visitor, "mine"))
    assert cells(update, "Multiply-adds a token")[1] == {
        "main": "–", "small": "its modules do not tell"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("whole", "text", "pieces", "said"),
    [
        (" Paris is", " Paris is", ["Paris is", "", ""], "the same as the original"),
        (" Paris is", " Paris was it", ["Paris ", "was", " it"], "in word 2"),
        (" Paris", " Padua, no", ["Pa", "dua,", " no"], "in word 1"),
        (" Paris is", " Paris\nis", ["Paris", "\nis", ""], "in word 2"),
        ("Paris", "", ["", "", ""], "ended at once"),
        (" Paris is", " Paris", ["Paris", "", ""], "ends where the original goes on"),
        (" Paris", " Paris is", ["Paris", " is", ""], "in word 2"),
        ("", "x", ["", "x", ""], "in word 1"),
        ("", "", ["", "", ""], "the same as the original"),
    ],
)
def test_where_texts_part(engine, compare, visitor, whole, text, pieces, said):
    found = keep(engine, visitor)
    texts = (whole, text, text, text)
    columns = tuple(replace(c, text=t) for c, t in zip(found.columns, texts, strict=True))
    engine._comparisons["mine"] = replace(found, columns=columns)
    row = cells(drawn(compare, owner_of(visitor, "mine")), "What it writes")
    assert row[1]["pieces"] == pieces and said in row[1]["said"]
    assert row[0]["pieces"][1] == ""


def test_a_refused_correction_says_why_in_its_column(engine, compare, visitor):
    keep(engine, visitor, refused="ASC was asked for. There is no bias. Choose another.")
    update = drawn(compare, owner_of(visitor, "mine"))
    columns = update["compare_table"]["columns"]
    assert [column["refused"][:7] for column in columns] == ["", "", "ASC was", "ASC was"]
    assert ("warn", "refused") in columns[2]["tags"]
    assert all(row["cells"][2] is None for row in update["compare_table"]["rows"])
    assert "could not be had; its column says why" in update["compare_note"]["text"]
    assert update[card_names("comparison_rise")[1]] is not None


def test_without_an_original_the_others_are_still_shown(engine, compare, visitor):
    found = keep(engine, visitor)
    broken = replace(found.columns[0], window_nll=(), text="", refused="A. It is no number. B.")
    engine._comparisons["mine"] = replace(found, columns=(broken, *found.columns[1:]))
    update = drawn(compare, owner_of(visitor, "mine"))
    assert cells(update, "Change to original")[1]["main"] == "–"
    assert cells(update, "What it writes")[1]["pieces"][1] == ""
    assert update[card_names("comparison_rise")[1]] is None


# What has become stale


def test_columns_of_another_plan_or_model_say_so_and_stay(engine, compare, visitor):
    keep(engine, visitor)
    for removed, word in ((("3.attn",), "another set of 1"), ((), "nothing is off on the Map")):
        other = replace(owner_of(visitor, "mine"), removed=removed)
        update = drawn(compare, other)
        assert "Stale." in update["compare_note"]["text"] and word in update["compare_note"]["text"]
        tags = [[text for _, text in c["tags"]] for c in update["compare_table"]["columns"]]
        assert tags == [[], *[["another plan"]] * 3]
        assert cells(update, "Perplexity")[3] is not None
    same = replace(owner_of(visitor, "mine"), removed=REMOVED[::-1])
    assert drawn(compare, same)["compare_note"]["text"] == ""
    gone = replace(owner_of(visitor, "mine"), model_key="other")
    assert drawn(compare, gone)["compare_note"]["text"] == compare_cards.OTHER_MODEL


@pytest.mark.parametrize(
    "change", [{"compare_prompt": "Bye"}, {"compare_new": 9}, {"compare_b": "mean"},
               {"against_samples": 8}, {"compare_seed": 1}, {"compare_chat": True}]
)  # fmt: skip
def test_other_settings_are_said_at_once(engine, compare, visitor, change):
    keep(engine, visitor)
    who = owner_of(visitor, "mine")
    update = compare.describe(Call("s"), who, dict(NO_JOBS), None, *form(**change))
    assert "The settings have changed since" in update["compare_note"]["text"]
    tags = [[text for _, text in c["tags"]] for c in update["compare_table"]["columns"]]
    assert tags == [["other settings"]] * 4
    update = compare.describe(Call("s"), who, dict(NO_JOBS), None, *form())
    assert update["compare_note"]["text"] == ""


def test_comparisons_can_be_told_apart_and_nobody_sees_another_s(engine, compare, visitor):
    keep(engine, visitor, "a")
    keep(engine, visitor, "b", form(compare_b="none"), n_columns=2)
    keep(engine, visitor, "theirs")
    who = owner_of(visitor, "a", "b", "forgotten")
    update = drawn(compare, who)
    titles = [title for title, _ in update["compare_shown"]["choices"]]
    assert len(set(titles)) == 2 and titles[0].endswith("partial")
    assert update["compare_shown"]["visible"] and update["compare_shown"]["value"] == "b"
    assert drawn(compare, who, "a")["compare_shown"]["value"] == "a"
    for raw in (None, 3, ["a"], {}, "theirs", "../x"):
        assert drawn(compare, who, raw)["compare_shown"]["value"] == "b"
    assert not drawn(compare, owner_of(visitor, "a"))["compare_shown"]["visible"]


def test_hostile_words_are_made_visible_where_they_are_not_the_model_s_text():
    engine = FakeEngine(is_hostile=True, is_ready=True, step=0.0)
    compare = CompareHandlers(engine, JobHandlers(engine, Turns()))
    visitor = Visitor(model_key=engine.model_key, removed=REMOVED)
    hostile = {name: HOSTILE for name in ("original", "none", "repaired")}
    found = keep(engine, visitor, dataset=HOSTILE, texts=hostile)
    columns = tuple(replace(c, title=HOSTILE, notes=(HOSTILE,)) for c in found.columns)
    engine._comparisons["mine"] = replace(found, columns=columns, prompt=HOSTILE, warning=HOSTILE)
    update = drawn(compare, owner_of(visitor, "mine"))
    table = update["compare_table"]
    assert HOSTILE.strip() in update["compare_note"]["text"]
    assert "".join(table["rows"][-1]["cells"][0]["pieces"]) == HOSTILE
    words = [table["note"], table["lead"], *(c["title"] for c in table["columns"])]
    words += [row["source"] + row.get("prompt", "") for row in table["rows"]]
    assert not any("\u202e" in text for text in words)
