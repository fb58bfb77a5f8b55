"""Recipes on the Export tab: what is saved is what the command line reads, and what is followed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fake_engine import HOSTILE, FakeEngine

from blockviz.errors import BlockvizError
from blockviz.session import ScoreRequest, Visitor
from blockviz.session.export_views import ExportRequest
from blockviz.session.recipe_file import recipe_from_json, recipe_to_json
from blockviz.session.repair_views import RepairRequest
from blockviz.types import PruningPlan
from blockviz.ui.compare_form import choices
from blockviz.ui.found import search_of
from blockviz.ui.recipe_handlers import FOLLOWED, OPENED, RecipeHandlers, saved
from blockviz.ui.screen import Call, to_outputs
from blockviz.ui.turns import Turns

FIX = "writer_refit:ridge=0.02"
SCORED = {"metrics": ["bi", "ppl"], "text": "own", "n_samples": 16, "seq_len": 64, "seed": 3,
          "mode": "per_sample", "unit": "attn", "tasks": "", "limit": 20,
          "token_hash": "ab"}  # fmt: skip


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(step=0.0, is_ready=True)


@pytest.fixture
def visitor(engine) -> Visitor:
    return Visitor(model_key=engine.model_key, removed=("3.mlp",))


@pytest.fixture
def recipes(engine) -> RecipeHandlers:
    return RecipeHandlers(engine, Turns())


def request(tmp_path, fix: str = FIX) -> ExportRequest:
    plan = PruningPlan.from_json(
        {"schema": "blockviz/plan/1", "removed": ["18.attn", "7.attn", "7.mlp"]}
    )
    fit = ScoreRequest(calibration="own", n_samples=24, seq_len=256, seed=7)
    repair = RepairRequest(plan=plan, corrections=(fix,), text=fit, n_skip=3, n_held=5)
    measured = ScoreRequest(n_samples=5, seq_len=128, seed=7)
    return ExportRequest(
        plan, tmp_path, mode="custom", repair=repair, evaluation=measured, scoring=SCORED
    )


def opened(recipes, visitor, tmp_path, text: str) -> dict:
    path = tmp_path / "mine.json"
    path.write_text(text, encoding="utf-8")
    update = recipes.open(Call("s"), visitor, str(path))
    to_outputs(OPENED, update)
    return update


def test_a_recipe_says_which_search_found_its_plan(engine, visitor, tmp_path):
    run = engine.search_run("example")
    step = run.steps[1]
    found = replace(visitor, removed=tuple(str(p) for b in step.removed for p in b.parts))
    said, data = search_of(engine, found), run.provenance.data
    assert (said["strategy"], said["objective"], said["n_decisions"]) == (
        run.strategy, run.objective, 2,
    )  # fmt: skip
    assert (said["n_samples"], said["seq_len"], said["seed"]) == (
        data.n_samples, data.seq_len, data.seed,
    )  # fmt: skip
    asked = replace(request(tmp_path), search=said)
    recipe = json.loads(saved(engine.info, asked)["text"])
    assert recipe["search"] == said
    assert recipe_from_json(recipe, "mine").plan.removed == asked.plan.removed
    # A set put together by hand, or found by a search of another visitor, has none.
    assert search_of(engine, visitor) == search_of(engine, replace(found, searches=())) == {}
    assert json.loads(saved(engine.info, request(tmp_path))["text"])["search"] is None


def test_what_is_saved_is_shown_and_then_followed(engine, recipes, visitor, tmp_path):
    asked = request(tmp_path)
    shown = opened(recipes, visitor, tmp_path, saved(engine.info, asked)["text"])
    said = shown["recipe_says"]["text"]
    assert "without 3 blocks" in said and "fitted on 24 × 256 tokens of own" in said
    assert FIX in said and "with a modelling file" in said
    assert shown["recipe_use"]["visible"] and not shown["recipe_says"]["note"]
    update = recipes.use(Call("s"), visitor, shown["recipe_kept"], "ppl", "rank")
    followed = update["visitor"]
    assert set(followed.removed) == {"18.attn", "7.attn", "7.mlp"}
    assert followed.undo().removed == ("3.mlp",)
    values = {name: update[name]["value"] for name in FOLLOWED}
    assert values == {
        "export_mode": "custom", "export_fix": FIX, "export_llama": False, "export_text": "own",
        "export_samples": 24, "export_seq_len": 256, "export_skip": 3, "export_held": 5,
        "export_seed": 7,
        "shown_text": "demo", "shown_samples": 5, "shown_seq_len": 128,
        "metrics": ["bi", "ppl"], "source": "own", "n_samples": 16, "seq_len": 64, "seed": 3,
        "mode": "per_sample", "unit": "attn", "tasks": "", "task_rows": 20,
    }  # fmt: skip
    assert "2 metrics scored on 16 × 64 tokens of own, seed 3; " in said
    # With settings of its own, it is offered beside the others from then on.
    assert FIX in [label for _, label in choices(engine, followed)]


def test_windows_that_this_page_does_not_cut_are_named(engine, recipes, visitor, tmp_path):
    """Otherwise the page would fit another repair, and say nothing of it."""
    asked = request(tmp_path)
    text = replace(asked.repair.text, is_shuffled=True, mode="per_sample")
    recipe = saved(engine.info, replace(asked, repair=replace(asked.repair, text=text)))["text"]
    assert recipe_from_json(json.loads(recipe), "mine").fit["is_shuffled"] is True
    shown = opened(recipes, visitor, tmp_path, recipe)
    assert "(mode, is_shuffled): follow it on the command line" in shown["recipe_says"]["note"]
    assert shown["recipe_use"]["visible"] is False


def test_nothing_is_followed_before_it_is_confirmed(recipes, visitor, engine, tmp_path):
    opened(recipes, visitor, tmp_path, saved(engine.info, request(tmp_path))["text"])
    for forged in (None, {}, "recipe"):
        with pytest.raises(BlockvizError, match="None is open"):
            recipes.use(Call("s"), visitor, forged, "ppl", "rank")


def spoilt(engine, tmp_path, **changes) -> str:
    recipe = recipe_to_json(engine.info, request(tmp_path), FIX)
    return json.dumps({**recipe, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "blockviz/plan/1"}, "not one that an export has written"),
        ({"plan": {"schema": "blockviz/plan/1", "removed": ["99.attn"]}}, "has layers 0 to 29"),
        ({"plan": {"schema": "blockviz/plan/1", "removed": [f"{HOSTILE}.attn"]}}, "not one that"),
        ({"plan": None}, "not one that"),
        ({"correction": "magic:power=9"}, "is none of this version"),
        ({"fit": {"text": "own", "n_samples": "many"}}, "not one that"),
        ({"fit": {"text": ["own"], "n_samples": 3}}, "not one that"),
        ({"evaluation": {"n_samples": True}}, "not one that"),
        ({"export": {"mode": "zip", "as_llama": False}}, "not one that"),
        ({"results": {"perplexities": {"original": "low"}}}, "not one that"),
        ({"results": {"perplexities": {"original": float("nan")}}}, "not one that"),
        ({"results": {"data": ["WikiText"]}}, "not one that"),
        ({"results": {"data": "W" * 1001}}, "not one that"),
        ({"correction": "ridge:" * 500}, "not one that"),
        ({"correction": None}, "not one that"),
        ({"scoring": {"metrics": "bi"}}, "not one that"),
        ({"scoring": {"metrics": []}}, "not one that"),
        ({"scoring": {"metrics": ["bi"] * 201}}, "not one that"),
        ({"scoring": {"metrics": ["bi"], "seed": "three"}}, "not one that"),
        ({"scoring": {"metrics": ["bi"], "text": "w" * 1001}}, "not one that"),
        ({"scoring": {"metrics": ["bi"], "token_hash": 7}}, "not one that"),
        ({"scoring": ["bi"]}, "not one that"),
        ({"scoring": {"metrics": ["bi"], "seed": 10**30}}, "not one that"),
        ({"fit": {"text": "own", "n_samples": -(10**30)}}, "not one that"),
    ],
)
def test_other_files_are_refused(engine, recipes, visitor, tmp_path, changes, said):
    with pytest.raises(BlockvizError, match=said):
        opened(recipes, visitor, tmp_path, spoilt(engine, tmp_path, **changes))


@pytest.mark.parametrize("text", ["[]", "3", "null", '"recipe"', "{", "[" * 100_000])
def test_what_is_no_recipe_is_no_crash(recipes, visitor, tmp_path, text):
    with pytest.raises(BlockvizError):
        opened(recipes, visitor, tmp_path, text)


def test_a_recipe_of_another_model_says_so_and_one_from_a_state_is_not_followed(
    engine, recipes, visitor, tmp_path
):
    other = replace(engine.info, name="owner/another")
    recipe = recipe_to_json(other, request(tmp_path), FIX)
    shown = opened(recipes, visitor, tmp_path, json.dumps(recipe))
    assert "written for owner/another" in shown["recipe_says"]["note"]
    fitted = spoilt(engine, tmp_path, is_from_state=True)
    shown = opened(recipes, visitor, tmp_path, fitted)
    assert "--state" in shown["recipe_says"]["note"] and not shown["recipe_use"]["visible"]


def test_results_are_shown_where_there_are_some(engine, recipes, visitor, tmp_path):
    results = {"data": f"WikiText{HOSTILE}", "perplexities": {"original": 32.94, "exported": 41.2}}
    shown = opened(recipes, visitor, tmp_path, spoilt(engine, tmp_path, results=results))
    assert "went from 32.9" in shown["recipe_says"]["text"]


def test_a_recipe_without_a_repair_is_one_too(engine, tmp_path):
    asked = replace(request(tmp_path), repair=None)
    found = recipe_from_json(json.loads(saved(engine.info, asked)["text"]), "mine")
    assert found.correction == "none" and found.fit == {} and found.evaluation["n_samples"] == 5


def test_what_this_page_cannot_choose_is_named_and_left_as_it_is(
    engine, recipes, visitor, tmp_path
):
    scoring = {**SCORED, "metrics": ["lds:k=5", "ppl"], "text": "mine.txt", "tasks": HOSTILE}
    shown = opened(recipes, visitor, tmp_path, spoilt(engine, tmp_path, scoring=scoring))
    note = shown["recipe_says"]["note"]
    assert "left as it is: lds:k=5, mine.txt, " in note
    many = {**SCORED, "metrics": [*(f"x{i}" for i in range(9)), "ppl", "ppl"]}
    said = opened(recipes, visitor, tmp_path, spoilt(engine, tmp_path, scoring=many))
    assert said["recipe_says"]["note"].endswith("x4, x5 and 3 more.")
    assert said["recipe_kept"].scoring["metrics"].count("ppl") == 1
    update = recipes.use(Call("s"), visitor, shown["recipe_kept"], "ppl", "rank")
    assert update["metrics"]["value"] == ["ppl"]
    assert update["n_samples"]["value"] == 16
    assert "source" not in update and "tasks" not in update


def test_a_recipe_of_scores_alone_is_one_too(engine, recipes, visitor, tmp_path):
    asked = replace(request(tmp_path), plan=PruningPlan(), repair=None)
    text = saved(engine.info, asked)["text"]
    found = recipe_from_json(json.loads(text), "mine")
    assert found.plan.removed == () and found.scoring_to_json() == SCORED
    said = opened(recipes, visitor, tmp_path, text)["recipe_says"]["text"]
    assert said.startswith("2 metrics scored on") and said.endswith(", whole.")
    old = recipe_from_json(json.loads(spoilt(engine, tmp_path, scoring=None)), "mine")
    assert old.scoring == {} and old.scoring_to_json() == {}
