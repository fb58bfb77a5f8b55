"""Search, Curves and Stand-ins without a browser: forged values, states, and what is drawn."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
from fake_engine import CARDS, HOSTILE, FakeEngine
from fake_search import STRATEGIES, make_run

from blockviz.errors import BadInput, BlockvizError, OverLimit
from blockviz.job_view import JobView
from blockviz.search import Goal, OneShot, Policy, Space, Window
from blockviz.search.presets import PRESETS as RECIPES
from blockviz.session import LiveResult, ScoreRequest, Visitor
from blockviz.session.pair_findings import pair_findings
from blockviz.session.search_space import check_search
from blockviz.session.search_views import Estimate, PairsRequest, SearchRequest
from blockviz.types import BlockId, Done, Progress, parts_of
from blockviz.ui import curves_cards, search_cards
from blockviz.ui.curves_handlers import CurvesHandlers
from blockviz.ui.found import MOST_SEARCHES, step_of, with_found
from blockviz.ui.insight_handlers import InsightHandlers
from blockviz.ui.job_handlers import NO_JOBS, JobHandlers
from blockviz.ui.pairs_view import foretold, pairs_for
from blockviz.ui.screen import Call
from blockviz.ui.search_form import FORM, TARGETS, aimed, filled, request_of
from blockviz.ui.search_handlers import SearchHandlers
from blockviz.ui.turns import Turns

LOG, LINEAR = True, False
GOOD = {
    "search_preset": "", "search_target": "count", "search_amount": 6,
    "search_strategy": "greedy", "strategy_settings": "", "search_objective": "ppl",
    "objective_settings": "", "search_unit": "block", "protect_first": 0, "protect_last": 0,
    "search_text": "demo", "search_samples": 16, "search_seq_len": 128, "search_seed": 42,
    "search_tasks": "", "search_task_rows": 48, "search_scores": "", "scores_settings": "",
    "search_pool": "", "search_with_repair": "", "with_repair_settings": "",
    "is_exhaustive": False,
}  # fmt: skip


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(step=0.0, is_ready=True)


@pytest.fixture
def visitor(engine) -> Visitor:
    return Visitor(model_key=engine.model_key, removed=("18.attn",))


@pytest.fixture
def search(engine) -> SearchHandlers:
    turns = Turns()
    return SearchHandlers(engine, JobHandlers(engine, turns), turns)


def form(**changes) -> list:
    assert tuple(GOOD) == FORM
    return list({**GOOD, **changes}.values())


def written(update: dict) -> dict:
    """Component name -> value, of a choice that comes with its list as well."""
    return {k: v["value"] if isinstance(v, dict) else v for k, v in update.items()}


def is_three_sentences(text: str) -> bool:
    return len(re.findall(r"[.!?](?:\s|$)", text)) >= 3


# The form


def test_the_settings_become_the_request_they_show(engine):
    request = request_of(engine, *form(
        search_target="ratio", search_amount=25, search_strategy="beam",
        strategy_settings="width=3", search_objective="lds", objective_settings="k=50",
        search_unit="layer", protect_first=2, protect_last=1, search_pool="bi:0.5",
        is_exhaustive=True, search_samples=8,
    ))  # fmt: skip
    assert request == SearchRequest(
        text=ScoreRequest(n_samples=8, limit=48), objective="lds:k=50", strategy="beam:width=3",
        unit="layer", ratio=0.25, protect_first=2, protect_last=1, pool="bi:0.5",
        is_exhaustive=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "amount", "field", "value"),
    [("count", 6, "blocks", 6), ("ratio", 15, "ratio", 0.15), ("speedup", 1.2, "speedup", 1.2),
     ("max_ppl_rise", 10, "max_ppl_rise", 10)],
)  # fmt: skip
def test_every_target_sets_its_own_field_and_no_other(engine, kind, amount, field, value):
    request = request_of(engine, *form(search_target=kind, search_amount=amount))
    found = {target.field: getattr(request, target.field) for target in TARGETS.values()}
    assert {name: amount for name, amount in found.items() if amount is not None} == {field: value}


FORGED = [
    ("search_preset", "nope"), ("search_target", "all"), ("search_target", None),
    ("search_amount", "6"), ("search_amount", None), ("search_amount", 0), ("search_amount", 2.5),
    ("search_amount", math.nan), ("search_amount", math.inf), ("search_amount", True),
    ("search_strategy", "nope"), ("search_strategy", ["greedy"]), ("strategy_settings", "x" * 81),
    ("strategy_settings", {"a": 1}), ("search_objective", "bi"), ("search_unit", "head"),
    ("protect_first", -1), ("protect_last", "2"), ("search_text", "c4"),
    ("search_text", "/etc/passwd"), ("search_text", "upload"), ("search_samples", 65),
    ("search_seq_len", 513), ("search_seed", -1), ("search_tasks", "nope"),
    ("search_task_rows", 0), ("search_scores", "nope"), ("search_scores", ["bi"]),
    ("search_pool", 3), ("search_pool", "x" * 81),
]  # fmt: skip


@pytest.mark.parametrize(("name", "forged"), FORGED, ids=lambda raw: str(raw)[:24])
def test_forged_settings_start_nothing(name, forged):
    engine = FakeEngine(mode="hosted", is_ready=True, step=0.0)
    search = SearchHandlers(engine, JobHandlers(engine, Turns()), Turns())
    visitor = Visitor(model_key=engine.model_key)
    with pytest.raises(BlockvizError) as caught:
        search.start(Call("s"), visitor, dict(NO_JOBS), *form(**{name: forged}))
    assert is_three_sentences(str(caught.value))
    assert (engine._jobs, engine.calls) == ({}, [])


@pytest.mark.parametrize("amount", [math.nan, -1, "15", 99.5, None])
def test_a_share_of_parameters_that_is_none_is_refused(engine, amount):
    with pytest.raises(BlockvizError, match=r"0\.1 and 99"):
        request_of(engine, *form(search_target="ratio", search_amount=amount))


def test_a_recipe_fills_the_form_and_gives_the_request_its_name(engine, search):
    update = written(search.fill(Call("s"), "shortgpt"))
    raw = {"search_preset": "shortgpt", **update}
    request = request_of(engine, *form(**raw))
    assert request.preset == "shortgpt"
    assert (request.strategy, request.scores, request.unit) == ("oneshot", "bi", "layer")
    assert "search_amount" not in update and "search_text" not in update
    assert request_of(engine, *form(**{**raw, "search_samples": 4})).preset == "shortgpt"
    for change in ({"search_unit": "block"}, {"protect_first": 1}, {"search_pool": "bi:0.5"},
                   {"strategy_settings": "x=1"}, {"is_exhaustive": True}):  # fmt: skip
        assert request_of(engine, *form(**{**raw, **change})).preset == ""


def test_one_recipe_leaves_nothing_of_another_behind(engine, search):
    first = written(search.fill(Call("s"), "sleb"))
    assert (first["protect_first"], first["protect_last"]) == (1, 1)
    second = written(search.fill(Call("s"), "blockpruner"))
    request = request_of(engine, *form(**{**first, **second, "search_preset": "blockpruner"}))
    assert (request.preset, request.protect_first, request.unit) == ("blockpruner", 0, "block")


def test_a_repair_on_the_way_is_asked_for_by_name_and_settings(engine):
    found = request_of(engine, *form(
        search_with_repair="ridge", with_repair_settings="ridge=0.01"
    ))  # fmt: skip
    assert found.with_repair == "ridge:ridge=0.01"
    trained = [card.name for card in engine.correction_cards() if card.is_experimental]
    for name in ("nonsense", *trained):
        with pytest.raises(BadInput, match="no such choice"):
            request_of(engine, *form(search_with_repair=name))


def test_every_recipe_survives_the_way_over_the_page(engine):
    """What is filled in reads back as the recipe's own method, settings and shares included."""
    engine.objectives = engine.metrics = lambda: [
        replace(engine_card, name=name)
        for engine_card in CARDS[:1]
        for name in ("ppl", "lds", "js", "acc", "bi", "rm", "taylor", "ang_win", "cos_win",
                     "tabp_ddf")
    ]  # fmt: skip
    engine.strategies = lambda: [
        replace(STRATEGIES[0], name=name)
        for name in {recipe.settings["strategy"] for recipe in RECIPES}
    ]
    engine.presets = lambda: RECIPES
    for recipe in RECIPES:
        update = written(filled(engine, recipe.name))
        found = request_of(engine, *form(search_preset=recipe.name, **update))
        assert found.preset == recipe.name
        assert found.protect_first == recipe.protect_first(engine.info.n_layers)
        for field in {"objective", "strategy", "unit", "scores", "with_repair"} & set(
            recipe.settings
        ):
            assert getattr(found, field) == recipe.settings[field]
        if "tasks" in recipe.settings.get("text", {}):
            assert found.text.tasks == recipe.settings["text"]["tasks"]


@pytest.mark.parametrize(
    ("strategy", "unit", "offered", "kept"),
    [
        ("greedy", "mlp", ["block", "layer", "attn", "mlp"], "mlp"),
        ("window", "block", ["block", "layer"], "block"),
        ("window", "mlp", ["block", "layer"], "layer"),
    ],
)
def test_only_units_that_the_strategy_searches_are_offered(
    engine, search, strategy, unit, offered, kept
):
    """`window` searches layers first of all, and blocks: what is chosen stays where it can."""
    window = replace(STRATEGIES[0], name="window", units=("layer", "block"))
    engine.strategies = lambda: (*STRATEGIES, window)
    update = search.narrow(Call("s"), strategy, unit)["search_unit"]
    assert [value for _, value in update["choices"]] == offered
    assert update["value"] == kept
    request_of(engine, *form(search_strategy=strategy, search_unit=update["value"]))


def test_a_recipe_brings_the_units_of_its_strategy(engine, search):
    few = [replace(card, units=("layer", "block")) for card in STRATEGIES]
    engine.strategies = lambda: few
    update = search.fill(Call("s"), "shortgpt")["search_unit"]
    assert [value for _, value in update["choices"]] == ["block", "layer"]
    assert update["value"] == "layer"


@pytest.mark.parametrize(("strategy", "unit"), [("nope", "block"), ("greedy", "head"), (None, 3)])
def test_a_forged_strategy_or_unit_narrows_nothing(search, strategy, unit):
    with pytest.raises(BlockvizError) as caught:
        search.narrow(Call("s"), strategy, unit)
    assert is_three_sentences(str(caught.value))


def test_settings_that_left_their_recipe_lose_its_name_on_the_page(search):
    same = search.describe(Call("s"), *form(search_preset="blockpruner"))
    assert "search_preset" not in same
    assert "Its text is alpaca, 16 windows of 2048" in same["search_about"]["note"]
    assert same["search_about"]["address"].startswith("https://")
    left = search.describe(Call("s"), *form(search_preset="blockpruner", search_unit="mlp"))
    assert left["search_preset"] == ""
    assert left["search_about"]["text"].startswith("Removes the block")


def test_an_experimental_strategy_is_called_that(search):
    text = search.describe(Call("s"), *form(search_strategy="policy"))["search_about"]
    assert "Experimental" in text["note"]


def test_another_kind_of_target_asks_for_its_own_number(search):
    assert search.aim(Call("s"), "speedup") == aimed("speedup")
    assert "2\u00d7" not in aimed("speedup")["search_amount"]["label"]
    with pytest.raises(BadInput, match="no such choice"):
        search.aim(Call("s"), "everything")


# What the session refuses


REFUSED = [
    {"blocks": None}, {"unit": "mlp", "strategy": "window"}, {"level": 2.0}, {"pool": "half"},
    {"blocks": None, "max_ppl_rise": 3.0, "objective": "kl"}, {"objective": "bi"},
    {"objective": "kl", "engine": "slow"}, {"protect_first": 99}, {"blocks": 99},
]  # fmt: skip


@pytest.mark.parametrize("how", REFUSED, ids=str)
def test_no_refusal_of_a_search_speaks_in_flags(engine, how):
    """The page has none."""
    with pytest.raises(BlockvizError) as caught:
        check_search(replace(SearchRequest(blocks=2), **how), engine.info)
    assert is_three_sentences(str(caught.value)) and "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("strategy", "space"),
    [(Window(), {"goal": Goal(1)}), (OneShot(), {"goal": Goal(1)}),
     (Policy(), {"goal": Goal(max_value=1.0)})],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_no_refusal_of_a_strategy_speaks_in_flags(engine, strategy, space):
    with pytest.raises(BlockvizError) as caught:
        next(strategy.search(Space(engine.info.units("layer"), n_blocks=60, **space)))
    assert is_three_sentences(str(caught.value)) and "--" not in str(caught.value)


def test_no_note_of_a_recipe_speaks_in_flags():
    assert not [recipe.name for recipe in RECIPES if "--" in recipe.meaning + recipe.note]


# The time ahead


def test_the_time_is_said_before_the_start(engine, search, visitor):
    updates = list(search.estimate(Call("s"), visitor, *form()))
    assert updates[0]["search_time"]["text"].startswith("Timing")
    # 60 + 59 + ... + 55 sets of 0.11 s to 0.33 s.
    assert updates[-1]["search_time"]["text"] == (
        "About 40\u202fs to 2\u202fmin, up to 345 removed sets."
    )
    assert engine.calls == ["estimate greedy"]


def test_a_refusal_stands_where_the_time_would(engine, search, visitor):
    *_, last = search.estimate(Call("s"), visitor, *form(search_amount=0))
    assert "must lie between 1" in last["search_time"]["text"]
    assert engine.calls == []
    *_, last = search.estimate(Call("s"), visitor, *form(search_amount=60))
    assert "must lie between 1 and 59 here" in last["search_time"]["text"]

    def refuse(request: SearchRequest) -> None:
        raise BadInput("Too many.", "There are fewer.", "Remove fewer.")

    engine.estimate_search = refuse
    *_, last = search.estimate(Call("s"), visitor, *form())
    assert last["search_time"]["text"] == "Too many. There are fewer. Remove fewer."


def test_nothing_is_timed_before_the_model_is_there(visitor):
    engine = FakeEngine(step=0.0)
    search = SearchHandlers(engine, JobHandlers(engine, Turns()), Turns())
    (update,) = search.estimate(Call("s"), visitor, *form())
    assert "still loading" in update["search_time"]["text"]
    assert engine.calls == []


def test_closing_the_estimate_closes_the_engine_s_work(engine, search, visitor):
    closed = []

    def estimate_search(request):
        try:
            yield Progress("", 0, 1)
            raise BadInput("Asked.", "Found.", "Do.")
        finally:
            closed.append(request.strategy)

    engine.estimate_search = estimate_search
    *_, last = search.estimate(Call("s"), visitor, *form())
    assert last["search_time"]["text"] == "Asked. Found. Do."
    assert closed == ["greedy"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "1\u202fs"), (8.4, "8\u202fs"), (38, "40\u202fs"), (54.9, "55\u202fs"), (57, "1\u202fmin"),
     (114, "2\u202fmin"), (3500, "1.0\u202fh"), (9000, "2.5\u202fh"), (36_000, "10\u202fh"),
     (math.inf, "an unknown time")],
)  # fmt: skip
def test_a_guess_is_said_as_one(seconds, said):
    assert search_cards.roughly(seconds) == said


def test_equal_ends_of_a_guess_are_said_once():
    assert search_cards.guessed(Estimate(8, 8.2, 12)) == "About 8\u202fs, up to 12 removed sets."


@pytest.mark.parametrize(
    ("unit", "most"), [("block", 59), ("layer", 29), ("attn", 30), ("mlp", 30)]
)
def test_the_range_of_a_target_is_that_of_the_model(engine, unit, most):
    """One block always stays, of whichever kind; the demo has 30 layers."""
    asked = {"search_target": "count", "search_unit": unit}
    assert request_of(engine, *form(**asked, search_amount=most)).blocks == most
    with pytest.raises(OverLimit, match=f"between 1 and {most} here"):
        request_of(engine, *form(**asked, search_amount=most + 1))


@pytest.mark.parametrize(
    ("limit", "more"),
    [(None, ""), (1800, ""),
     (600, " It may be stopped at the limit of 10\u202fmin, with what it has by then."),
     (300, " It is stopped at the limit of 5\u202fmin, with what it has by then.")],
)  # fmt: skip
def test_a_guess_beyond_the_limit_says_that_the_limit_is_the_end(limit, more):
    said = search_cards.guessed(Estimate(480, 1500, 732), limit)
    assert said == f"About 8\u202fmin to 25\u202fmin, up to 732 removed sets.{more}"


# Running


def test_a_search_starts_one_job_and_a_second_one_waits(engine, search, visitor):
    engine.step = 0.05
    started = search.start(Call("s"), visitor, dict(NO_JOBS), *form())
    assert engine.calls == ["search greedy"]
    assert started["browser"] == {"jobs": [started["jobs"]["own"]]}
    assert "first decision" in started["search_note"]["text"]
    with pytest.raises(BadInput, match="press Cancel first"):
        search.start(Call("s"), visitor, started["jobs"], *form())
    engine.cancel(started["jobs"]["own"])


def test_a_search_of_a_model_that_is_gone_does_not_start(engine, search, visitor):
    with pytest.raises(BadInput, match="Reload the page"):
        search.start(Call("s"), replace(visitor, model_key="x"), dict(NO_JOBS), *form())
    assert engine.calls == []


def with_run(engine, key, n_steps, **settings):
    run = make_run(engine.info, SearchRequest(blocks=6), n_steps=n_steps, **settings)
    engine._searches[key] = run
    return run


def test_a_poll_shows_a_running_search_and_leaves_the_rest_alone(engine, visitor):
    jobs = JobHandlers(engine, Turns())
    with_run(engine, "new", 2, is_partial=True)
    engine._jobs["mine"] = JobView("mine", "search", "running", partial={"search_key": "new"})
    state = {**NO_JOBS, "own": "mine"}
    first = jobs.poll(Call("s"), visitor, state, "ppl", "rank")
    assert first["visitor"].searches == ("example", "new")
    assert first["visitor"].removed == visitor.removed
    assert (first["job"]["found"], first["job"]["step"]) == ("search", "new 2")
    assert "grid" not in first and "heat" not in first
    again = jobs.poll(Call("s"), first["visitor"], state, "ppl", "rank")
    assert "visitor" not in again
    with_run(engine, "new", 3, is_partial=True)
    assert jobs.poll(Call("s"), first["visitor"], state, "ppl", "rank")["job"]["step"] == "new 3"


@pytest.mark.parametrize("state", ["done", "cancelled", "failed"])
def test_what_a_search_found_is_kept_however_it_ends(engine, visitor, state):
    jobs = JobHandlers(engine, Turns())
    with_run(engine, "new", 2, is_partial=state != "done")
    found = {"search_key": "new", "warning": ""}
    kept = {"result": found} if state == "done" else {"partial": found}
    engine._jobs["mine"] = JobView("mine", "search", state, error="A. B. C.", **kept)
    own = {**NO_JOBS, "own": "mine"}
    update = jobs.poll(Call("s"), visitor, own, "ppl", "rank")
    assert update["visitor"].searches == ("example", "new")
    assert ("error" in update) == (state == "failed")
    note = SearchHandlers(engine, jobs, Turns()).newest(Call("s"), update["visitor"], own)
    said = note["search_note"]["text"]
    expected = {"done": "", "cancelled": "stopped before its target", "failed": "search failed"}
    assert expected[state] in said and bool(said) == (state != "done")


def test_a_reload_finds_the_search_that_is_running(engine):
    jobs = JobHandlers(engine, Turns())
    with_run(engine, "new", 1, is_partial=True)
    engine._jobs["mine"] = JobView("mine", "search", "running", partial={"search_key": "new"})
    update = jobs.open(Call("s"), jobs.drawing.first_visitor(), {"jobs": ["mine"]}, "rank")
    assert update["visitor"].searches[-1] == "new"


def test_the_last_eight_searches_are_kept_each_once(engine, visitor):
    run = engine.search_run("example")
    for i in range(12):
        engine._searches[f"s{i}"] = run
        job = JobView("j", "search", "done", result={"search_key": f"s{i}"})
        visitor = with_found(engine, visitor, job)
    assert visitor.searches == tuple(f"s{i}" for i in range(12 - MOST_SEARCHES, 12))
    back = with_found(engine, visitor, JobView("j", "search", "done", result={"search_key": "s7"}))
    assert back.searches[-1] == "s7" and back.searches.count("s7") == 1


@pytest.mark.parametrize("result", [None, "new", {"search_key": 3}, {"search_key": "gone"}, {}])
def test_a_result_that_names_nothing_changes_nothing(engine, visitor, result):
    job = JobView("j", "search", "done", result=result)
    assert with_found(engine, visitor, job) is visitor
    assert step_of(engine, job) == {}


# What is shown


def test_the_candidates_say_what_each_decision_did(engine, search, visitor):
    update = search.draw(Call("s"), visitor, dict(NO_JOBS), None)
    run, view = engine.search_run("example"), update["candidates"]
    assert [row["step"] for row in view["rows"]] == list(range(11, -1, -1))
    first, last = view["rows"][-1], view["rows"][0]
    step = run.steps[0]
    share = engine.info.parameters_of(step.removed) / engine.info.n_parameters
    assert first["cells"][0] == "1" and first["cells"][2] == str(step.removed[0])
    assert f"{100 * share:.1f}" in first["cells"][3]
    assert f"{step.number:.1f}" in first["cells"][1]
    assert first["cells"][4:6] == ["99.8\u202f%", f"{step.evaluated:.1f} of {step.of}"]
    assert last["is_best"] and not first["is_best"]
    assert update["search_note"]["text"] == ""
    json.dumps(view, allow_nan=False)


def test_a_swap_says_what_came_back():
    a, b, c = BlockId(1, "attn"), BlockId(2, "mlp"), BlockId(3, "mlp")
    assert search_cards._change((a, b), (a, c)) == "3.mlp, 2.mlp back"
    assert search_cards._change((a,), (a,)) == "\u2013"
    both = (BlockId(4, "attn"), BlockId(4, "mlp"))
    assert search_cards._change((), both) == "4.layer"


def test_only_certainty_is_called_certain():
    assert search_cards.sure(1.0) == "100\u202f%"
    assert search_cards.sure(0.99999) == "99.9\u202f%"


def test_the_set_on_the_map_is_marked_among_the_candidates(engine, search, visitor):
    run = engine.search_run("example")
    parts = [str(p) for p in reversed(run.steps[3].removed)]
    marked = search.mark(Call("s"), replace(visitor, removed=tuple(parts)), "example")
    on = [row["step"] for row in marked["candidates"]["rows"] if row["is_applied"]]
    assert on == [3]
    assert search.mark(Call("s"), visitor, "gone") == {}


def test_without_a_search_the_tab_says_what_to_press(engine, search, visitor):
    engine._searches.clear()
    update = search.draw(Call("s"), visitor, dict(NO_JOBS), "example")
    assert "press Start search" in update["search_note"]["text"]
    assert update["search_progress_plot"] is None
    assert update["candidates"]["rows"] == []


def test_a_search_of_a_model_that_is_gone_is_shown_but_not_offered(engine, search, visitor):
    old = replace(visitor, model_key="another")
    run = engine._searches["example"]
    other = replace(run, provenance=replace(run.provenance, model="another"))
    engine._searches["example"] = other
    update = search.draw(Call("s"), old, dict(NO_JOBS), None)
    assert "Reload the page" in update["search_note"]["text"]
    assert update["candidates"]["rows"] == []
    assert update["search_progress_plot"] is not None


def test_a_chosen_search_stays_until_a_newer_one_comes(engine, search, visitor):
    with_run(engine, "new", 2)
    seen = replace(visitor, searches=("example", "new"))
    chosen = search.draw(Call("s"), seen, dict(NO_JOBS), "example")
    assert chosen["search_shown"]["value"] == "example"
    assert [key for _, key in chosen["search_shown"]["choices"]] == ["new", "example"]
    assert search.newest(Call("s"), seen, dict(NO_JOBS))["search_shown"]["value"] == "new"
    forged = search.draw(Call("s"), seen, dict(NO_JOBS), {"key": "example"})
    assert forged["search_shown"]["value"] == "new"


# Apply


def test_apply_puts_the_set_on_the_map_and_undo_takes_it_back(engine, search, visitor):
    call = Call("s", {"key": "example", "step": 4})
    update = search.apply(call, visitor, "ppl", "rank")
    wanted = engine.search_run("example").steps[4].removed
    assert update["visitor"].plan().removed == tuple(p for b in wanted for p in b.parts)
    assert update["grid"]["removed"] == list(update["visitor"].removed)
    assert update["undo"]["interactive"]
    assert update["visitor"].undo().removed == ("18.attn",)


def test_a_set_of_layers_is_applied_as_its_blocks(engine, search, visitor):
    layers = make_run(engine.info, SearchRequest(blocks=2, unit="layer"))
    engine._searches["layers"] = layers
    seen = replace(visitor, searches=("layers",))
    call = Call("s", {"key": "layers", "step": 1})
    removed = search.apply(call, seen, "ppl", "rank")["visitor"].removed
    assert set(removed) == {str(p) for p in parts_of(layers.steps[1].removed)}
    assert len(removed) == 4


@pytest.mark.parametrize(
    "data",
    [{}, {"key": "example"}, {"key": "example", "step": -1}, {"key": "example", "step": 12},
     {"key": "example", "step": "3"}, {"key": "example", "step": math.nan},
     {"key": "other", "step": 0},
     {"key": None, "step": 0}, {"key": ["example"], "step": 0}],
    ids=str,
)  # fmt: skip
def test_a_forged_apply_changes_nothing(engine, search, visitor, data):
    engine._searches["other"] = engine._searches["example"]  # another visitor's
    with pytest.raises(BlockvizError) as caught:
        search.apply(Call("s", data), visitor, "ppl", "rank")
    assert is_three_sentences(str(caught.value))


def test_a_set_is_not_applied_to_another_model(engine, search, visitor):
    old = replace(visitor, model_key="another")
    with pytest.raises(BadInput, match="Reload the page"):
        search.apply(Call("s", {"key": "example", "step": 0}), old, "ppl", "rank")


# Curves


def test_searches_of_one_text_stand_together_and_others_apart(engine, visitor):
    with_run(engine, "same", 3)
    engine._searches["same"] = replace(
        engine._searches["same"], provenance=engine.search_run("example").provenance
    )
    other = SearchRequest(text=ScoreRequest(seed=7), blocks=3)
    engine._searches["other text"] = make_run(engine.info, other)
    by_lds = replace(engine._searches["same"], objective="lds:k=50", unit_label="lds")
    engine._searches["other unit"] = by_lds
    seen = replace(visitor, searches=("example", "same", "other text", "other unit"))
    found = curves_cards.groups(engine, seen)
    sizes = sorted(len(g.lines) for k, g in found.items() if k != curves_cards.HELD_OUT)
    assert sizes == [1, 1, 2]
    assert len({(g.unit_label, g.title) for g in found.values()}) == 4
    held_out = found[curves_cards.HELD_OUT]
    assert set(held_out.lines) == {s.title for s in engine.table("example").metrics.values()}
    assert "held-out" in held_out.title and held_out.title.endswith(", bundled")


def test_only_measured_decisions_become_points(engine, visitor):
    run = with_run(engine, "new", 4)
    steps = list(run.steps)
    steps[1] = replace(steps[1], number=None)
    better = replace(steps[3], removed=(*steps[3].removed[:3], BlockId(9, "attn")), number=21.5)
    engine._searches["new"] = replace(run, steps=(*steps, better))
    seen = replace(visitor, searches=("new",))
    group = next(iter(curves_cards.groups(engine, seen).values()))
    (line,) = group.lines.values()
    assert [len(removed) for removed, _ in line] == [1, 3, 4]
    assert line[-1] == (better.removed, 21.5)


def test_the_visitor_s_set_is_marked_only_where_it_was_measured(engine, visitor):
    handlers, run = CurvesHandlers(engine, Turns()), engine.search_run("example")
    known = replace(visitor, removed=tuple(str(b) for b in run.steps[2].removed))
    rival = next(b for b, _ in run.measured if b not in [s.removed for s in run.steps])
    aside = replace(visitor, removed=tuple(str(b) for b in rival))
    for who, is_marked in ((known, True), (aside, True), (visitor, False)):
        update = handlers.draw(Call("s"), who, None, LOG)
        names = [trace.name for trace in update["curves_plot"].data]
        assert any(name.startswith("your set") for name in names) == is_marked
        assert ("not measured on this text" in update["curves_note"]["text"]) != is_marked


def test_the_scoreboard_s_number_is_used_on_its_own_text_only(engine, visitor):
    judgement = engine.judgement("example")
    data, base = judgement.provenance.data.describe(), judgement.whole.perplexity
    two = replace(visitor, removed=("20.attn", "21.attn"))
    parts = frozenset(two.plan().removed)

    def known(baseline, text):
        live = LiveResult(40.0, baseline, 0.0, 1, text, "bfloat16", "measured")
        engine.known = lambda plan: live
        return curves_cards.groups(engine, two)[curves_cards.HELD_OUT].known.get(parts)

    assert known(base, data) == 40.0
    assert known(base, "another text") is None
    assert known(base * 1.1, data) is None


def test_curves_keep_what_was_chosen_and_take_no_forged_choice(engine, visitor):
    handlers = CurvesHandlers(engine, Turns())
    update = handlers.draw(Call("s"), visitor, curves_cards.HELD_OUT, LINEAR)
    assert update["curve_group"]["value"] == curves_cards.HELD_OUT
    assert update["curves_plot"].layout.yaxis.type != "log"
    forged = handlers.draw(Call("s"), visitor, ["held-out"], None)
    assert forged["curve_group"]["value"] != curves_cards.HELD_OUT
    assert forged["curves_plot"].layout.yaxis.type == "log"


def test_every_point_of_the_list_can_be_applied(engine, visitor):
    handlers = CurvesHandlers(engine, Turns())
    points = handlers.draw(Call("s"), visitor, None, LOG)["curve_point"]["choices"]
    assert len(points) == len(engine.search_run("example").steps)
    for _, value in points:
        changed = handlers.apply(Call("s"), visitor, value, "ppl", "rank")["visitor"]
        assert ",".join(changed.removed) == value
    clicked = handlers.pick(Call("s", {"removed": points[2][1].split(",")}), visitor, None, None)
    assert clicked["visitor"].removed == tuple(points[2][1].split(","))


def test_a_block_that_a_point_or_a_click_names_twice_is_one(engine, visitor):
    handlers = CurvesHandlers(engine, Turns())
    changed = handlers.apply(Call("s"), visitor, "3.attn,3.attn", "ppl", "rank")["visitor"]
    clicked = handlers.pick(Call("s", {"removed": ["3.attn", "3.attn"]}), visitor, None, None)
    assert changed.removed == clicked["visitor"].removed == ("3.attn",)


@pytest.mark.parametrize("forged", [None, "", 3, "x", "99.attn", ["3.attn"]])
def test_a_forged_point_is_refused(engine, visitor, forged):
    handlers = CurvesHandlers(engine, Turns())
    with pytest.raises(BlockvizError) as caught:
        handlers.apply(Call("s"), visitor, forged, "ppl", "rank")
    assert is_three_sentences(str(caught.value))


@pytest.mark.parametrize("forged", [None, "3.attn", 3, [3], ["30.attn"]])
def test_a_forged_click_is_refused(engine, visitor, forged):
    handlers = CurvesHandlers(engine, Turns())
    with pytest.raises(BlockvizError):
        handlers.pick(Call("s", {"removed": forged}), visitor, "ppl", "rank")


def test_without_curves_the_tab_says_what_to_press(engine, visitor):
    engine._searches.clear()
    engine._judgements.clear()
    update = CurvesHandlers(engine, Turns()).draw(Call("s"), visitor, None, LOG)
    assert "press" in update["curves_note"]["text"].lower()
    assert update["curves_plot"] is None


# Stand-ins


def drawn(engine, visitor, order="depth"):
    handlers = InsightHandlers(engine)
    return handlers.draw(Call("s"), "pairs", visitor, None, None, LOG, None, order)


def test_pairs_are_drawn_by_depth_or_grouped(engine, visitor):
    by_depth = drawn(engine, visitor)["pairs_map_head"]["title"]
    assert by_depth
    keys = {drawn(engine, visitor, how)["pairs_map_head"]["key"] for how in ("depth", "clustered")}
    assert len(keys) == 2
    assert drawn(engine, visitor, ["x"])["pairs_map_head"]["key"] in keys


def test_what_pairs_say_of_the_plan_is_called_a_prediction(engine, visitor):
    text = drawn(engine, visitor)["foretold"]["text"]
    assert text.startswith("Predicted, not measured: perplexity")
    one = engine.interactions("example")
    alone = math.exp(one.whole + one.singles[BlockId(18, "attn")])
    assert f"{alone:.1f}" in text
    assert "32 × 128 tokens" in text
    nothing = replace(visitor, removed=())
    assert InsightHandlers(engine).foretell(Call("s"), nothing)["foretold"]["text"] == ""


def test_an_unmeasured_block_is_not_foretold(engine, visitor):
    whole = engine.interactions("example")
    gone = {b: v for b, v in whole.singles.items() if b != BlockId(18, "attn")}
    pairs = {p: v for p, v in whole.pairs.items() if BlockId(18, "attn") not in p}
    found = pair_findings(replace(whole, singles=gone, pairs=pairs))
    assert "not measured" in foretold(visitor, found)
    assert foretold(visitor, None) == ""


def test_only_searches_on_the_text_of_the_pairs_check_the_prediction(engine, visitor):
    same = pairs_for(engine, visitor)
    measured = {parts_of(b): math.log(n) for b, n in engine.search_run("example").measured}
    assert same.measured == measured and same.n_foretold == len(measured)
    far = make_run(engine.info, SearchRequest(text=ScoreRequest(seed=9), blocks=4))
    by_lds = replace(engine.search_run("example"), objective="lds:k=50")
    assert pair_findings(engine.interactions("example"), [far, by_lds]).measured == {}


def test_partial_pairs_say_so_and_none_say_what_to_press(engine, visitor):
    whole = engine.interactions("example")
    engine._pairs["example"] = replace(whole, is_partial=True)
    assert drawn(engine, visitor)["note_pairs"]["text"].startswith("Partial: ")
    assert "Reload" in drawn(engine, replace(visitor, model_key="x"))["note_pairs"]["text"]
    engine._pairs.clear()
    update = drawn(engine, visitor)
    assert "Press Measure pairs" in update["note_pairs"]["text"]
    assert (update["pairs_map_plot"], update["foretold"]["text"]) == (None, "")


def test_pairs_are_measured_by_a_job_and_kept(engine, visitor):
    jobs = JobHandlers(engine, Turns())
    with pytest.raises(BadInput, match="Reload the page"):
        jobs.pairs(Call("s"), replace(visitor, model_key="x"), dict(NO_JOBS))
    started = jobs.pairs(Call("s"), visitor, dict(NO_JOBS))
    assert engine.calls == ["pairs"] and started["jobs"]["own"]
    engine._pairs["p"] = engine.interactions("example")
    job = JobView("j", "pairs", "running", partial={"pairs_key": "p", "warning": ""})
    assert with_found(engine, visitor, job).pairs_key == "p"
    assert step_of(engine, job)["found"] == "pairs"


def test_the_fake_s_estimate_and_run_agree(engine):
    (found,) = [e.result for e in engine.estimate_search(SearchRequest(blocks=6))
                if isinstance(e, Done)]  # fmt: skip
    assert found.n_sets == make_run(engine.info, SearchRequest(blocks=6)).n_of
    assert PairsRequest().text.n_samples == 8


def test_hostile_words_reach_no_template_of_the_search_tab(visitor):
    engine = FakeEngine(is_hostile=True, is_ready=True, step=0.0)
    search = SearchHandlers(engine, JobHandlers(engine, Turns()), Turns())
    who = replace(visitor, model_key=engine.model_key)
    update = search.draw(Call("s"), who, dict(NO_JOBS), None)
    # A warning is foreign text: it goes where text is set as text.
    assert HOSTILE.strip() in update["search_note"]["text"]
    titles = [g.title for g in curves_cards.groups(engine, who).values()]
    assert not any("\u202e" in title for title in titles)


def test_the_repair_that_numbers_were_measured_with_is_named(engine, visitor):
    run = engine.search_run("example")
    assert "repair" not in search_cards.candidates(engine.info, visitor, "example", run)["lead"]
    steps = tuple(replace(step, repair="writer_refit:ridge=0.5") for step in run.steps)
    repaired = replace(run, steps=steps)
    lead = search_cards.candidates(engine.info, visitor, "example", repaired)["lead"]
    assert "the repair writer_refit:ridge=0.5, which is not applied" in lead
