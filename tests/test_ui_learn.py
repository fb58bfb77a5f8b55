"""The Learn tab without a browser: what a method did on this model, and the stops of the tour."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fake_engine import CARDS, FakeEngine
from fake_repair import make_repair
from scipy.stats import kendalltau

from blockviz.errors import BadInput
from blockviz.session import Visitor
from blockviz.session.repair_views import RepairRequest
from blockviz.types import BlockId, PruningPlan
from blockviz.ui.glossary import CAVEATS, SECTIONS
from blockviz.ui.learn_handlers import LearnHandlers
from blockviz.ui.map_handlers import MapHandlers
from blockviz.ui.method_card import OTHER_MODEL, UNSCORED, UNTRIED, method_view, offered
from blockviz.ui.screen import Call
from blockviz.ui.tour import tour_of
from blockviz.ui.tour_handlers import TourHandlers
from blockviz.ui.turns import Turns
from blockviz.ui.words import short

EXAMPLE = ("18.attn", "7.attn")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(step=0.0)


@pytest.fixture
def visitor(engine) -> Visitor:
    return Visitor(model_key=engine.model_key, removed=EXAMPLE)


@pytest.fixture
def plan(engine) -> MapHandlers:
    return MapHandlers(engine, Turns())


def own(view) -> dict[str, str]:
    return dict(view["own"])


def keep_repair(engine, visitor, *removed, **more) -> Visitor:
    """The visitor with one more table of corrections, of these blocks."""
    cut = PruningPlan(removed=tuple(BlockId.parse(b) for b in removed))
    key = f"repair{len(visitor.repairs)}"
    engine._repairs[key] = make_repair(engine.info, RepairRequest(cut), **more)
    return replace(visitor, repairs=(*visitor.repairs, key))


# The card of one method


def test_every_method_has_a_card_with_its_texts(engine, visitor):
    methods = offered(engine)
    assert len(methods) == len(engine.metrics()) + len(engine.correction_cards())
    cards = {f"metric:{c.name}": c for c in engine.metrics()}
    cards |= {f"correction:{c.name}": c for c in engine.correction_cards()}
    for title, method in methods:
        view, card = method_view(engine, visitor, method), cards[method]
        assert title == f"{view['kind']}: {view['title']}"
        assert f"{view['equation']}\n{view['letters']}".strip() == card.formula
        facts = dict(view["facts"])
        assert (facts["Sees"], facts["Misses"]) == (card.sees, card.misses)
        assert view["source"] and view["address"] == card.reference


def test_a_metric_without_texts_leaves_no_empty_row(engine, visitor, monkeypatch):
    bare = tuple(replace(c, formula="", sees="", misses="", cost="") for c in CARDS)
    monkeypatch.setattr(engine, "metrics", lambda: bare)
    view = method_view(engine, visitor, "metric:bi")
    assert (view["equation"], view["letters"]) == ("", "")
    assert [name for name, _ in view["facts"]] == ["Scores"]
    assert own(view)["Removes first"]


def test_the_blocks_are_those_of_the_visitor_s_table(engine, visitor):
    scores = engine.table("example").metrics["lds"]
    lowest = sorted(scores.values, key=scores.values.__getitem__)
    said = own(method_view(engine, visitor, "metric:lds"))
    assert re.findall(r"\d+\.\w+(?= \()", said["Removes first"]) == [str(b) for b in lowest[:5]]
    last = [str(b) for b in lowest[::-1][:3]]
    assert re.findall(r"\d+\.\w+(?= \()", said["Removes last"]) == last
    assert f"({short(scores.raw[lowest[0]])})" in said["Removes first"]


def test_the_agreement_is_kendall_s_tau(engine, visitor):
    metrics = engine.table("example").metrics
    blocks = list(metrics["ppl"].values)

    def tau(one, other):
        rows = ([metrics[m].values[b] for b in blocks] for m in (one, other))
        return kendalltau(*rows).statistic

    view = method_view(engine, visitor, "metric:bi")
    assert own(view)["Beside Perplexity if cut"] == f"tau {tau('bi', 'ppl'):.2f}"
    others = sorted(("rm", "lds"), key=lambda m: tau("bi", m))
    for row, name in (("Least alike", others[0]), ("Most alike", others[-1])):
        assert own(view)[row] == f"{metrics[name].title}, tau {tau('bi', name):.2f}"
    assert not any(k.startswith("Beside") for k in own(method_view(engine, visitor, "metric:ppl")))


def test_it_says_how_well_the_metric_foretold(engine, visitor):
    verdicts = engine.findings("example", "example").verdicts
    for place, verdict in enumerate(verdicts, start=1):
        said = own(method_view(engine, visitor, f"metric:{verdict.metric}"))["Foretold"]
        assert said.startswith(f"tau {verdict.tau:.2f} (90 %: ")
        assert said.endswith(f"60 single cuts on other text; place {place} of 4")
    unjudged = method_view(engine, replace(visitor, judgement_key="none"), "metric:bi")
    assert "not measured" in own(unjudged)["Foretold"]


def test_what_is_not_scored_or_of_another_model_says_so(engine, visitor):
    engine._tables["few"] = replace(
        engine.table("example"), metrics={"bi": engine.table("example").metrics["bi"]}
    )
    few = replace(visitor, table_key="few")
    assert method_view(engine, few, "metric:ppl")["empty"] == UNSCORED
    assert method_view(engine, few, "metric:ppl")["colour"] == ""
    assert method_view(engine, few, "metric:bi")["colour"] == "bi"
    assert method_view(engine, replace(visitor, table_key=""), "metric:bi")["empty"] == UNSCORED
    other = replace(visitor, model_key="other")
    for method in ("metric:bi", "correction:ridge"):
        assert method_view(engine, other, method)["empty"] == OTHER_MODEL


def test_a_correction_says_what_it_did_in_the_newest_table_that_has_it(engine, visitor):
    assert method_view(engine, visitor, "correction:ridge")["empty"] == UNTRIED
    tried = keep_repair(engine, visitor, "3.attn", "9.mlp")
    view = method_view(engine, tried, "correction:replaceme")
    table = engine.repair_table(tried.repairs[-1])
    row = next(r for r in table.rows if r.correction == "replaceme")
    said = own(view)["ReplaceMe"]
    assert said.startswith(f"Perplexity {short(row.perplexity)} ± ")
    assert "closes 57.5\u202f% of the gap" in said
    assert view["lead"].startswith("Without 2 blocks, fitted on ")
    assert "32.9 whole, 96.7 unrepaired" in view["lead"]
    assert (
        "worse than doing nothing"
        in own(method_view(engine, tried, "correction:mean"))["Mean shift"]
    )
    best = own(method_view(engine, tried, f"correction:{table.best}"))
    assert all(text.endswith("the best for export") for text in best.values())
    # A newer table that has not got as far leaves the older one to be shown.
    newer = keep_repair(engine, tried, "1.attn", "2.attn", "3.attn", n_rows=1)
    assert method_view(engine, newer, "correction:ridge")["lead"].startswith("Without 2 blocks")
    assert method_view(engine, newer, "correction:scalar")["lead"].startswith("Without 3 blocks")


def test_a_refused_correction_says_why(engine, visitor):
    tried = keep_repair(engine, visitor, "3.attn", refused="This width has no Hadamard matrix.")
    said = own(method_view(engine, tried, "correction:hadamard"))["LinearPatch"]
    assert said == "Could not be fitted. This width has no Hadamard matrix."


@pytest.mark.parametrize("forged", [None, 3, "ppl", "metric:none", "correction:ppl", ["metric:bi"]])
def test_a_forged_method_is_refused(forged, engine, visitor, plan):
    with pytest.raises(BadInput):
        LearnHandlers(engine, plan).draw(Call(), visitor, forged)


def test_the_map_is_coloured_by_the_card_s_metric(engine, visitor, plan):
    learn = LearnHandlers(engine, plan)
    update = learn.colour(Call(data={"metric": "bi"}), visitor, "rank", "3.attn")
    assert update["metric"]["value"] == "bi"
    assert update["legend"]["note"] == "by rank of Block influence"
    for forged in (None, "none", {"x": 1}):
        with pytest.raises(BadInput):
            learn.colour(Call(data={"metric": forged}), visitor, "rank", "")


def test_no_word_is_explained_twice_and_each_in_short():
    words = [term for _, _, section in SECTIONS for term, _ in section]
    assert len(words) == len(set(words)) > 40
    for _, _, section in SECTIONS:
        for term, text in section:
            assert text.endswith(".") and len(re.findall(r"\.(?:\s|$)", text)) <= 3, term
    assert {"Small samples", "One number", "The ends"} <= {term for term, _ in CAVEATS}


# The tour


def test_the_stops_begin_with_the_example_and_run_nothing(engine, visitor):
    stops = tour_of(engine, visitor, "ppl")
    assert [s["title"] for s in stops] == [
        "A finished example",
        "Switch everything on",
        "Switch one block off",
        "Did the metrics foretell it?",
        "Who is right?",
        "Cut more, then repair",
        "Pass it on",
    ]
    known = engine.known(visitor.plan())
    assert f"from {short(known.baseline)} to {short(known.perplexity)}" in stops[0]["text"]
    assert all(stop["text"] and (stop["after"] or not stop["act"]) for stop in stops)
    assert engine.calls == [] and not engine.is_ready


def test_the_block_to_switch_off_is_the_first_to_go_and_its_numbers_are_known(engine, visitor):
    table = engine.table("example").metrics["ppl"]
    block = min(table.values, key=table.values.__getitem__)
    cut = tour_of(engine, visitor, "ppl")[2]
    assert cut["target"] == [f'[data-block="{block}"]'] and cut["act"]["block"] == str(block)
    alone = engine.known(PruningPlan(removed=(block,)))
    assert f"{short(alone.baseline)} to {short(alone.perplexity)}" in cut["after"]


def test_the_other_metric_is_named_with_the_places_of_both(engine, visitor):
    metrics = engine.table("example").metrics
    stop = tour_of(engine, visitor, "lds")[3]
    block = min(metrics["ppl"].values, key=metrics["ppl"].values.__getitem__)
    assert stop["act"]["title"] != "Logit disruption"
    other = next(s for s in metrics.values() if s.title == stop["act"]["title"])
    assert f"at place {metrics['lds'].ranks()[block]} of 60" in stop["text"]
    assert f"at place {other.ranks()[block]} of 60" in stop["after"]


def test_a_whole_model_without_scores_has_a_tour_too(engine, visitor):
    bare = replace(visitor, removed=(), table_key="")
    stops = tour_of(engine, bare, "")
    assert "Did the metrics foretell it?" not in [s["title"] for s in stops]
    assert stops[0]["title"] == "Where you are" and "is whole" in stops[0]["text"]
    assert stops[1]["act"] is None
    assert stops[2]["act"]["block"] == "15.attn"


def test_where_a_number_is_not_known_none_is_said(engine, visitor):
    stops = tour_of(engine, replace(visitor, removed=("1.attn", "2.attn", "3.mlp")), "ppl")
    assert "comes once the model is ready" in stops[0]["text"]


def test_a_repair_that_was_made_is_spoken_of(engine, visitor):
    tried = keep_repair(engine, visitor, "3.attn", "9.mlp")
    # By that stop the plan may be another one: the set is named, and is not called the present one.
    for removed in (("3.attn", "9.mlp"), ("5.attn",), ()):
        said = tour_of(engine, replace(tried, removed=removed), "ppl")[5]["after"]
        assert re.match(r"The table is of the model without 3.attn, 9.mlp: Writer refit", said)
        assert re.search(r"takes back 6[67]\u202f%", said)
    many = keep_repair(engine, visitor, *(f"{i}.attn" for i in range(5)))
    assert "of the model without 5 blocks: " in tour_of(engine, many, "ppl")[5]["after"]


def test_a_tour_says_what_was_before_it_and_each_is_a_run_of_its_own(engine, visitor, plan):
    tour = TourHandlers(engine, plan)
    first, second = (tour.begin(Call(), visitor, "bi")["tour"] for _ in range(2))
    assert first["was"] == {
        "removed": list(EXAMPLE), "metric": "bi", "title": "Block influence",
    }  # fmt: skip
    assert first["steps"] == second["steps"] and first["run"] != second["run"]
    with pytest.raises(BadInput, match="Reload"):
        tour.begin(Call(), replace(visitor, model_key="other"), "bi")


def test_a_tour_begun_before_the_link_is_opened_is_of_what_the_link_asks_for(engine, plan):
    tour, painted = TourHandlers(engine, plan), plan.drawing.first_visitor()
    linked = Call(query={"remove": "3.attn,9.mlp", "metric": "bi"})
    begun = tour.begin(linked, painted, "ppl")["tour"]
    assert begun["was"]["removed"] == ["3.attn", "9.mlp"] and begun["was"]["metric"] == "bi"
    assert begun["steps"][0]["title"] == "Where you are"
    foreign = tour.begin(Call(query={"remove": "99.attn"}), painted, "ppl")["tour"]
    assert foreign["was"]["removed"] == list(EXAMPLE)
    first = plan.drawing.first_visitor()
    opened = plan.drawing.linked_visitor(linked.query, first)[0].with_removed(["5.attn"])
    assert tour.begin(linked, opened, "ppl")["tour"]["was"]["removed"] == ["5.attn"]


def test_what_was_before_comes_back_as_one_change(engine, visitor, plan):
    tour, now = TourHandlers(engine, plan), visitor.reset().with_removed(["3.attn"])
    data = {"removed": list(EXAMPLE), "metric": "lds"}
    update = tour.restore(Call(data=data), now, "bi", "rank")
    assert update["visitor"].removed == EXAMPLE
    assert update["visitor"].undo().removed == ("3.attn",)
    assert update["metric"]["value"] == "lds"
    assert update["legend"]["note"] == "by rank of Logit disruption"
    assert update["link"]["query"].endswith("metric=lds")


@pytest.mark.parametrize("data", [{}, {"removed": "x"}, {"removed": ["99.attn"], "metric": 4}])
def test_a_forged_return_changes_nothing(data, engine, visitor, plan):
    update = TourHandlers(engine, plan).restore(Call(data=data), visitor, "bi", "rank")
    assert update["visitor"].removed == EXAMPLE and update["error"]["text"]
