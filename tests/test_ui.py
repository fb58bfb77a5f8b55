"""Handlers and views, called without a browser: forged values, hostile text, lists of events."""

from __future__ import annotations

import json
import logging
import re
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from fake_engine import BASELINE, HOSTILE, FakeEngine, make_info
from fake_export import make_report

from blockviz.errors import BadInput, BadPlan, BlockvizError, OverLimit
from blockviz.job_view import JobView
from blockviz.rankings import rank_intervals, tied_with
from blockviz.session import Continuation, Limits, LiveResult, Sizes, Visitor
from blockviz.session.export_views import ExportRequest
from blockviz.session.exports import Exported
from blockviz.types import TEXT_ENDINGS, BlockId, Done, Progress, PruningPlan
from blockviz.ui import inputs, map_views, views, words
from blockviz.ui.compare_handlers import CompareHandlers
from blockviz.ui.drawing import Drawing
from blockviz.ui.insight_cards import InsightCards
from blockviz.ui.job_handlers import NO_JOBS, JobHandlers
from blockviz.ui.launch import build_app, launch_settings, mode_for, serve
from blockviz.ui.link import link_view, parse_link
from blockviz.ui.live_handlers import LiveHandlers, shown
from blockviz.ui.load_drawer import allowed
from blockviz.ui.map_handlers import MapHandlers
from blockviz.ui.page import Page
from blockviz.ui.refusals import Refusals
from blockviz.ui.screen import Call, Screen, error_view, failure, guarded, to_outputs
from blockviz.ui.turns import Turns
from blockviz.ui.visitors import Visitors

JS = Path(__file__).parents[1] / "blockviz" / "ui" / "js"
INFO = make_info()
RAW = False
EVERY_BLOCK = [str(b.id) for b in INFO.blocks]
FORGED = [
    None, 3, "18.attn", {"0": "18.attn"}, [3], [None], [["18.attn"]], ["-1.attn"], ["30.attn"],
    [float("nan")], ["18"], ["18.head"], ["1e1.attn"], ["../etc.attn"],
    ["0.attn"] * 10_000, EVERY_BLOCK,
]  # fmt: skip


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(step=0.0, is_ready=True)


@pytest.fixture
def visitor(engine) -> Visitor:
    return Visitor(model_key=engine.model_key, removed=("18.attn",))


def is_three_sentences(text: str) -> bool:
    return len(re.findall(r"[.!?](?:\s|$)", text)) >= 3


# Words and views


def test_numbers_read_like_numbers():
    assert words.grouped(4096) == "4\u202f096"
    assert words.percent(-0.119) == "\u221211.9\u202f%"
    assert words.percent(1.94) == "+194.0\u202f%"
    assert words.percent(0.00001) == "0\u202f%"
    assert (words.short(33.14), words.short(0.0312), words.short(9512.4)) == (
        "33.1", "0.0312", "9\u202f512",
    )  # fmt: skip
    assert (words.count(134_515_008), words.count(885_312)) == ("134.5\u202fM", "885\u202fk")
    assert words.size(1 << 28) == "256\u202fMiB"
    assert words.duration(190) == "3\u202fmin 10\u202fs"


def test_the_scoreboard_says_before_and_after_with_its_error():
    sizes = Sizes.of(INFO, PruningPlan(removed=(BlockId(18, "attn"), BlockId(7, "mlp"))))
    live = LiveResult(36.234, 32.94, 0.002, 1016, "boolq, 8 × 128 tokens", "bfloat16", "measured")
    view = views.score(sizes, live, state="", last=None)
    assert (view["kept"], view["cut"]) == ("58 of 60", "1 attention, 1 MLP cut")
    assert view["perplexity"] == "32.9 → 36.2"
    # 110 % of an error of 0.2 % of the ratio.
    assert view["rise"] == "+10.00 ± 0.22\u202f%"
    assert (view["state"], view["is_dim"]) == ("measured", False)
    assert view["data"] == "boolq, 8 \u00d7 128 tokens, 1\u202f016 scored, bf16"
    # (885 312 + 2 655 360) / 134 531 712 parameters; one of 30 KV caches.
    assert view["parameters"] == "\u22122.6\u202f%"
    assert view["kv"] == "KV cache \u22123.3\u202f%"


@pytest.mark.parametrize(
    ("state", "said", "can_measure"),
    [("measuring", "measuring…", False), ("waiting", "measuring when the model is ready", False),
     ("stale", "stale", True)],
)  # fmt: skip
def test_an_unknown_perplexity_is_never_shown_as_a_number(state, said, can_measure):
    base = LiveResult(32.94, 32.94, 0.0, 1016, "boolq", "bfloat16", "bundled")
    view = views.score(Sizes.of(INFO, PruningPlan()), None, state=state, last=base)
    assert (view["perplexity"], view["rise"]) == ("32.9 → …", "")
    assert (view["state"], view["can_measure"], view["is_dim"]) == (said, can_measure, True)


def test_the_first_different_word_is_marked_in_both_texts():
    written = Continuation("p", "a big cat", "a bad dog", 3, is_complete=True)
    view = views.texts(written, Visitor())
    assert view["original"] == ["a b", "ig", " cat"]
    assert view["pruned"] == ["a b", "ad", " dog"]


def test_a_difference_is_marked_while_the_text_is_still_being_written():
    view = views.texts(Continuation("p", "one two", "one t", None), Visitor())
    assert view["pruned"] == ["one t", "", ""]
    view = views.texts(Continuation("p", "one two", "one tw!", None), Visitor())
    assert view["pruned"] == ["one tw", "!", ""]
    assert view["is_busy"]


def test_a_text_that_ends_where_the_other_goes_on_is_not_cut():
    view = views.texts(Continuation("p", "ab cd", "ab", 2, is_complete=True), Visitor())
    assert view["pruned"] == ["ab", "", ""]
    assert view["original"] == ["ab", " cd", ""]


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (JobView("j", "score", "queued", queue_position=2), "Queued, number 2 in line"),
        (JobView("j", "score", "running", "ppl", 12, 60, elapsed=32, eta=70.2),
         "Ppl, 12 of 60 · 32\u202fs, about 1\u202fmin 10\u202fs left"),
        (JobView("j", "search", "running", "greedy", 2, 9, is_stopping=True), "Cancelling…"),
        (JobView("j", "score", "cancelled"), "Score cancelled; what was computed is kept"),
        (JobView("j", "search", "done", elapsed=8, result={"warning": ""}),
         "Search done in 8\u202fs"),
        (JobView("j", "search", "done", elapsed=600, result={"ended": "stopped at the limit"}),
         "Search stopped at the limit"),
        (None, ""),
    ],
)  # fmt: skip
def test_a_job_is_one_line(job, text):
    assert views.job_lane(job)["text"] == text


def test_events_become_status_and_text():
    so_far = Continuation("p", "a", "b")
    update = shown(Progress("writing, pruned", 3, 48, partial=so_far), Visitor(), "Writing", 2.0)
    assert update["work"]["text"] == "Writing, pruned, 3 of 48 · 2\u202fs"
    assert update["work"]["progress"] == pytest.approx(3 / 48)
    assert update["texts"]["pruned"][1] == "b"
    update = shown(Done(object()), Visitor(), "Measuring", 0.2)
    assert update == {"work": views.lane("done", "Measuring: done")}


# Inputs


@pytest.mark.parametrize("raw", FORGED, ids=lambda raw: str(raw)[:24])
def test_forged_removals_are_refused_in_three_sentences(raw):
    with pytest.raises(BadPlan) as caught:
        inputs.removed_blocks(raw, INFO)
    assert is_three_sentences(str(caught.value))


def test_a_layer_means_both_its_blocks():
    assert inputs.removed_blocks(["3.layer", "7.mlp"], INFO) == ("3.attn", "3.mlp", "7.mlp")


@pytest.mark.parametrize("raw", [None, "4", 2.5, float("nan"), float("inf"), True, [4]])
def test_a_number_must_be_a_whole_number(raw):
    with pytest.raises(BadInput, match="not a whole number"):
        inputs.whole(raw, "The seed", low=0, high=9)


def test_a_number_that_is_no_whole_one_is_refused_and_not_rounded(engine):
    fields = [b for b in build_app(engine).blocks.values() if isinstance(b, gr.Number)]
    assert len(fields) > 10
    assert [field.preprocess(8.5) for field in fields] == [8.5] * len(fields)
    with pytest.raises(BadInput, match=r"The seed was left empty\."):
        inputs.whole(None, "The seed", low=0, high=9)


def test_a_number_out_of_range_names_the_limit_and_the_value():
    with pytest.raises(OverLimit, match=r"set to 65\..*between 1 and 64"):
        inputs.whole(65, "The number of samples", low=1, high=64)


@pytest.mark.parametrize(
    "raw", [{"jobs": 3}, {"jobs": ["x" * 65, 3, ""]}, {"jobs": {"a": 1}}, [], None, "abc"]
)
def test_a_forged_job_id_is_no_job(raw):
    assert inputs.job_ids(raw) == ()


def test_a_link_round_trips_and_a_bad_one_is_refused():
    view = link_view(Visitor(removed=("3.attn", "3.mlp", "7.mlp")), "lds")
    assert view["query"] == "?remove=3.layer,7.mlp&metric=lds"
    assert parse_link({"remove": ""}, INFO, ["lds"]).removed == ()
    assert link_view(Visitor(), "")["query"] == "?remove="  # not the example's plan
    linked = parse_link({"remove": "3.layer,7.mlp", "metric": "lds"}, INFO, ["lds"])
    assert (linked.removed, linked.metric) == (("3.attn", "3.mlp", "7.mlp"), "lds")
    with pytest.raises(BadPlan):
        parse_link({"remove": "99.attn"}, INFO, ["lds"])


@pytest.mark.parametrize(
    ("host", "environ", "mode"),
    [
        ("127.0.0.1", {}, "local"), ("localhost", {}, "local"), ("::1", {}, "local"),
        ("0.0.0.0", {}, "hosted"), ("example.org", {}, "hosted"),
        ("127.0.0.1", {"SPACE_ID": "a/b"}, "hosted"),
        ("0.0.0.0", {"BLOCKVIZ_MODE": "local"}, "local"),
    ],
)  # fmt: skip
def test_mode_is_hosted_wherever_strangers_can_come(host, environ, mode, monkeypatch):
    for name in ("SPACE_ID", "BLOCKVIZ_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert mode_for(host) == mode


def test_an_unknown_mode_is_refused():
    with pytest.raises(BadInput, match="auto, local or hosted"):
        mode_for("127.0.0.1", "public")


# Handlers


def test_a_toggle_answers_with_plan_grid_and_known_perplexity(engine):
    handlers, visitor = MapHandlers(engine, Turns()), Visitor(model_key=engine.model_key)
    call = Call("s", {"removed": ["7.attn"], "block": "7.attn", "seq": 4})
    update = handlers.toggle(call, visitor, "ppl", "rank")
    assert update["visitor"].removed == ("7.attn",)
    assert (update["grid"]["removed"], update["grid"]["seq"]) == (["7.attn"], 4)
    assert update["score"]["state"] == "bundled"
    value = engine.known(PruningPlan(removed=(BlockId(7, "attn"),))).perplexity
    said = f"Block 7.attn removed, 1 of 60 removed, perplexity {words.short(value)}"
    assert update["live"]["text"] == said
    assert update["block"]["title"] == "7.attn"


@pytest.mark.parametrize("raw", FORGED, ids=lambda raw: str(raw)[:24])
def test_a_forged_toggle_loses_nothing(raw, engine, visitor):
    call = Call("s", {"removed": raw, "seq": 9})
    update = MapHandlers(engine, Turns()).toggle(call, visitor, "ppl", "rank")
    assert update["visitor"] == visitor
    assert (update["grid"]["removed"], update["grid"]["seq"]) == (["18.attn"], 9)
    assert is_three_sentences(update["error"]["text"])
    json.dumps(update["grid"], allow_nan=False)


def test_every_drawing_says_how_far_it_knows_the_page(engine, visitor):
    """What was begun before the last toggle must not undo it, in whatever order answers arrive."""
    plan, jobs = MapHandlers(engine, Turns()), JobHandlers(engine, Turns())
    now = plan.toggle(Call("s", {"removed": ["7.attn"], "seq": 3}), visitor, "ppl", "rank")
    now = now["visitor"]
    late = plan.toggle(Call("s", {"removed": ["9.mlp"], "seq": 2}), now, "ppl", "rank")
    drawn = [
        plan.colour(Call("s"), now, "ppl", "rank", ""),
        plan.undo(Call("s"), now, "ppl", "rank"),
        plan.reset(Call("s"), now, "ppl", "rank"),
        late,
    ]
    assert [update["grid"]["seq"] for update in drawn] == [3, 3, 3, 3]
    assert (late["visitor"].removed, late["grid"]["removed"]) == (("7.attn",), ["7.attn"])
    engine.model_key = "another"
    engine._jobs["mine"] = JobView("mine", "load", "done", result=engine.info)
    loaded = jobs.poll(Call("s"), now, {**NO_JOBS, "own": "mine"}, "ppl", "rank")
    assert (loaded["visitor"].model_key, loaded["grid"]["seq"]) == ("another", 3)


def test_undo_redo_and_reset_walk_the_same_path(engine, visitor):
    handlers, call = MapHandlers(engine, Turns()), Call("s")
    more = visitor.with_removed(("18.attn", "7.mlp"))
    back = handlers.undo(call, more, None, None)["visitor"]
    again = handlers.redo(call, back, None, None)["visitor"]
    none = handlers.reset(call, again, None, None)
    assert (back.removed, again.removed) == (("18.attn",), ("18.attn", "7.mlp"))
    assert none["grid"]["removed"] == []
    assert none["undo"]["interactive"]


def test_a_reset_that_a_newer_toggle_has_overtaken_changes_nothing(engine, visitor):
    """It is answered again for what the toggle made: the page had reset before it cut the block."""
    handlers = MapHandlers(engine, Turns())
    toggled = replace(visitor.with_removed(["2.mlp"]), seq=2)
    late = handlers.reset(Call("s", data={"seq": 1}), toggled, None, None)
    assert (late["visitor"].removed, late["grid"]["seq"]) == (("2.mlp",), 2)
    newest = handlers.reset(Call("s", data={"seq": 3}), toggled, None, None)
    assert (newest["visitor"].removed, newest["grid"]["seq"]) == ((), 3)


def test_a_plan_of_another_model_is_not_drawn_on_this_one(engine, visitor):
    old = replace(visitor, model_key="another")
    with pytest.raises(BadInput, match="Reload the page"):
        MapHandlers(engine, Turns()).toggle(Call("s", {"removed": []}), old, "ppl", "rank")


def test_grid_cells_say_what_the_table_says(engine, visitor):
    update = MapHandlers(engine, Turns()).colour(Call(), visitor, "lds", "rank", "")
    table, block = engine.table("example"), BlockId(12, "mlp")
    cell = update["grid"]["cells"]["mlp"][12]
    assert cell["rank"] == table.metrics["lds"].ranks()[block]
    assert cell["perplexity"] == words.short(table.metrics["ppl"].raw[block])
    first = update["ranking"]["rows"][0]
    values = table.metrics["lds"].values
    assert first["block"] == str(min(values, key=values.get))


def test_without_scores_the_screen_says_what_to_press(engine, visitor):
    bare = replace(visitor, table_key="")
    update = MapHandlers(engine, Turns()).colour(Call(), bare, None, "rank", "")
    assert update["grid"]["cells"]["attn"][0]["colour"] is None
    assert update["ranking"]["rows"] == []
    assert "press Score" in update["ranking"]["empty"]
    assert "press Score" in update["legend"]["note"]


def test_following_a_change_measures_then_writes(engine):
    visitor = Visitor(model_key=engine.model_key, removed=("3.attn", "4.mlp"))
    handlers = LiveHandlers(engine, Turns())
    asked = (visitor, "Once upon", 8, RAW)
    assert list(handlers.text(Call("s"), *asked)) == []  # not before its perplexity
    updates = list(handlers.follow(Call("s"), visitor, "rank"))
    states = [u["score"]["state"] for u in updates if "score" in u]
    assert states == ["measuring…", "measured"]
    updates = list(handlers.text(Call("s"), *asked))
    assert engine.calls == ["measure 2", "write 2 False"]
    assert updates[-1]["texts"]["prompt"] == "Once upon"
    assert list(handlers.text(Call("s"), *asked)) == []  # once


@pytest.mark.parametrize("then", ["begin", "cancel"])
def test_no_text_follows_a_perplexity_that_is_overtaken_or_cancelled(engine, then):
    visitor = Visitor(model_key=engine.model_key, removed=("3.attn", "4.mlp"))
    turns = Turns()
    handlers = LiveHandlers(engine, turns)
    list(handlers.follow(Call("s"), visitor, "rank"))
    getattr(turns, then)("s")
    assert list(handlers.text(Call("s"), visitor, "Once upon", 8, RAW)) == []
    assert engine.calls == ["measure 2"]


def test_the_example_is_shown_without_running_the_model(engine):
    visitor = Visitor(model_key=engine.model_key, removed=engine.example_removed)
    handlers = LiveHandlers(engine, Turns())
    list(handlers.follow(Call("s"), visitor, "rank"))
    updates = list(handlers.text(Call("s"), visitor, engine.example_prompt, 48, RAW))
    assert engine.calls == []
    assert updates[-1]["texts"]["pruned"][0].startswith(" Paris")


def test_before_the_model_is_ready_others_than_single_cuts_wait():
    engine = FakeEngine(step=0.0)
    visitor = Visitor(model_key=engine.model_key, removed=("3.attn", "4.mlp"))
    handlers = LiveHandlers(engine, Turns())
    updates = list(handlers.follow(Call("s"), visitor, "rank"))
    updates += handlers.text(Call("s"), visitor, "Once", 8, RAW)
    assert engine.calls == []
    assert updates[0]["score"]["state"] == "measuring when the model is ready"
    assert "as soon as it is ready" in updates[-1]["texts"]["note"]


def test_a_newer_change_stops_an_older_measurement_and_closes_it(engine):
    turns, closed = Turns(), []

    def measure(plan):
        try:
            for i in range(8):
                yield Progress("", i, 8)
        finally:
            closed.append(plan)

    engine.measure = measure
    visitor = Visitor(model_key=engine.model_key, removed=("3.attn", "4.mlp"))
    running = LiveHandlers(engine, turns).follow(Call("s"), visitor, "rank")
    for _ in range(4):
        next(running)
    turns.begin("other page")
    assert "work" in next(running)
    turns.begin("s")
    assert list(running) == [{"work": views.IDLE}]
    assert len(closed) == 1
    assert engine.calls == []


def test_closing_the_handler_closes_the_engine(engine):
    closed = []

    def write(prompt, plan, **settings):
        try:
            while True:
                yield Progress("", 1, 0)
        finally:
            closed.append(prompt)

    engine.write = write
    visitor = Visitor(model_key=engine.model_key)
    running = LiveHandlers(engine, Turns()).write(Call("s"), visitor, "Once", 8, RAW)
    next(running)
    running.close()
    assert closed == ["Once"]


def test_a_text_that_is_cancelled_says_so_last_and_is_no_longer_busy(engine, visitor):
    """A step of it that was under way comes after the answer to the button."""
    turns = Turns()
    live, jobs = LiveHandlers(engine, turns), JobHandlers(engine, turns)
    assert live.ask_write(Call("s"))["work"]["state"] == "running"
    running = live.write(Call("s"), visitor, "Once", 8, RAW)
    assert "Writing" in next(running)["work"]["text"]
    cancelled = jobs.cancel(Call("s"), visitor, dict(NO_JOBS))
    *_, last = running
    assert last["work"] == cancelled["work"] == views.CANCELLED
    assert (last["texts"]["prompt"], last["texts"]["is_busy"]) == ("Once", False)
    assert "Press Write" in last["texts"]["note"]


def test_cancel_also_holds_for_a_text_that_still_waits_for_its_turn(engine, visitor):
    turns = Turns()
    live, jobs = LiveHandlers(engine, turns), JobHandlers(engine, turns)
    live.ask_write(Call("s"))
    jobs.cancel(Call("s"), visitor, dict(NO_JOBS))
    asked = (Call("s"), visitor, "Once", 8, RAW)
    assert list(live.write(*asked)) == [{"work": views.CANCELLED}]
    assert engine.calls == []
    live.ask_write(Call("s"))
    assert list(live.write(*asked))[-1]["texts"]["prompt"] == "Once"


def test_one_press_of_cancel_stops_a_job_and_the_text_beside_it(engine, visitor):
    turns = Turns()
    live, jobs = LiveHandlers(engine, turns), JobHandlers(engine, turns)
    engine._jobs["mine"] = JobView("mine", "search", "running")
    live.ask_write(Call("s"))
    running = live.write(Call("s"), visitor, "Once", 8, RAW)
    next(running)
    answer = jobs.cancel(Call("s"), visitor, {**NO_JOBS, "own": "mine"})
    assert (answer["job"], engine._cancelled) == (views.CANCELLING, {"mine"})
    assert list(running)[-1]["work"] == views.CANCELLED


def test_no_wish_of_a_page_leaves_its_status_pulsing(engine, visitor):
    """Each ends on a state that does not pulse, whatever comes of it."""
    turns, cold = Turns(), FakeEngine(step=0.0)
    live = LiveHandlers(engine, turns)
    refused = (Call("s"), visitor, " ", 8, RAW)
    *_, before, last = guarded(live.write, refused[0], refused[1:])
    assert (before["work"], "empty" in last["error"]["text"]) == (views.IDLE, True)
    assert next(iter(live.follow(Call("s"), visitor, "rank")))["work"] == views.IDLE
    waiting, cut = LiveHandlers(cold, turns), replace(visitor, removed=("3.attn", "4.mlp"))
    assert next(iter(waiting.follow(Call("s"), cut, "rank")))["work"] == views.IDLE
    assert list(waiting.write(Call("s"), cut, "Once", 8, RAW))[-1]["work"] == views.IDLE


def test_a_failed_measurement_leaves_a_stale_board_and_a_way_on(engine):
    def measure(plan):
        yield Progress("", 0, 8)
        raise OverLimit("Asked.", "Found.", "Do.")

    engine.measure = measure
    visitor = Visitor(model_key=engine.model_key, removed=("3.attn", "4.mlp"))
    values = (visitor, "rank")
    *_, before, last = guarded(LiveHandlers(engine, Turns()).follow, Call("s"), values)
    assert (before["score"]["state"], before["score"]["can_measure"]) == ("stale", True)
    assert before["work"]["state"] == "failed"
    assert last["error"]["text"] == "Asked. Found. Do."


@pytest.mark.parametrize(
    ("prompt", "n_new"),
    [(3, 8), (None, 8), (" \n", 8), ("x", 0), ("x", 10**9), ("x", "8"), ("x" * 2001, 8)],
)
def test_forged_write_inputs_never_reach_the_model(prompt, n_new):
    engine = FakeEngine(mode="hosted", is_ready=True, step=0.0)
    visitor = Visitor(model_key=engine.model_key)
    running = LiveHandlers(engine, Turns()).write(Call("s"), visitor, prompt, n_new, RAW)
    with pytest.raises(BlockvizError):
        list(running)
    assert engine.calls == []


@pytest.mark.parametrize("way", [True, False])
def test_the_bundled_prompt_goes_the_way_that_it_went_for_the_example(engine, way):
    engine.example_continuation = replace(engine.example_continuation, is_chat=way)
    boxes = {b.elem_id: b.value for b in build_app(engine).blocks.values()
             if b.elem_id in ("chat", "compare-chat")}  # fmt: skip
    assert boxes == {"chat": way, "compare-chat": way}


def test_triggers_that_call_the_same_are_one_event_and_no_event_marks_its_outputs():
    """What a page costs: it looks through all events for each of its components, and at each step
    of one for every component that the step is shown on."""
    events = [d for d in build_app(FakeEngine()).config["dependencies"] if d["targets"]]
    marked = [d["outputs"] if d["show_progress_on"] is None else d["show_progress_on"]
              for d in events if d["api_visibility"] == "private"]  # fmt: skip
    assert len(marked) > 100 and max(map(len, marked)) <= 1
    # Three parts of the Map name a `pick` of their own.
    (picked,) = [d for d in events if [name for _, name in d["targets"]] == ["pick"] * 3]
    assert len({component for component, _ in picked["targets"]}) == 3


def test_the_upload_takes_what_the_command_line_reads():
    """gradio itself refuses other endings."""
    blocks = build_app(FakeEngine()).blocks.values()
    (upload,) = [b for b in blocks if getattr(b, "elem_id", "") == "upload"]
    assert tuple(upload.file_types) == TEXT_ENDINGS
    assert {".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet"} <= {*TEXT_ENDINGS}


def test_without_a_chat_template_no_prompt_goes_through_one_out_of_sight(engine, visitor):
    """A box that was ticked for the model before is not only hidden."""
    drawing, compare = Drawing(engine), CompareHandlers(engine, JobHandlers(engine, Turns()))
    for has, value in ((True, None), (False, False)):
        engine.info = replace(engine.info, has_chat_template=has)
        found = drawing.everything(visitor, "lds", "rank")["chat"]
        offered = compare.offer(Call("s"), visitor, "asc", "mean", [])["compare_chat"]
        assert found == offered
        assert (found["visible"], found.get("value")) == (has, value)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"metric": "nope"}, "metric 'nope'. There is none of that name here. Choose from: lds."),
        ({"tab": "nope"}, "tab 'nope'. There is none of that name here. Choose from: map, curves"),
        ({"metric": "<img>"}, "'<img>'"),
    ],
)
def test_what_a_link_asks_for_and_there_is_not_is_said_and_the_rest_is_followed(query, words):
    linked = parse_link({"remove": "7.mlp", **query}, INFO, ["lds"])
    assert (linked.removed, linked.metric) == (("7.mlp",), "")
    assert words in linked.refused
    assert is_three_sentences(linked.refused)


def test_a_link_to_another_model_is_refused_and_names_both(engine, visitor):
    jobs = JobHandlers(engine, Turns())
    call = Call("s", query={"model": "gpt2", "remove": "3.attn"})
    opened = jobs.open(call, jobs.drawing.first_visitor(), None, "rank")
    assert f"'gpt2'. {INFO.name} is in memory" in opened["error"]["text"]
    assert "visitor" not in opened
    other = link_view(visitor, "", model="owner/name@main")
    assert other["query"] == "?model=owner/name@main&remove=18.attn"
    assert parse_link({"model": INFO.name, "remove": "3.attn"}, INFO, []).removed == ("3.attn",)


def test_opening_restores_a_link_without_starting_work(engine):
    jobs = JobHandlers(engine, Turns())
    query = {"remove": "3.layer", "metric": "lds"}
    update = jobs.open(Call("s", query=query), jobs.drawing.first_visitor(), {"jobs": []}, "rank")
    assert update["visitor"].removed == ("3.attn", "3.mlp")
    assert update["metric"]["value"] == "lds"
    assert engine.calls == []
    assert engine._jobs == {}


def test_a_block_switched_before_the_page_was_answered_stays_switched(engine):
    jobs = JobHandlers(engine, Turns())
    early = jobs.drawing.first_visitor().with_removed(("3.attn",))
    assert "visitor" not in jobs.open(Call("s"), early, None, "rank")
    stale = replace(early, model_key="another")
    assert jobs.open(Call("s"), stale, None, "rank")["visitor"].removed == engine.example_removed


def test_a_bad_link_opens_the_example_and_says_why(engine):
    jobs = JobHandlers(engine, Turns())
    call = Call("s", query={"remove": "99.attn"})
    update = jobs.open(call, jobs.drawing.first_visitor(), None, "rank")
    assert "visitor" not in update
    assert "layers 0 to 29" in update["error"]["text"]


def test_a_port_that_is_taken_is_named_with_the_way_to_another(engine):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port}.*Something else uses.*--port"):
            serve(engine, "127.0.0.1", port)


def test_a_shared_page_says_what_it_takes_before_anybody_asks():
    assert allowed(Limits()) == ""
    said = allowed(Limits.of("hosted", {"BLOCKVIZ_MAX_SAMPLES": "9"}))
    assert said.startswith(" On this shared page at most 9 windows, 512 tokens in each, ")
    assert "10 minutes a job, 30 jobs an hour. Results are dropped 30 minutes after" in said


def test_one_load_of_the_demo_serves_all_pages():
    engine = FakeEngine(step=0.01)
    jobs = JobHandlers(engine, Turns())
    ids = {
        jobs.open(Call(f"s{i}"), jobs.drawing.first_visitor(), None, "rank")["jobs"]["demo"]
        for i in range(5)
    }
    assert len(ids) == 1


def test_a_reload_finds_its_job_and_a_finished_one_its_result(engine):
    jobs = JobHandlers(engine, Turns())
    engine._jobs["mine"] = JobView("mine", "score", "running", "ppl", 3, 60)
    update = jobs.open(Call("s"), jobs.drawing.first_visitor(), {"jobs": ["mine"]}, "rank")
    assert update["jobs"]["own"] == "mine"
    assert update["job"]["text"].startswith("Ppl, 3 of 60")
    engine._tables["t"] = engine.table("example")
    engine._jobs["mine"] = JobView("mine", "score", "done", result={"table_key": "t"})
    assert (
        jobs.open(Call("s"), jobs.drawing.first_visitor(), {"jobs": ["mine"]}, "rank")[
            "visitor"
        ].table_key
        == "t"
    )


def test_a_reload_finds_all_results_of_this_browser_whichever_came_last(engine, visitor):
    jobs = JobHandlers(engine, Turns())
    engine._tables["t"] = table = engine.table("example")
    of_another = replace(table.provenance, model="another")
    engine._tables["foreign"] = replace(table, provenance=of_another)
    for name, key in (("first", "t"), ("other", "foreign")):
        engine._jobs[name] = JobView(name, "score", "done", result={"table_key": key})
    begun = jobs.pairs(Call("s"), visitor, {**NO_JOBS, "past": ("gone", "first", "other")})
    pairs = begun["jobs"]["own"]
    engine._jobs[pairs] = JobView(pairs, "pairs", "done", result={"pairs_key": "example"})
    assert begun["browser"] == {"jobs": ["gone", "first", "other", pairs]}
    opened = jobs.open(Call("new"), jobs.drawing.first_visitor(), begun["browser"], "rank")
    assert opened["jobs"]["own"] == pairs
    assert opened["jobs"]["past"] == ("first", "other", pairs)
    assert (opened["visitor"].table_key, opened["visitor"].pairs_key) == ("t", "example")


def came_back(handlers: JobHandlers, session: str, **kept: object) -> dict:
    """The answer to a page that opens, with its visitor as the screen would have it."""
    tab = {"jobs": [], "page": "a" * 32, **kept}
    first = handlers.drawing.first_visitor()
    answer = handlers._visitors.settled(
        session, first, lambda now: handlers.open(Call(session), now, tab, "rank")
    )
    return {"visitor": handlers._visitors.newest(session, first), **answer}


def test_a_page_that_is_loaded_again_goes_on_where_it_was(engine):
    visitors = Visitors()
    jobs, plan = JobHandlers(engine, Turns(), visitors), MapHandlers(engine, Turns())
    engine._jobs["mine"] = JobView("mine", "search", "done", result={"search_key": "example"})
    opened = came_back(jobs, "first")["visitor"]
    for removed in (["3.mlp"], ["3.mlp", "5.attn"]):
        call = Call("first", {"removed": removed})
        visitors.settled("first", opened, lambda now, c=call: plan.toggle(c, now, None, None))
    polled = visitors.settled("first", opened, lambda now: jobs.poll(
        Call("first"), now, {**NO_JOBS, "own": "mine"}, None, None))  # fmt: skip
    assert polled["job"]["settled"] == 1
    left = visitors.newest("first", opened)
    visitors.forget("first")
    again = came_back(jobs, "second", jobs=["mine"])
    assert again["visitor"] == left
    assert again["visitor"].undo().removed == ("3.mlp",)
    assert again["grid"]["removed"] == ["3.mlp", "5.attn"]
    # Its job has ended before, and is not told of a second time.
    assert "visitor" not in jobs.poll(Call("second"), again["visitor"], again["jobs"], None, None)
    assert came_back(jobs, "third", page="b" * 32)["visitor"].removed == engine.example_removed
    engine.model_key = "another"
    assert came_back(jobs, "fourth")["visitor"].removed == engine.example_removed


@pytest.mark.parametrize("page", [None, 3, "short", "x" * 65, ["a" * 32]])
def test_a_tab_without_a_name_of_its_own_is_nobody_who_came_back(page):
    assert inputs.page_id({"page": page}) == inputs.page_id(page) == ""
    visitors = Visitors()
    visitors.settled("s", Visitor(), lambda now: {"visitor": now.with_removed(["3.mlp"])})
    assert visitors.came_back("t", "") is None


def test_two_pages_that_share_a_name_go_on_apart(engine):
    """A tab that was doubled: each goes on from the same, and neither moves the other."""
    visitors = Visitors()
    jobs = JobHandlers(engine, Turns(), visitors)
    for session in ("one", "two"):
        came_back(jobs, session)
    cut = {"visitor": Visitor(removed=("3.mlp",))}
    visitors.settled("one", Visitor(), lambda now: cut)
    assert visitors.newest("two", Visitor()).removed != ("3.mlp",)


def test_blocks_switched_while_the_server_was_away_are_taken_when_the_page_is_back(engine):
    jobs = JobHandlers(engine, Turns())
    opened = came_back(jobs, "s", unanswered=["3.mlp"])
    assert (opened["visitor"].removed, opened["grid"]["removed"]) == (("3.mlp",), ["3.mlp"])
    for forged in (["99.attn"], "3.mlp", {"0": "3.mlp"}):
        refused = came_back(jobs, f"{forged}", page="b" * 32, unanswered=forged)
        assert is_three_sentences(refused["error"]["text"])
        assert refused["visitor"].removed == engine.example_removed


def test_results_that_are_dropped_are_said_to_be_when_the_page_is_looked_at(engine, visitor):
    jobs = JobHandlers(engine, Turns())
    has = replace(visitor, table_key="gone", tables=("gone",), searches=("example", "old", "older"))
    answer = jobs.look(Call("s"), has, None, "rank")
    assert "2 searches, 1 table of scores were dropped" in answer["error"]["text"]
    assert is_three_sentences(answer["error"]["text"])
    kept = answer["visitor"]
    assert (kept.table_key, kept.tables, kept.searches) == ("example", (), ("example",))
    assert kept.removed == ("18.attn",)
    assert jobs.look(Call("s"), kept, None, "rank") == {}
    ranking = map_views.ranking(has, None, "ppl", {})
    assert "not kept any more. Choose metrics above and press Score" in ranking["empty"]
    first = jobs.drawing.first_visitor()
    jobs._visitors.came_back("before", "a" * 32)
    jobs._visitors.settled("before", first, lambda now: {"visitor": has})
    opened = came_back(jobs, "after")
    assert "2 searches" in opened["error"]["text"]
    assert opened["visitor"].searches == ("example",)


def test_back_is_undo_where_that_is_the_same_step(engine, visitor):
    plan = MapHandlers(engine, Turns())
    now = visitor.with_removed(["3.mlp"]).with_removed(["3.mlp", "5.attn"])

    def walk(to: list[str], visitor: Visitor) -> Visitor:
        answer = plan.walk(Call("s", {"removed": to, "walk": 4}), visitor, None, None)
        assert answer["link"]["walk"] == 4
        return answer["visitor"]

    back = walk(["3.mlp"], now)
    assert (back.removed, back.future) == (("3.mlp",), (("3.mlp", "5.attn"),))
    assert walk(["3.mlp", "5.attn"], back) == now
    assert walk(["9.attn"], back).past[-1] == ("3.mlp",)
    with pytest.raises(BadPlan):
        walk(["99.attn"], back)


def test_a_browser_remembers_a_dozen_jobs(engine, visitor):
    jobs, state = JobHandlers(engine, Turns()), dict(NO_JOBS)
    kept = {"jobs": []}
    for _ in range(14):
        begun = jobs.pairs(Call("s"), visitor, state)
        engine._jobs[begun["jobs"]["own"]] = JobView(begun["jobs"]["own"], "pairs", "done")
        state, kept = begun["jobs"], begun["browser"]
    assert len(kept["jobs"]) == 12
    assert kept["jobs"][-1] == state["own"]


def test_a_poll_takes_a_result_once_and_then_rests(engine, visitor):
    jobs = JobHandlers(engine, Turns())
    engine._tables["t"] = engine.table("example")
    engine._jobs["mine"] = JobView("mine", "score", "done", result={"table_key": "t"})
    state = {**NO_JOBS, "own": "mine"}
    first = jobs.poll(Call("s"), visitor, state, "ppl", "rank")
    assert (first["visitor"].table_key, first["visitor"].removed) == ("t", ("18.attn",))
    assert first["timer"]["active"] is False
    second = jobs.poll(Call("s"), first["visitor"], state, "ppl", "rank")
    assert "visitor" not in second
    assert first["job"]["settled"] == second["job"]["settled"] == 1


@pytest.mark.parametrize(("elapsed", "seconds"), [(0, 0.5), (9, 0.5), (10, 1), (59, 1), (60, 2)])
def test_a_long_job_is_looked_at_less_often_and_a_new_one_as_often_as_ever(
    engine, visitor, elapsed, seconds
):
    jobs = JobHandlers(engine, Turns())
    engine._jobs["mine"] = JobView("mine", "score", "running", elapsed=elapsed)
    update = jobs.poll(Call("s"), visitor, {**NO_JOBS, "own": "mine"}, "ppl", "rank")
    assert (update["timer"]["active"], update["timer"]["value"]) == (True, seconds)
    assert set(update) == {"job", "timer"}  # the rest of the page is left alone
    begun = jobs.begin(Call("t"), dict(NO_JOBS), lambda: "mine")
    assert begun["timer"]["value"] == 0.5


def test_jobs_that_end_in_the_same_poll_both_leave_their_result(engine, visitor):
    """The demo model's end draws the page anew: with what the visitor's own job has made."""
    jobs = JobHandlers(engine, Turns())
    engine._exports["e"] = Exported(make_report(engine.info, ExportRequest(visitor.plan(), Path())))
    engine._jobs["mine"] = JobView("mine", "export", "done", result={"export_key": "e"})
    engine._jobs["demo"] = JobView("demo", "load", "done", result=engine.info)
    state = {**NO_JOBS, "own": "mine", "demo": "demo"}
    update = jobs.poll(Call("s"), visitor, state, "ppl", "rank")
    assert update["visitor"].export_key == "e" and "header" in update


def test_a_cancelled_score_keeps_what_it_has(engine, visitor):
    engine._tables["t"] = engine.table("example")
    engine._jobs["mine"] = JobView("mine", "score", "cancelled", partial={"table_key": "t"})
    state = {**NO_JOBS, "own": "mine"}
    update = JobHandlers(engine, Turns()).poll(Call("s"), visitor, state, "ppl", "rank")
    assert update["visitor"].table_key == "t"


def test_a_failed_job_shows_its_words(engine, visitor):
    engine._jobs["mine"] = JobView("mine", "score", "failed", error="Asked. Found. Do.")
    state = {**NO_JOBS, "own": "mine"}
    update = JobHandlers(engine, Turns()).poll(Call("s"), visitor, state, "ppl", "rank")
    assert update["error"]["text"] == "Asked. Found. Do."


def test_a_second_job_of_one_page_waits(engine):
    engine._jobs["mine"] = JobView("mine", "score", "running")
    with pytest.raises(BadInput, match="press Cancel first"):
        JobHandlers(engine, Turns()).load(Call("s"), {"own": "mine"}, "demo", "", "auto")


def test_a_job_begun_while_the_page_was_still_opening_is_not_forgotten(engine, visitor):
    jobs = JobHandlers(engine, Turns())
    begun = jobs.pairs(Call("s"), visitor, dict(NO_JOBS))["jobs"]["own"]
    opened = jobs.open(Call("s"), visitor, None, "rank")["jobs"]
    assert opened["own"] == begun
    for stale in (opened, {**NO_JOBS, "own": "older"}, dict(NO_JOBS)):
        assert jobs.own_job(Call("s"), stale).id == begun
        assert jobs.poll(Call("s"), visitor, stale, "ppl", "rank")["job"]["text"]
    assert jobs.own_job(Call("another"), dict(NO_JOBS)) is None
    jobs.leave("s")
    assert jobs.own_job(Call("s"), dict(NO_JOBS)) is None


GOOD = (["bi"], "demo", None, 32, 128, 42, "stream", "block", "", 48)


@pytest.mark.parametrize(
    ("place", "forged"),
    [(0, []), (0, ["nope"]), (0, "bi"), (0, ["bi"] * 99), (1, "c4"), (1, "/etc/passwd"),
     (1, "upload"), (3, 65), (3, "3"), (4, 513), (5, -1), (6, "both"), (7, "head")],
)  # fmt: skip
def test_forged_score_settings_start_nothing(place, forged):
    engine = FakeEngine(mode="hosted", is_ready=True)
    raw = [*GOOD[:place], forged, *GOOD[place + 1 :]]
    with pytest.raises(BlockvizError) as caught:
        JobHandlers(engine, Turns()).score(Call("s"), NO_JOBS, *raw)
    assert is_three_sentences(str(caught.value))
    assert engine._jobs == {}


def test_a_checked_model_may_be_loaded_and_an_edit_takes_that_back(engine):
    jobs = JobHandlers(engine, Turns())
    assert jobs.check(Call(), "owner/name", "")["load"]["interactive"]
    assert not jobs.unchecked(Call())["load"]["interactive"]
    refused = jobs.check(Call(), "nobody/nothing", "")
    assert not refused["load"]["interactive"]
    assert "Check the spelling" in refused["error"]["text"]
    with pytest.raises(BadInput, match="box is empty"):
        inputs.model_id("  ", None)


# The seams


def test_a_bug_shows_a_reference_and_logs_the_trace(caplog):
    def broken(call):
        raise KeyError("/secret/path")

    with caplog.at_level(logging.ERROR):
        (update,) = guarded(broken, Call(), ())
    text = update["error"]["text"]
    ref = re.fullmatch(r"Something went wrong \(ref ([0-9a-f]{4})\)\. Nothing was lost\.", text)[1]
    assert ref in caplog.text
    assert "/secret/path" in caplog.text


def test_the_same_error_twice_is_shown_twice():
    error = BadPlan("A.", "B.", "C.")
    assert failure(error)["error"]["id"] != failure(error)["error"]["id"]


def test_a_refusal_goes_when_what_was_refused_is_done_after_all(engine):
    refusals, refused = Refusals(), failure(BadInput("A.", "B.", "C."))
    assert refusals.answered("s", "check", refused) == refused
    for session, action in (("s", "toggle"), ("t", "check")):
        assert refusals.answered(session, action, {"load": 1}) == {"load": 1}
    assert refusals.answered("s", "check", {"load": 1}) == {"load": 1, "error": views.NO_ERROR}
    assert refusals.answered("s", "check", {"load": 1}) == {"load": 1}
    # What a job has said at its end was refused to nobody, and stays.
    said = {"error": error_view("The job failed.")}
    refusals.answered("s", "check", refused)
    assert refusals.answered("s", "poll", said) == said
    for action in ("poll", "check"):
        assert refusals.answered("s", action, {"job": 1}) == {"job": 1}


def test_an_answer_for_a_component_that_is_no_output_is_a_bug():
    assert to_outputs(("a", "b"), {"b": 1})[1] == 1
    with pytest.raises(KeyError, match="'c'"):
        to_outputs(("a", "b"), {"c": 1})


def test_a_component_name_is_taken_once():
    screen = Screen()
    screen.add("x", object())
    with pytest.raises(ValueError, match="'x'"):
        screen.add("x", object())


@pytest.fixture(scope="module")
def app() -> gr.Blocks:
    return build_app(FakeEngine(is_hostile=True))


def test_a_value_of_a_generator_never_changes_the_one_before_it():
    """What a browser may still have to draw: it puts edits into the object that it was given."""
    page, fn = Page(), SimpleNamespace(outputs=["a", "b", "c"])
    steps = [{"text": "one"}, {"__type__": "update"}, {"text": "two"}]
    sent = [
        page.handle_streaming_diffs(fn, [dict(step), "x", [i]], "s", "run", final=i == 3)
        for i, step in enumerate([*steps, {}])
    ]
    assert sent[0] == [{"text": "one"}, "x", [0]]
    assert sent[1:3] == [
        [[["replace", [], step]], [], [["replace", [], [i]]]] for i, step in enumerate(steps) if i
    ]
    assert sent[3] == [{"text": "two"}, "x", [2]]
    whole = [page.handle_streaming_diffs(fn, [i, i, i], "s", "2", final=False, simple_format=True)
             for i in (1, 2)]  # fmt: skip
    assert whole == [[1, 1, 1], [2, 2, 2]]
    assert page.handle_streaming_diffs(fn, [1, 2, 3], None, None, final=False) == [1, 2, 3]


def test_no_endpoint_is_public_but_those_with_a_name_of_ours(app):
    public = {fn.api_name for fn in app.fns.values() if fn.api_visibility != "private"}
    assert public == {"load", "score", "search", "evaluate", "generate", "export"}


def test_light_handlers_stay_out_of_the_queue(app):
    streamed = [fn for fn in app.fns.values() if fn.concurrency_id in ("compute", "writing")]
    assert all(fn.queue and fn.concurrency_limit == 1 for fn in streamed)
    assert len(streamed) > 5
    named = [fn for fn in app.fns.values() if fn.concurrency_id == "endpoints"]
    assert len(named) == 6
    reports = [fn for fn in app.fns.values() if fn.concurrency_id == "reports"]
    assert [(fn.queue, fn.concurrency_limit) for fn in reports] == [(True, 1)]
    known = (*streamed, *named, *reports)
    others = [fn for fn in app.fns.values() if fn.queue and fn not in known]
    # Closing the page, and Check, which may wait for a hub.
    assert len(others) == 2


def test_first_paint_is_in_the_page_itself(app):
    config = json.dumps(app.get_config_file(), default=str)
    assert "58 of 60" in config
    assert "rank 1 of 60" in config


def test_templates_hold_no_placeholder(app):
    """Gradio evaluates `${...}` and `{{...}}` in a template, also when they come out of data."""
    ours = [b for b in app.blocks.values() if isinstance(b, gr.HTML)]
    assert len(ours) > 15
    for block in ours:
        assert "${" not in block.html_template
        assert "{{" not in block.html_template
        assert HOSTILE not in block.html_template


@pytest.mark.parametrize("path", sorted(JS.glob("*.js")), ids=lambda p: p.name)
def test_scripts_never_parse_text_as_html(path):
    text = path.read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                "new Function", "DOMParser", "http://", "https://"):  # fmt: skip
        assert way not in text, way


def test_nothing_is_shared_or_kept_by_default(engine):
    settings = launch_settings(engine)
    off = ("share", "show_error", "run_history", "enable_monitoring", "ssr_mode", "pwa")
    assert [settings[name] for name in off] == [False] * len(off)
    assert settings["allowed_paths"] == []


def test_hosted_mode_offers_the_bundled_model_and_texts_only():
    app = build_app(FakeEngine(mode="hosted"))
    by_id = {b.elem_id: b for b in app.blocks.values() if getattr(b, "elem_id", None)}
    assert [value for _, value in by_id["example"].choices] == ["demo"]
    assert {value for _, value in by_id["source"].choices} == {"demo", "own"}
    assert by_id["model"].interactive is False
    assert by_id["n-new"].maximum == 128
    assert launch_settings(FakeEngine(mode="hosted"))["max_file_size"] == 1 << 20


def test_the_fake_engine_agrees_with_itself(engine):
    single = engine.known(PruningPlan(removed=(BlockId(3, "attn"),)))
    assert single.perplexity > BASELINE
    assert engine.known(PruningPlan()).perplexity == BASELINE


def test_what_waited_in_the_queue_while_cancel_was_pressed_does_not_start():
    """Only a new wish of the page, or its Measure now button, measures again."""
    engine, turns = FakeEngine(is_ready=True, step=0), Turns()
    live, jobs = LiveHandlers(engine, turns), JobHandlers(engine, turns)
    visitor = Visitor(model_key=engine.model_key, removed=("1.attn", "2.mlp", "3.mlp"))
    wish = (visitor, "rank")
    turns.begin("s")
    jobs.cancel(Call("s"), visitor, dict(NO_JOBS))
    assert list(live.follow(Call("s"), *wish)) == [{"work": views.CANCELLED}]
    assert engine.calls == []
    live.ask_measure(Call("s"))
    assert list(live.follow(Call("s"), *wish))[-1]
    assert engine.calls == ["measure 3"]
    jobs.cancel(Call("s"), visitor, dict(NO_JOBS))
    assert list(live.follow(Call("t"), *wish)) != []  # another page was not cancelled
    turns.begin("s")
    assert list(live.follow(Call("s"), *wish)) != []


def test_the_ranks_that_chance_leaves_open_are_said_of_block_and_layer():
    a, layer = BlockId(0, "attn"), BlockId(1, "layer")
    intervals = {a: (1, 17), BlockId(0, "mlp"): (3, 3), layer: (2, 4)}
    assert map_views.could_be(intervals, a) == "1\u201317"
    assert map_views.could_be(intervals, BlockId(0, "mlp")) == ""  # certain
    assert map_views.could_be(intervals, BlockId(1, "mlp")) == "2\u20134"
    assert map_views.could_be(intervals, BlockId(2, "mlp")) == ""
    assert map_views.could_be(None, a) == ""


def test_the_map_shows_what_cannot_be_told_apart_as_the_rankings_say():
    engine = FakeEngine(is_ready=True)
    visitor, drawing = Visitor(model_key=engine.model_key), Drawing(engine)
    table, block = engine.table("example"), BlockId(12, "attn")
    expected = rank_intervals(table.metrics["bi"])
    view = drawing.grid(visitor, "bi", "rank", "12.attn")
    assert set(view["grid"]["tied"]) == {str(b) for b in tied_with(table.metrics["bi"], block)}
    assert view["grid"]["tied"] and "12.attn" not in view["grid"]["tied"]
    for row in view["ranking"]["rows"]:
        low, high = expected[BlockId.parse(row["block"])]
        assert row["range"] == (f"{low}\u2013{high}" if low < high else "")
    shown = {row["title"]: row["range"] for row in view["block"]["rows"]}
    low, high = expected[block]
    assert shown["Block influence"] == f"{low}\u2013{high}"
    assert shown["Perplexity if cut"] == ""  # the fake's perplexities carry no error
    headers, rows = (drawing.map(visitor, "rank")["table"][k] for k in ("headers", "data"))
    at = headers.index("lowest rank by Block influence")
    by_name = {row[0]: row for row in rows}
    assert by_name["12.attn"][at : at + 2] == [low, high]
    assert "lowest rank by Perplexity if cut" not in headers


def test_a_curve_of_another_ranking_is_not_drawn():
    engine = FakeEngine(is_ready=True)
    visitor, cards = Visitor(model_key=engine.model_key), InsightCards(engine)
    how = {"metric": "bi", "is_log": True, "lens": None}
    drawn = cards.page("right", visitor, **how)
    assert {card.provenance_note.rpartition(" · ")[2] for card in drawn.values()} == {"bundled"}
    names = {row[0] for row in drawn["cumulative"].rows}
    assert {"Block influence", "Logit disruption"} <= names
    scores = engine._tables["example"].metrics
    turned = {b: -v for b, v in scores["bi"].values.items()}
    scores["bi"] = replace(scores["bi"], values=turned)
    again = {row[0] for row in cards.page("right", visitor, **how)["cumulative"].rows}
    assert again == names - {"Block influence"}


@pytest.mark.parametrize("content", ["{", "\xff", "[" * 100_000, None])
def test_an_uploaded_file_that_is_no_json_is_refused(tmp_path, content):
    path = tmp_path / "scores.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(BadInput) as caught:
        inputs.json_file(str(path), "A scores file")
    assert is_three_sentences(str(caught.value))
    for raw in (None, 3, ["x"], {"path": str(path)}, ""):
        with pytest.raises(BadInput):
            inputs.json_file(raw, "A scores file")


def test_an_answer_worked_out_from_an_older_plan_is_worked_out_again():
    """A poll that began before a toggle and ends after it must not bring the block back."""
    visitors, page = Visitors(), Visitor(removed=("18.attn",))

    def toggled(visitor):
        return {"visitor": visitor.with_removed((*visitor.removed, "12.mlp"))}

    def slow_poll(visitor):
        seen.append(visitor.removed)
        if len(seen) == 1:
            visitors.settled("page", page, toggled)
        return {"visitor": replace(visitor, table_key="new")}

    seen = []
    update = visitors.settled("page", page, slow_poll)
    assert seen == [("18.attn",), ("18.attn", "12.mlp")]
    assert update["visitor"].removed == ("18.attn", "12.mlp")
    assert update["visitor"].table_key == "new"
    assert visitors.newest("page", page) is update["visitor"]
    assert visitors.newest("another page", page) is page


def test_a_page_that_left_is_forgotten():
    visitors, page = Visitors(), Visitor()
    visitors.settled("page", page, lambda v: {"visitor": v.with_removed(("3.attn",))})
    visitors.forget("page")
    assert visitors.newest("page", page) is page


def test_every_change_of_the_plan_is_counted_and_shown_to_the_grid():
    """A drawing that began before a change must not bring the older plan back to the page."""
    visitor = Visitor(removed=("3.attn",))
    after = visitor.with_removed(("3.attn", "4.mlp"))
    assert [v.changes for v in (visitor, after, after.undo(), after.undo().redo())] == [0, 1, 2, 3]
    assert after.with_removed(after.removed) is after
    # A link names whole layers first: no step of its own for Undo.
    assert after.with_removed(reversed(after.removed)) is after
    drawing = Drawing(FakeEngine())
    assert drawing.grid(after, "ppl", "rank", "")["grid"]["changes"] == 1
