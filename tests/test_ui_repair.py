"""The Repair tab without a browser: forged values, states, and what is drawn."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
from fake_engine import HOSTILE, FakeEngine
from fake_repair import CORRECTIONS, growing_repair, make_fit, make_repair

from blockviz.errors import BadInput, BlockvizError
from blockviz.job_view import JobView
from blockviz.session import ScoreRequest, Visitor
from blockviz.session.repair_views import RepairRequest
from blockviz.types import BlockId, PlaceFit, RepairTable
from blockviz.ui import repair_cards, repair_rows
from blockviz.ui.figure_card import card_names
from blockviz.ui.found import MOST_REPAIRS, step_of, with_found
from blockviz.ui.job_handlers import NO_JOBS, JobHandlers
from blockviz.ui.repair_form import FORM, request_of, said, usual
from blockviz.ui.repair_handlers import LOOKED_AT, OUTPUTS, RepairHandlers
from blockviz.ui.screen import Call, to_outputs
from blockviz.ui.turns import Turns

GOOD = {
    "corrections": ["asc", "writer_refit"], "corrections_more": "", "repair_text": "demo",
    "repair_samples": 48, "repair_seq_len": 512, "repair_skip": 0, "repair_held": 8,
    "repair_seed": 42, "measured_text": "demo", "measured_samples": 16, "measured_seq_len": 512,
    "repair_mode": "stock-compact",
}  # fmt: skip
REMOVED = ("18.attn", "7.attn", "7.mlp")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(step=0.0, is_ready=True)


@pytest.fixture
def visitor(engine) -> Visitor:
    return Visitor(model_key=engine.model_key, removed=REMOVED)


@pytest.fixture
def repair(engine) -> RepairHandlers:
    return RepairHandlers(engine, JobHandlers(engine, Turns()))


def form(**changes) -> list:
    assert tuple(GOOD) == FORM
    return list({**GOOD, **changes}.values())


def is_three_sentences(text: str) -> bool:
    return len(re.findall(r"[.!?](?:\s|$)", text)) >= 3


def keep(engine: FakeEngine, visitor: Visitor, key: str = "mine", **more) -> RepairTable:
    """A table of all corrections of the visitor's plan, as a finished job leaves one."""
    table = make_repair(engine.info, RepairRequest(visitor.plan(), n_held=8), **more)
    engine._repairs[key] = table
    return table


def owner_of(visitor: Visitor, *keys: str) -> Visitor:
    return replace(visitor, repairs=("example", *keys))


def drawn(repair: RepairHandlers, visitor: Visitor, shown=None) -> dict:
    update = repair.draw(Call("s"), visitor, dict(NO_JOBS), shown)
    to_outputs(OUTPUTS, update)
    return update


# The form


def test_the_settings_become_the_request_they_show(engine, visitor):
    request = request_of(engine, visitor, *form(
        corrections=["asc"], corrections_more="ridge:ridge=0.01, ridge:ridge=0.1\nasc",
        repair_text="own", repair_samples=24, repair_seq_len=256, repair_skip=3, repair_held=4,
        repair_seed=7, measured_samples=5, measured_seq_len=128,
    ))  # fmt: skip
    assert request == RepairRequest(
        plan=visitor.plan(), corrections=("asc", "ridge:ridge=0.01", "ridge:ridge=0.1"),
        text=ScoreRequest(calibration="own", n_samples=24, seq_len=256, seed=7), n_skip=3,
        n_held=4, evaluation=ScoreRequest(n_samples=5, seq_len=128, seed=7),
    )  # fmt: skip


def test_what_is_written_can_stand_alone(engine, visitor):
    request = request_of(engine, visitor, *form(corrections=[], corrections_more="mean"))
    assert request.corrections == ("mean",)
    with pytest.raises(BlockvizError) as caught:
        request_of(engine, visitor, *form(corrections=[], corrections_more=" , "))
    assert is_three_sentences(str(caught.value))


FORGED = [
    ("corrections", []), ("corrections", None), ("corrections", "asc"), ("corrections", ["nope"]),
    ("corrections", [["asc"]]), ("corrections", ["asc"] * 99), ("corrections", {"asc": 1}),
    ("corrections_more", 3), ("corrections_more", ["ridge"]), ("corrections_more", "x" * 401),
    ("corrections_more", "nope:ridge=1"), ("corrections_more", "auto"),
    ("corrections_more", ",".join(["mean"] * 13)), ("repair_text", "c4"),
    ("repair_text", "/etc/passwd"), ("repair_text", "upload"), ("repair_text", None),
    ("repair_samples", 0), ("repair_samples", "48"), ("repair_samples", 65),
    ("repair_samples", math.nan), ("repair_seq_len", 1), ("repair_seq_len", 513),
    ("repair_skip", -1), ("repair_skip", None), ("repair_held", 1.5), ("repair_held", True),
    ("repair_seed", -1), ("repair_seed", 2**33), ("measured_text", "nope"),
    ("measured_samples", math.inf), ("measured_seq_len", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "forged"), FORGED, ids=lambda raw: str(raw)[:24])
def test_forged_settings_start_nothing_and_are_described(name, forged):
    engine = FakeEngine(mode="hosted", is_ready=True, step=0.0)
    repair = RepairHandlers(engine, JobHandlers(engine, Turns()))
    visitor = Visitor(model_key=engine.model_key, removed=REMOVED)
    with pytest.raises(BlockvizError) as caught:
        repair.start(Call("s"), visitor, dict(NO_JOBS), *form(**{name: forged}))
    assert is_three_sentences(str(caught.value))
    assert (engine._jobs, engine.calls) == ({}, [])
    update = repair.describe(Call("s"), visitor, dict(NO_JOBS), None, *form(**{name: forged}))
    assert update["repair_says"]["text"] == str(caught.value)


@pytest.mark.parametrize("start", ["start", "start_auto"])
def test_a_plan_without_cuts_is_not_repaired_and_the_button_says_so(engine, repair, start):
    nobody = Visitor(model_key=engine.model_key)
    with pytest.raises(BlockvizError, match="Nothing is removed yet"):
        getattr(repair, start)(Call("s"), nobody, dict(NO_JOBS), *form())
    update = repair.describe(Call("s"), nobody, dict(NO_JOBS), None, *form())
    assert update["start_repair"]["value"] == "Nothing is removed yet"
    assert not update["start_repair"]["interactive"] and not update["start_auto"]["interactive"]
    assert engine._jobs == {}


@pytest.mark.parametrize(
    ("removed", "said"), [(("3.mlp",), "of 1 removed block"), (REMOVED, "of 3 removed blocks")]
)
def test_the_button_counts_what_is_removed(engine, repair, removed, said):
    visitor = Visitor(model_key=engine.model_key, removed=removed)
    update = repair.describe(Call("s"), visitor, dict(NO_JOBS), None, *form())
    assert update["start_repair"]["value"].endswith(said)
    assert update["start_repair"]["interactive"]


def test_the_note_says_what_is_fitted_chosen_and_measured(engine, visitor):
    request = request_of(engine, visitor, *form(repair_skip=2, repair_text="own"))
    words = said(engine, request)
    assert (
        "48 × 512 = 24\u202f576 tokens of Our own short essays, after the first 2" in words["text"]
    )
    assert "The 8 windows behind them" in words["text"]
    assert "measured on 16 × 512 of Demo: BoolQ passages, of Wikipedia" in words["text"]
    assert words["note"] == ""


def test_too_little_text_and_none_held_out_are_cautioned(engine, visitor):
    """576 channels want 2880 tokens: 5 windows of 576 are enough, one token less is not."""
    few = said(engine, request_of(engine, visitor, *form(repair_samples=5, repair_seq_len=575)))
    assert "Fewer than 5 tokens for each of the 576 channels" in few["note"]
    enough = said(engine, request_of(engine, visitor, *form(repair_samples=5, repair_seq_len=576)))
    assert enough["note"] == ""
    blind = said(engine, request_of(engine, visitor, *form(repair_held=0)))
    assert "nothing is chosen" in blind["text"] and "held-out" in blind["note"]


def test_a_sensible_few_are_ticked_and_some_even_where_none_is_known(engine):
    names = [card.name for card in CORRECTIONS]
    assert set(usual(CORRECTIONS)) < set(names) and "fold_asc" not in usual(CORRECTIONS)
    own = [replace(CORRECTIONS[0], name=f"own{i}") for i in range(6)]
    assert usual(own) == ["own0", "own1", "own2", "own3"]


# Jobs


def test_one_press_ticks_all_and_another_the_usual_ones_again(engine, repair):
    names, few = [c.name for c in CORRECTIONS], usual(engine.correction_cards())
    for before, after in ((few, names), ([], names), (names, few), ("forged", names),
                          ([["asc"], {}], names)):  # fmt: skip
        assert repair.tick(Call("s"), before)["corrections"] == after


def test_a_repair_starts_one_job_and_a_second_one_waits(engine, repair, visitor):
    engine.step = 1.0
    first = repair.start(Call("s"), visitor, dict(NO_JOBS), *form(repair_skip=3))
    # Compare and Export fit it on the same from now on.
    assert first["compare_skip"] == first["export_skip"] == 3
    assert first["compare_held"] == first["export_held"]
    assert first["against_samples"] == first["shown_samples"] == 16
    assert engine.calls == ["repair 3"]
    assert "measured first" in first["repair_note"]["text"]
    with pytest.raises(BadInput, match="still running"):
        repair.start(Call("s"), visitor, first["jobs"], *form())
    engine.cancel(first["jobs"]["own"])


def test_the_best_is_looked_for_whatever_is_ticked(engine, repair, visitor, monkeypatch):
    asked = []
    monkeypatch.setattr(engine, "start_repair", lambda r, **who: asked.append(r) or "none")
    repair.start_auto(Call("s"), visitor, dict(NO_JOBS), *form(corrections=[]))
    assert asked[0].corrections == ("auto",) and asked[0].n_held == 8
    with pytest.raises(BadInput, match="No window is held out"):
        repair.start_auto(Call("s"), visitor, dict(NO_JOBS), *form(repair_held=0))


def test_a_plan_of_a_model_that_is_gone_is_not_repaired(engine, repair, visitor):
    gone = replace(visitor, model_key="other")
    with pytest.raises(BadInput, match="loaded since"):
        repair.start(Call("s"), gone, dict(NO_JOBS), *form())
    assert engine._jobs == {}


def test_a_poll_shows_rows_as_they_come_and_leaves_the_rest_alone(engine, visitor):
    jobs, request = JobHandlers(engine, Turns()), RepairRequest(visitor.plan())
    parts = list(growing_repair(engine.info, request, "text"))
    engine._repairs["new"] = parts[1]
    engine._jobs["mine"] = JobView("mine", "repair", "running", partial={"repair_key": "new"})
    state = {**NO_JOBS, "own": "mine"}
    first = jobs.poll(Call("s"), visitor, state, "ppl", "rank")
    assert first["visitor"].repairs == ("example", "new")
    assert first["visitor"].removed == visitor.removed
    assert (first["job"]["found"], first["job"]["step"]) == ("repair", "new 3")
    assert "grid" not in first
    assert "visitor" not in jobs.poll(Call("s"), first["visitor"], state, "ppl", "rank")
    engine._repairs["new"] = parts[2]
    assert jobs.poll(Call("s"), first["visitor"], state, "ppl", "rank")["job"]["step"] == "new 4"


@pytest.mark.parametrize("state", ["done", "cancelled", "failed"])
def test_what_was_fitted_is_kept_however_it_ends(engine, visitor, state):
    jobs = JobHandlers(engine, Turns())
    request = RepairRequest(visitor.plan())
    parts = list(growing_repair(engine.info, request, "text"))
    engine._repairs["new"] = make_repair(engine.info, request) if state == "done" else parts[3]
    found = {"repair_key": "new", "warning": ""}
    kept = {"result": found} if state == "done" else {"partial": found}
    engine._jobs["mine"] = JobView("mine", "repair", state, error="A. B. C.", **kept)
    own = {**NO_JOBS, "own": "mine"}
    update = jobs.poll(Call("s"), visitor, own, "ppl", "rank")
    assert update["visitor"].repairs == ("example", "new")
    shown = RepairHandlers(engine, jobs).newest(Call("s"), update["visitor"], own)
    note = shown["repair_note"]["text"]
    expected = {"done": "", "cancelled": "stopped after 3", "failed": "failed after 3"}
    assert expected[state] in note and bool(note) == (state != "done")
    assert len(shown["repair_rows"]["rows"]) == (10 if state == "done" else 5)


def test_a_reload_finds_the_repair_that_is_running(engine, visitor):
    jobs = JobHandlers(engine, Turns())
    keep(engine, visitor, "new")
    engine._jobs["mine"] = JobView("mine", "repair", "running", partial={"repair_key": "new"})
    update = jobs.open(Call("s"), jobs.drawing.first_visitor(), {"jobs": ["mine"]}, "rank")
    assert update["visitor"].repairs[-1] == "new"


def test_the_last_eight_tables_are_kept_each_once(engine, visitor):
    table = keep(engine, visitor)
    for i in range(12):
        engine._repairs[f"r{i}"] = table
        visitor = with_found(
            engine, visitor, JobView("j", "repair", "done", result={"repair_key": f"r{i}"})
        )
    assert visitor.repairs == tuple(f"r{i}" for i in range(12 - MOST_REPAIRS, 12))
    back = with_found(engine, visitor, JobView("j", "repair", "done", result={"repair_key": "r7"}))
    assert back.repairs[-1] == "r7" and back.repairs.count("r7") == 1


@pytest.mark.parametrize("result", [None, "new", {"repair_key": 3}, {"repair_key": "gone"}, {}])
def test_a_result_that_names_nothing_changes_nothing(engine, visitor, result):
    job = JobView("j", "repair", "done", result=result)
    assert with_found(engine, visitor, job) is visitor
    assert step_of(engine, job) == {}


# The table


def test_the_table_has_a_row_each_and_marks_the_best_with_the_reason(engine, repair, visitor):
    keep(engine, visitor)
    view = drawn(repair, owner_of(visitor, "mine"))["repair_rows"]
    rows = {row["title"]: row for row in view["rows"]}
    assert [row["title"] for row in view["rows"][:2]] == ["Original", "Nothing repaired"]
    best = rows["Writer refit"]
    assert [title for title, row in rows.items() if row["is_best"]] == ["Writer refit"]
    assert ["best", "best"] in [list(tag) for tag in best["tags"]]
    assert "Writer refit, lowest perplexity on the held-out windows" in view["lead"]
    table = engine.repair_table("mine")
    assert f"fitted on {repair_rows.fitted_tokens(table)}." in view["lead"]
    assert best["share"] == pytest.approx(0.665) and best["closed"] == "66.5\u202f%"
    assert best["cells"][3:] == ["0", "stock: weights of surviving blocks"]
    assert rows["Ridge map"]["cells"][4] == "needs custom code"
    assert rows["Mean shift"]["share"] == 0.0 and rows["Mean shift"]["closed"].startswith("−")
    assert ("warn", "worse than doing nothing") in rows["Mean shift"]["tags"]
    assert "seed 42" in view["note"] and "evaluation part" in view["note"]
    assert json.dumps(view)


def test_numbers_of_a_row_by_hand(engine, repair, visitor):
    """e^2 = 7.39 with an error of 0.1 nats; 0.5 nats above the original are 64.9 %."""
    table = keep(engine, visitor)
    row = replace(table.rows[2], nll=2.0, stderr=0.1, rise=0.5, rise_stderr=0.02, selection=1.0)
    engine._repairs["mine"] = replace(table, rows=(*table.rows[:2], row))
    cells = drawn(repair, owner_of(visitor, "mine"))["repair_rows"]["rows"][2]["cells"]
    assert cells[:3] == ["7.39 ± 0.74", "+64.9 ± 3.3\u202f%", "2.72"]


def test_refused_corrections_say_why_and_have_no_figures(engine, repair, visitor):
    keep(engine, visitor, refused="ASC was asked for. There is no bias. Choose another.")
    update = drawn(repair, owner_of(visitor, "mine"))
    rows = update["repair_rows"]["rows"]
    assert all(row["refused"].startswith("ASC was") for row in rows[2:])
    assert not any(row["can_show"] for row in rows)
    assert "No correction could be fitted" in update["repair_note"]["text"]
    assert not update["repair_one"]["visible"]
    for card in ("repairs_bars", "repair_fit", "repair_rho"):
        assert update[card_names(card)[1]] is None


def test_partial_tables_are_drawn_from_the_first_row_on(engine, repair, visitor):
    table = keep(engine, visitor)
    who = owner_of(visitor, "mine")
    for n in range(len(table.rows) + 1):
        engine._repairs["mine"] = replace(table, rows=table.rows[:n], best="", is_partial=True)
        update = drawn(repair, who)
        assert len(update["repair_rows"]["rows"]) == n
        assert (update["repairs_bars_plot"] is not None) == (n > 2)
        assert "Partial." in update["repair_note"]["text"]


def test_without_a_table_the_tab_says_what_to_press(repair, visitor):
    update = drawn(repair, visitor)
    assert update["repair_note"]["text"] == repair_cards.EMPTY
    assert update["repair_rows"]["rows"] == []


def test_a_table_of_another_plan_or_model_says_so(engine, repair, visitor):
    keep(engine, visitor)
    other = replace(owner_of(visitor, "mine"), removed=("3.attn",))
    assert "Stale." in drawn(repair, other)["repair_note"]["text"]
    same = replace(owner_of(visitor, "mine"), removed=REMOVED[::-1])
    assert drawn(repair, same)["repair_note"]["text"] == ""
    gone = replace(owner_of(visitor, "mine"), model_key="other")
    assert drawn(repair, gone)["repair_note"]["text"] == repair_cards.OTHER_MODEL


def test_without_held_out_windows_none_is_best_and_that_is_said(engine, repair, visitor):
    table = keep(engine, visitor)
    rows = tuple(replace(row, selection=None) for row in table.rows)
    engine._repairs["mine"] = replace(table, rows=rows, best="")
    view = drawn(repair, owner_of(visitor, "mine"))["repair_rows"]
    assert "None is called best" in view["lead"]
    assert not any(row["is_best"] for row in view["rows"])


# What is looked at


def test_the_best_and_its_worst_place_are_shown_first(engine, repair, visitor):
    table = keep(engine, visitor)
    update = drawn(repair, owner_of(visitor, "mine"))
    assert update["repair_row"]["value"] == update["repair_place"]["value"] == ""
    assert update["repair_row"]["choices"][0] == ("The best: Writer refit", "")
    best = next(row for row in table.rows if row.correction == "writer_refit")
    worst = max(best.fits, key=lambda f: f.held_after)
    assert str(worst.gap[0]) in update["repair_place"]["choices"][0][0]
    shown = [row["name"] for row in update["repair_rows"]["rows"] if row["is_shown"]]
    assert shown == ["writer_refit"]


def test_a_choice_stays_while_it_is_there_and_gives_way_when_it_is_not(engine, repair, visitor):
    keep(engine, visitor)
    who = owner_of(visitor, "mine")
    update = repair.turn(Call("s"), who, "mine", "asc", "18.attn")
    to_outputs((*LOOKED_AT, "visitor"), update)
    assert (update["repair_row"]["value"], update["repair_place"]["value"]) == ("asc", "18.attn")
    again = drawn(repair, update["visitor"], "mine")
    assert (again["repair_row"]["value"], again["repair_place"]["value"]) == ("asc", "18.attn")
    assert "Activation statistics" in update["repair_fit_head"]["title"]
    assert "18.attn" in update["repair_rho_head"]["title"]
    update = repair.turn(Call("s"), who, "mine", "gone", "99.attn")
    assert (update["repair_row"]["value"], update["repair_place"]["value"]) == ("", "")


def test_a_choice_is_taken_up_again_after_a_drawing_that_began_before_it(engine, repair, visitor):
    keep(engine, visitor)
    who = owner_of(visitor, "mine")
    late = drawn(repair, who, "mine")
    who = repair.turn(Call("s"), who, "mine", "ridge", "18.attn")["visitor"]
    on_page = (late["repair_row"]["value"], late["repair_place"]["value"])
    update = repair.turn_back(Call("s"), who, "mine", *on_page)
    to_outputs(LOOKED_AT, update)
    assert (update["repair_row"]["value"], update["repair_place"]["value"]) == ("ridge", "18.attn")
    shown = [row["name"] for row in update["repair_rows"]["rows"] if row["is_shown"]]
    assert shown == ["ridge"]
    assert repair.turn_back(Call("s"), who, "mine", "ridge", "18.attn") == {}
    gone = replace(who, look=("gone", "99.attn"))
    assert repair.turn_back(Call("s"), gone, "mine", "", "") == {}


def test_a_button_of_the_table_chooses_its_correction(engine, repair, visitor):
    keep(engine, visitor)
    call = Call("s", data={"key": "mine", "row": "ridge"})
    update = repair.look(call, owner_of(visitor, "mine"), None, "")
    to_outputs((*LOOKED_AT, "visitor"), update)
    assert update["repair_row"]["value"] == "ridge"


@pytest.mark.parametrize(
    "data",
    [{}, {"key": "mine"}, {"key": "mine", "row": "none"}, {"key": "mine", "row": ["ridge"]},
     {"key": "theirs", "row": "ridge"}, {"key": 3, "row": 4}, {"key": "mine", "row": {}}],
)  # fmt: skip
def test_a_forged_look_is_refused(engine, repair, visitor, data):
    keep(engine, visitor)
    keep(engine, visitor, "theirs")
    with pytest.raises(BadInput) as caught:
        repair.look(Call("s", data=data), owner_of(visitor, "mine"), None, "")
    assert is_three_sentences(str(caught.value))


@pytest.mark.parametrize("raw", [None, 3, ["mine"], {}, "theirs", "../x"])
def test_forged_choices_show_the_newest_of_one_s_own(engine, repair, visitor, raw):
    keep(engine, visitor)
    keep(engine, visitor, "theirs")
    who = owner_of(visitor, "mine")
    update = drawn(repair, who, raw)
    assert update["repair_shown"]["value"] == "mine"
    assert update["repair_row"]["value"] == ""
    update = repair.turn(Call("s"), who, raw, raw, raw)
    assert update["repair_rows"]["key"] == "mine"
    assert update["visitor"].look == ("", "")
    back = repair.turn_back(Call("s"), who, raw, raw, raw)
    assert back.get("repair_row", update["repair_row"])["value"] == ""


def test_harm_is_said_in_words(engine, repair, visitor):
    table = keep(engine, visitor)
    bad = PlaceFit(BlockId(7, "mlp"), (BlockId(7, "mlp"),), 0.2, 0.1, 0.2, 0.3, 1.0, 1.0, 1.0)
    row = replace(table.rows[5], fits=(bad, make_fit((BlockId(18, "attn"),), 0.9)))
    engine._repairs["mine"] = replace(table, rows=(*table.rows[:2], row), best="")
    update = drawn(repair, replace(owner_of(visitor, "mine"), look=("", "7.mlp")))
    said = update["repair_about"]["note"]
    assert "Mean shift is worse than doing nothing: perplexity 105.4, and 96.7 without it" in said
    assert "at 1 of 2 places: 7.mlp" in said and "held-out text" in said
    assert update["repair_rho_plot"] is None and update["repair_fit_plot"] is not None


@pytest.mark.parametrize("n_removed", [1, 40])
def test_one_gap_and_forty_are_drawn(n_removed):
    engine = FakeEngine(n_layers=80, step=0.0, is_ready=True)
    repair = RepairHandlers(engine, JobHandlers(engine, Turns()))
    removed = tuple(f"{2 * i}.attn" for i in range(n_removed))
    visitor = Visitor(model_key=engine.model_key, removed=removed, repairs=("mine",))
    request = RepairRequest(visitor.plan(), ("asc", "ridge"))
    engine._repairs["mine"] = make_repair(engine.info, request, n_channels=8)
    update = drawn(repair, visitor)
    assert len(update["repair_place"]["choices"]) == n_removed + 1
    assert update["repair_std_plot"] is not None


def test_tables_can_be_told_apart(engine, repair, visitor):
    keep(engine, visitor, "a")
    keep(engine, visitor, "b", n_rows=2)
    update = drawn(repair, owner_of(visitor, "a", "b"))
    titles = [title for title, _ in update["repair_shown"]["choices"]]
    assert len(set(titles)) == 2 and titles[0].endswith("partial")
    assert update["repair_shown"]["visible"]
    example = make_repair(engine.info, RepairRequest(visitor.plan()))
    assert repair_rows.titled(example, "example").endswith("example")


def test_hostile_words_reach_no_template_of_the_repair_tab():
    engine = FakeEngine(is_hostile=True, is_ready=True, step=0.0)
    repair = RepairHandlers(engine, JobHandlers(engine, Turns()))
    visitor = Visitor(model_key=engine.model_key, removed=REMOVED)
    table = keep(engine, visitor, dataset=HOSTILE)
    engine._repairs["mine"] = replace(table, warning=HOSTILE)
    update = drawn(repair, owner_of(visitor, "mine"))
    # A warning is foreign text: it goes where text is set as text.
    assert HOSTILE.strip() in update["repair_note"]["text"]
    assert "\u202e" not in update["repair_rows"]["note"]


def test_the_tokens_fitted_on_are_told_beside_those_of_the_form(engine, visitor):
    """8 windows of 128 are 1 024 tokens, and the first of each is left out of the sums."""
    keep(engine, visitor)
    table = engine.repair_table("mine")
    text = replace(table.provenance.data, n_samples=8, seq_len=128, n_tokens=1024)
    table = replace(table, provenance=replace(table.provenance, data=text))
    told = repair_rows.fitted_tokens
    assert told(replace(table, n_tokens=1016)) == "1\u202f016 of 1\u202f024 tokens"
    assert told(replace(table, n_tokens=1024)) == "1\u202f024 tokens"
