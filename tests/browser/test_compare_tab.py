"""The Compare tab in a real Chromium, on the fake engine."""

from __future__ import annotations

import re

import pytest
from fake_compare import make_comparison
from pages import PAST_THE_EDGE, Gate, Hold, filled, past_the_edge, quiet, tab
from playwright.sync_api import expect
from test_search_tab import drawn

from blockviz.session.compare_views import CompareRequest
from blockviz.session.repair_views import RepairRequest
from blockviz.types import BlockId, PruningPlan
from blockviz.ui import compare_cards

pytestmark = pytest.mark.browser
SLOW = pytest.mark.slow("ui")

PLAN = "?remove=7.attn,18.attn,18.mlp"
# Where a heading on a narrow screen is only heard: it lies in a box of one pixel.
OUT_OF_SIGHT = "thead => thead.getBoundingClientRect().width <= 1"


def opened(visit, served, query="", **options):
    page = visit(served, query, **options)
    to_compare(page)
    return page


def to_compare(page):
    tab(page, "Compare")


def heads(page):
    return page.locator("#compare-table thead th")


def row(page, name):
    head = page.get_by_role("rowheader", name=re.compile(f"^{name}"))
    return page.get_by_role("row").filter(has=head)


def test_columns_arrive_one_by_one_and_are_marked_where_texts_part(serve, visit):
    served = serve()
    gate = Gate(served.engine, 0)
    page = opened(visit, served, PLAN)
    expect(page.locator("#start-compare")).to_have_text("Compare without 3 blocks")
    expect(page.locator("#compare-a input")).to_have_value("Writer refit")
    expect(page.locator("#compare-b input")).to_have_value("Activation statistics")
    expect(page.locator("#compare-table")).to_contain_text("Nothing is compared yet")
    page.locator("#start-compare").click()
    expect(page.locator("#compare-note")).to_contain_text("Comparing: 0 of 4")
    expect(heads(page)).to_have_count(4)
    expect(heads(page).first).to_contain_text("now")
    expect(heads(page).last).to_contain_text("waits")
    gate.step = 10
    expect(page.locator("#compare-note")).to_contain_text("Comparing: 2 of 4")
    expect(heads(page).nth(2)).to_contain_text("now")
    expect(row(page, "Perplexity").locator("td").nth(1)).to_contain_text("97.")
    expect(row(page, "Perplexity").locator("td").nth(2)).to_contain_text("not measured")
    gate.open()
    drawn(page, "comparison_rise").to_be_visible()
    drawn(page, "contest").to_be_visible()
    expect(page.locator("#compare-note")).to_be_hidden()
    expect(row(page, "Change to original").locator("td").nth(2)).to_contain_text("closes 69")
    texts = row(page, "What it writes").locator("td")
    expect(texts.nth(0).locator("mark")).to_have_count(0)
    expect(texts.nth(1).locator("mark")).to_have_text("the")
    expect(texts.nth(1)).to_contain_text("parts from the original in word 1")
    expect(row(page, "Export").locator("td").nth(3)).to_contain_text("needs modules of its own")


@pytest.mark.parametrize("width", [pytest.param(1440, marks=SLOW), 390])
def test_where_it_hurts_is_gone_through_by_keyboard(serve, visit, width):
    page = opened(visit, serve(), PLAN, viewport={"width": width, "height": 900})
    page.locator("#compare-tasks input").click()
    page.get_by_role("option", name="piqa").click()
    page.keyboard.press("Escape")
    expect(page.locator("#compare-says")).to_contain_text("48 questions of piqa")
    expect(page.locator("#hurt-words-card")).to_be_hidden()
    page.locator("#start-compare").click()
    words, spot = page.locator("#hurt-words .bv-losses"), page.locator("#hurt-words .bv-spot")
    pressed = page.locator("#hurt-words button[aria-pressed=true]")
    expect(row(page, "piqa").locator("td").nth(3)).to_contain_text("won")
    words.focus()
    page.keyboard.press("ArrowRight")
    expect(spot).to_contain_text("“Loire”: foreseen with")
    expect(spot).to_contain_text("by “Pruned”")
    numbers = page.locator("#hurt-words").get_by_role("button", name="number")
    numbers.focus()
    page.keyboard.press("Enter")
    expect(pressed.last).to_contain_text("number")
    expect(numbers).to_be_focused()
    words.focus()
    page.keyboard.press("ArrowRight")
    expect(spot).to_contain_text("“1870”")
    page.get_by_role("button", name="Pruned + Writer refit").press("Enter")
    expect(spot).to_contain_text("by “Pruned + Writer refit”")
    page.get_by_role("button", name="Later").press("Enter")
    expect(words).to_contain_text("Wright brothers")
    page.locator("#hurt-words summary").press("Enter")
    first = page.locator("#hurt-words tbody tr").first
    expect(first.locator("th")).to_have_text(re.compile(r"\d"))
    page.locator("#flips summary").first.press("Enter")
    expect(page.locator("#flips li").first).to_contain_text("Right: 0")
    assert page.evaluate(PAST_THE_EDGE) == []


def test_cancel_keeps_what_is_there_and_a_reload_finds_it(serve, visit):
    served = serve()
    Gate(served.engine, 10)
    page = opened(visit, served, PLAN)
    page.locator("#start-compare").click()
    expect(page.locator("#compare-note")).to_contain_text(re.compile("Comparing: [012] of 4"))
    again = opened(visit, served, PLAN, context=page.context)
    expect(again.locator("#compare-note")).to_contain_text(re.compile("Comparing: [0123] of 4"))
    again.locator("#cancel").click()
    expect(again.locator("#compare-note")).to_contain_text("Partial. It was stopped after")
    expect(heads(again).last).to_contain_text("not run")
    assert served.engine.comparison("compare0").is_partial


def test_without_cuts_the_way_to_the_map_is_one_press(serve, visit):
    page = opened(visit, serve())
    expect(page.locator("#start-compare")).to_have_text("Compare without 2 blocks")
    page.locator("#reset").click()
    expect(page.locator("#start-compare")).to_have_text("Nothing is removed yet")
    expect(page.locator("#start-compare")).to_be_disabled()
    button = page.get_by_role("button", name="Go to the Map")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Map", exact=True)).to_have_attribute(
        "aria-selected", "true"
    )
    expect(page.get_by_role("tab", name="Map", exact=True)).to_be_focused()
    expect(page.locator('[data-block="0.attn"]')).to_be_visible()


def test_a_change_of_plan_or_prompt_marks_the_columns_and_keeps_them(serve, visit):
    page = opened(visit, serve(), PLAN)
    page.locator("#start-compare").click()
    drawn(page, "comparison_rise").to_be_visible()
    expect(page.locator("#compare-note")).to_be_hidden()
    page.locator("#compare-prompt textarea").fill("Another beginning")
    page.locator("#compare-prompt textarea").press("Tab")
    expect(page.locator("#compare-note")).to_contain_text("The settings have changed since")
    expect(heads(page).first).to_contain_text("other settings")
    page.locator("#compare-prompt textarea").fill("The capital of France is")
    page.locator("#compare-prompt textarea").press("Tab")
    expect(page.locator("#compare-note")).to_be_hidden()
    page.locator("#reset").click()
    expect(page.locator("#compare-note")).to_contain_text("nothing is off on the Map now")
    expect(heads(page).nth(1)).to_contain_text("another plan")
    expect(heads(page).nth(0)).not_to_contain_text("another plan")
    expect(row(page, "Perplexity").locator("td").nth(1)).to_contain_text("97.")
    page.locator("#undo").click()
    expect(page.locator("#compare-note")).to_be_hidden()


def test_a_drawing_that_comes_late_brings_no_old_settings_back(serve, visit, monkeypatch):
    page = opened(visit, serve(), PLAN)
    page.locator("#start-compare").click()
    expect(page.locator("#job")).to_contain_text("done")
    drawn(page, "comparison_rise").to_be_visible()
    expect(page.locator("#compare-note")).to_be_hidden()
    quiet(page)
    late = Hold(monkeypatch, compare_cards, "drawn")
    tab(page, "Map")
    to_compare(page)
    late.wait(page)
    page.locator("#compare-prompt textarea").fill("Another beginning")
    page.locator("#compare-prompt textarea").press("Tab")
    expect(page.locator("#compare-note")).to_contain_text("The settings have changed since")
    late.let_go()
    quiet(page)
    expect(page.locator("#compare-note")).to_contain_text("The settings have changed since")


def test_the_best_of_a_repair_becomes_correction_a(serve, visit):
    page = visit(serve(), PLAN)
    tab(page, "Repair")
    expect(page.locator("#start-repair")).to_be_enabled()
    page.get_by_label("Writer refit").uncheck()
    page.locator("#start-repair").click()
    expect(page.locator("#repair-rows tr.best th")).to_contain_text("ReplaceMe")
    to_compare(page)
    expect(page.locator("#compare-a input")).to_have_value("ReplaceMe")
    expect(page.locator("#compare-b input")).to_have_value("Activation statistics")
    page.locator("#compare-b input").click()
    page.get_by_role("option", name="None", exact=True).click()
    page.locator("#start-compare").click()
    expect(heads(page)).to_have_count(3)
    tab(page, "Map")
    to_compare(page)
    expect(page.locator("#compare-b input")).to_have_value("None")


def test_a_refused_setting_says_so_and_starts_nothing(serve, visit):
    served = serve(mode="hosted")
    page = opened(visit, served, PLAN)
    page.locator("#compare-advanced").get_by_role("button", name="Advanced").click()
    filled(page.locator("#compare-seq-len input"), "5000", over="512")
    page.locator("#start-compare").click()
    expect(page.locator("#error")).to_contain_text("must lie between 2 and 512")
    assert served.engine._jobs == {}


def kept(engine, n_removed, **more):
    removed = tuple(BlockId(2 * i, "attn") for i in range(n_removed))
    request = CompareRequest(RepairRequest(PruningPlan(removed), ("asc", "ridge")), "word " * 80)
    long = {name: "a" * 200 + " text" * 60 for name in ("original", "none", "repaired")}
    return make_comparison(engine.info, request, dataset="long_name_" * 9, texts=long, **more)


def test_nothing_is_wider_than_the_window(serve, visit, monkeypatch):
    served = serve(n_layers=80)
    engine = served.engine
    found = kept(engine, 40, refused="It was asked for. There is none. Choose another.")
    monkeypatch.setattr(engine, "start_compare", lambda *_, **__: started(engine, found))
    page = opened(visit, served)
    page.locator("#start-compare").click()
    drawn(page, "comparison_rise").to_be_visible()
    expect(page.locator("#compare-table .bv-refused")).to_have_count(2)
    assert past_the_edge(page) == {}


def started(engine, found):
    engine._comparisons["made"] = found
    done = {"compare_key": "made", "warning": ""}
    return engine._start("compare", 2, lambda: done)


def test_a_narrow_screen_names_the_variant_in_every_cell(serve, visit):
    page = opened(visit, serve(), PLAN, viewport={"width": 390, "height": 900})
    page.locator("#start-compare").click()
    drawn(page, "comparison_rise").to_be_visible()
    expect(page.locator("#compare-note")).to_be_hidden()
    names = row(page, "Perplexity").locator(".bv-of")
    expect(names).to_have_count(4)
    expect(names.nth(2)).to_be_visible()
    assert page.locator("#compare-table thead").evaluate(OUT_OF_SIGHT)
    # What folds is a table still, for those who hear it.
    expect(page.get_by_role("table", name="Side by side")).to_have_count(1)
    expect(page.get_by_role("columnheader", name="Pruned + Writer refit")).to_have_count(1)


def test_hostile_texts_are_shown_and_never_run(serve, visit):
    page = opened(visit, serve(is_hostile=True))
    prompt = page.locator("#compare-prompt textarea")
    filled(
        prompt, "${window.pwned=5} <img src=x onerror=alert(1)>", over="The capital of France is"
    )
    page.locator("#start-compare").click()
    drawn(page, "comparison_rise").to_be_visible()
    texts = row(page, "What it writes").locator("td")
    expect(texts.nth(0)).to_contain_text("${window.pwned=1}")
    expect(texts.nth(0)).to_contain_text("<img src=x onerror='window.pwned=3'>")
    expect(row(page, "What it writes").locator("q")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(page.locator("#error")).to_contain_text("${window.pwned=1}")
    expect(page.locator("#compare-table img")).to_have_count(0)
    assert page.evaluate("window.pwned") is None
