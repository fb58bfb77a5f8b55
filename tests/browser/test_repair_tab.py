"""The Repair tab in a real Chromium, on the fake engine."""

from __future__ import annotations

import re

import pytest
from fake_repair import make_repair
from pages import Gate, Hold, filled, past_the_edge, quiet, tab
from playwright.sync_api import expect
from test_search_tab import drawn

from blockviz.session.repair_views import RepairRequest
from blockviz.types import BlockId, PruningPlan
from blockviz.ui import repair_cards

pytestmark = pytest.mark.browser
SLOW = pytest.mark.slow("ui", "plots")


def opened(visit, served, query="", **options):
    page = visit(served, query, **options)
    tab(page, "Repair")
    return page


def rows(page):
    return page.locator("#repair-rows tbody tr")


def test_a_plan_is_repaired_watched_and_looked_at(serve, visit):
    served = serve()
    gate = Gate(served.engine, 10)
    page = opened(visit, served, "?remove=7.attn,18.attn,18.mlp")
    expect(page.locator("#start-repair")).to_have_text("Fit repairs of 3 removed blocks")
    expect(page.locator("#repair-says")).to_contain_text("48 × 512")
    page.locator("#start-repair").click()
    expect(page.locator("#repair-note")).to_contain_text(re.compile("Fitting: [1-9]"))
    expect(page.locator("#repair-rows h2")).to_have_text("Corrections so far")
    gate.open()
    expect(rows(page)).to_have_count(8)
    expect(page.locator("#repair-note")).to_be_hidden()
    expect(page.locator("#repair-rows tr.best th")).to_contain_text("Writer refit")
    cards = ("repairs_bars", "repair_fit", "repair_size", "repair_mean", "repair_std", "repair_rho")
    for card in cards:
        drawn(page, card).to_be_visible()
    button = page.get_by_role("button", name="Look at Ridge map below")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#repair_fit-card h2")).to_contain_text("Ridge map")
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(button).to_be_focused()
    expect(page.locator("#repair-row input")).to_have_value("Ridge map")
    page.locator("#repair-place input").click()
    page.get_by_role("option", name=re.compile(r"^7\.attn")).click()
    expect(page.locator("#repair_rho-card h2")).to_contain_text("7.attn")


def test_cancel_keeps_what_is_fitted_and_a_reload_finds_it(serve, visit):
    served = serve()
    Gate(served.engine, 10)
    page = opened(visit, served)
    page.locator("#start-repair").click()
    expect(page.locator("#repair-note")).to_contain_text(re.compile("Fitting: [1-9]"))
    again = opened(visit, served, context=page.context)
    expect(again.locator("#repair-note")).to_contain_text(re.compile("Fitting: [1-9]"))
    again.locator("#cancel").click()
    expect(again.locator("#repair-note")).to_contain_text("Partial.")
    assert served.engine.repair_table("repair0").is_partial
    drawn(again, "repairs_bars").to_be_visible()


def test_a_drawing_that_comes_late_brings_no_old_plan_back(serve, visit, monkeypatch):
    served = serve()
    plan = PruningPlan((BlockId(7, "attn"), BlockId(18, "attn")))
    request = RepairRequest(plan, ("asc", "ridge"))
    served.engine._repairs["example"] = make_repair(served.engine.info, request)
    page = opened(visit, served)
    page.locator("#start-repair").click()
    expect(page.locator("#job")).to_contain_text("done")
    drawn(page, "repairs_bars").to_be_visible()
    expect(page.locator("#repair-note")).to_be_hidden()
    quiet(page)
    late = Hold(monkeypatch, repair_cards, "drawn")
    page.locator("#repair-shown input").click()
    page.get_by_role("option", name=re.compile("example$")).click()
    late.wait(page)
    page.locator("#reset").click()
    expect(page.locator("#repair-note")).to_contain_text("Stale.")
    late.let_go()
    quiet(page)
    expect(page.locator("#repair-note")).to_contain_text("Stale.")


def test_a_drawing_that_comes_late_leaves_what_was_chosen_since(serve, visit, monkeypatch):
    served = serve()
    request = RepairRequest(PruningPlan((BlockId(7, "attn"), BlockId(18, "attn"))))
    served.engine._repairs["example"] = make_repair(served.engine.info, request)
    page = opened(visit, served)
    title = page.locator("#repair_fit-card h2")
    expect(title).to_contain_text("Writer refit")
    quiet(page)
    late = Hold(monkeypatch, repair_cards, "drawn")
    tab(page, "Map")
    tab(page, "Repair")
    late.wait(page)
    page.get_by_role("button", name="Look at Ridge map below").click()
    expect(title).to_contain_text("Ridge map")
    late.let_go()
    quiet(page)
    expect(title).to_contain_text("Ridge map")
    expect(page.locator("#repair-row input")).to_have_value("Ridge map")


def test_the_button_follows_the_plan_and_a_refused_setting_starts_nothing(serve, visit):
    served = serve()
    page = opened(visit, served)
    expect(page.locator("#start-repair")).to_have_text("Fit repairs of 2 removed blocks")
    page.locator("#reset").click()
    expect(page.locator("#start-repair")).to_have_text("Nothing is removed yet")
    expect(page.locator("#start-repair")).to_be_disabled()
    page.locator("#undo").click()
    expect(page.locator("#start-repair")).to_be_enabled()
    page.get_by_role("button", name="Advanced").last.click()
    filled(page.locator("#corrections-more textarea"), "nope:ridge=1", over="")
    page.locator("#start-repair").click()
    expect(page.locator("#error")).to_contain_text("There is no such choice.")
    assert served.engine._jobs == {}


@pytest.mark.parametrize("n_removed", [pytest.param(1, marks=SLOW), 40])
def test_nothing_is_wider_than_the_window(serve, visit, n_removed):
    served = serve(n_layers=80)
    removed = tuple(BlockId(2 * i, "attn") for i in range(n_removed))
    request = RepairRequest(PruningPlan(removed), ("asc", "ridge", "fold_asc"))
    engine = served.engine
    engine._repairs["example"] = make_repair(
        engine.info, request, dataset="long_name_" * 9, n_channels=3000
    )
    page = visit(served)
    tab(page, "Repair")
    drawn(page, "repair_rho").to_be_visible()
    drawn(page, "repairs_bars").to_be_visible()
    assert past_the_edge(page) == {}


def test_hostile_names_are_shown_and_never_run(serve, visit):
    page = opened(visit, serve(is_hostile=True))
    page.locator("#start-repair").click()
    drawn(page, "repair_rho").to_be_visible()
    expect(page.locator("#error")).to_contain_text("${window.pwned=1}")
    assert page.evaluate("window.pwned") is None
