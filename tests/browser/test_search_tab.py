"""Search, Curves and Stand-ins in a real Chromium, on the fake engine."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from pages import Gate, filled, past_the_edge, quiet, tab
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
SLOW = pytest.mark.slow("ui", "plots")


def drawn(page, card):
    return expect(page.locator(f"#{card}-plot .main-svg").first)


def rows(page):
    return page.locator("#candidates tbody tr")


def stand_ins(page):
    tab(page, "Insights")
    page.get_by_role("radio", name="Stand-ins", exact=True).check()


def cut_blocks(page):
    return {b.get_attribute("data-block") for b in page.locator(".bv-block.cut:not(.layer)").all()}


def asks_for(page, n):
    filled(page.locator("#search-amount input"), str(n), over="6")
    page.locator("#search-amount input").press("Tab")


def test_a_search_is_timed_started_watched_through_a_reload_cancelled_and_applied(serve, visit):
    served = serve()
    Gate(served.engine, 20)
    page = visit(served)
    tab(page, "Search")
    expect(page.locator("#search-time")).to_contain_text(re.compile(r"About .*, up to 345 removed"))
    asks_for(page, 30)
    expect(page.locator("#search-time")).not_to_contain_text("345")
    page.locator("#start-search").click()
    expect(page.locator("#search-note")).to_contain_text("Searching")
    expect(page.locator("#search_progress-card h2")).to_contain_text("so far")
    drawn(page, "search_progress").to_be_visible()
    drawn(page, "search_grid").to_be_visible()
    expect(rows(page).nth(2)).to_be_visible()
    expect(page.locator("#search-note")).to_contain_text("best so far")
    page.reload()
    tab(page, "Search")
    expect(page.locator("#search-note")).to_contain_text("best so far")
    page.locator("#cancel").click()
    expect(page.locator("#search-note")).to_contain_text("Partial.")
    expect(page.locator("#job")).to_contain_text("cancelled")
    found = served.engine._searches["search1"]
    assert found.is_partial and len(found.steps) >= 3
    wanted = {str(p) for b in found.steps[1].removed for p in b.parts}
    button = page.get_by_role("button", name=re.compile("^Apply this set of 2 "))
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_text("On the Map")
    expect(page.locator("#score")).to_contain_text("58 of 60")
    tab(page, "Map")
    assert cut_blocks(page) == wanted
    page.locator("#undo").click()
    expect(page.locator('[data-block="7.attn"]')).to_have_class(re.compile("cut"))
    assert cut_blocks(page) == set(served.engine.example_removed)
    tab(page, "Search")
    expect(page.get_by_text("On the Map", exact=True)).to_have_count(1)  # the column's head


def test_a_search_that_waits_behind_another_visitor_s_can_be_cancelled(serve, visit, monkeypatch):
    served = serve()
    look = served.engine.job

    def in_line(job_id):
        job = look(job_id)
        return replace(job, state="queued", queue_position=1) if job and not job.is_over else job

    monkeypatch.setattr(served.engine, "job", in_line)
    Gate(served.engine, 20)
    page = visit(served, viewport={"width": 390, "height": 844})
    expect(page.locator("#cancel")).to_be_hidden()
    expect(page.locator("#work")).to_be_visible()
    tab(page, "Search")
    page.locator("#start-search").click()
    expect(page.locator("#job")).to_contain_text("Queued, number 1 in line")
    # There is room for one line of work.
    expect(page.locator("#work")).to_be_hidden()
    page.locator("#cancel").click()
    expect(page.locator("#job")).to_contain_text("cancelled")
    expect(page.locator("#cancel")).to_be_hidden()


def test_a_finished_search_can_be_told_from_the_example(serve, visit):
    page = visit(serve())
    tab(page, "Search")
    expect(rows(page)).to_have_count(12)
    page.locator("#search-unit input").click()
    page.get_by_role("option", name="whole layers").click()
    page.locator("#start-search").click()
    expect(rows(page)).to_have_count(6)
    expect(rows(page).first).to_contain_text("layer")
    expect(page.locator("#job")).to_contain_text("done")
    quiet(page)
    page.locator("#search-shown input").click()
    page.get_by_role("option", name=re.compile("example$")).click()
    expect(rows(page)).to_have_count(12)


def test_settings_are_refused_or_filled_by_a_recipe_until_they_leave_it(serve, visit):
    served = serve()
    page = visit(served)
    tab(page, "Search")
    asks_for(page, 61)
    expect(page.locator("#search-time")).to_contain_text("It must lie between 1 and 59")
    page.locator("#start-search").click()
    expect(page.locator("#error")).to_contain_text("It must lie between 1 and 59")
    assert served.engine._jobs == {}
    # A number out of range leaves no recipe.
    page.locator("#search-preset input").click()
    page.get_by_role("option", name="ShortGPT").click()
    expect(page.locator("#search-unit input")).to_have_value("whole layers")
    expect(page.locator("#search-about")).to_contain_text("change the stream")
    expect(page.locator("#search-about a")).to_have_attribute("href", re.compile("2403.03853"))
    page.locator("#search-unit input").click()
    page.get_by_role("option", name="MLP only").click()
    expect(page.locator("#search-preset input")).to_have_value("None: as set below")


def test_a_set_of_a_curve_is_applied_by_mouse_and_by_keyboard(serve, visit):
    page = visit(serve())
    tab(page, "Curves")
    drawn(page, "curves").to_be_visible()
    expect(page.locator("#curves-note")).to_contain_text("not measured on this text")
    points = page.locator("#curves-plot .scatterlayer .trace").first.locator("path.point")
    expect(points).to_have_count(13)
    box = points.nth(5).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#score")).to_contain_text("55 of 60")
    expect(page.locator("#curves-note")).to_be_hidden()
    expect(page.locator("#curves-plot")).to_contain_text("your set")
    page.locator("#undo").click()
    expect(page.locator("#curves-note")).to_contain_text("not measured on this text")
    quiet(page)
    # A list is open as long as its field has the focus.
    group = page.locator("#curve-group input")
    group.focus()
    expect(group).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Tab")
    expect(page.get_by_role("checkbox", name="Logarithmic")).to_be_focused()
    quiet(page)
    expect(group).to_have_attribute("aria-expanded", "false")
    page.locator("#curve-point input").focus()
    page.keyboard.type("3 removed", delay=40)
    options = page.get_by_role("option")
    expect(options.filter(has_not_text="3 removed")).to_have_count(0)
    # Which of them Enter takes is settled after they are drawn.
    expect(page.locator("[role=option].active")).to_contain_text(": 3 removed")
    page.keyboard.press("Enter")
    expect(page.locator("#curve-point input")).to_have_value(re.compile(": 3 removed"))
    expect(options).to_have_count(0)
    page.keyboard.press("Tab")
    expect(page.locator("#apply-point")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#score")).to_contain_text("57 of 60")


def test_metrics_and_searches_are_two_figures(serve, visit):
    page = visit(serve())
    tab(page, "Curves")
    expect(page.locator("#curves-plot")).to_contain_text("greedy")
    page.locator("#curve-group input").click()
    page.get_by_role("option", name=re.compile("^Metrics")).click()
    expect(page.locator("#curves-plot")).to_contain_text("Block influence")
    expect(page.locator("#curves-plot")).not_to_contain_text("greedy")


def test_pairs_are_measured_step_by_step_and_foretell_the_plan(serve, visit):
    served = serve()
    gate = Gate(served.engine, 10)
    page = visit(served)
    stand_ins(page)
    expect(page.locator("#foretold")).to_contain_text("Predicted, not measured")
    for card in ("pairs_map", "pairs_list", "pairs_check"):
        drawn(page, card).to_be_visible()
    page.get_by_role("radio", name="Grouped", exact=True).check()
    expect(page.locator("#pairs_map-card .bv-lead")).to_contain_text("square")
    page.locator("#start-pairs").click()
    expect(page.locator("#note-pairs")).to_contain_text(re.compile(r"Partial: .* pairs so far"))
    gate.open()
    expect(page.locator("#note-pairs")).to_be_hidden()
    page.locator("#reset").click()
    expect(page.locator("#foretold")).to_be_hidden()


@pytest.mark.parametrize("n_layers", [pytest.param(4, marks=SLOW), 80])
def test_nothing_is_wider_than_the_window(serve, visit, n_layers):
    page = visit(serve(n_layers=n_layers))
    tab(page, "Search")
    drawn(page, "search_grid").to_be_visible()
    page.get_by_role("button", name="Advanced").click()
    expect(page.locator("#search-pool")).to_be_visible()
    assert past_the_edge(page) == {}
    tab(page, "Curves")
    drawn(page, "curves").to_be_visible()
    assert past_the_edge(page) == {}
    stand_ins(page)
    drawn(page, "pairs_map").to_be_visible()
    assert past_the_edge(page) == {}


def test_hostile_names_are_shown_and_never_run(serve, visit):
    page = visit(serve(is_hostile=True))
    tab(page, "Search")
    expect(page.locator("#search-note")).to_contain_text("${window.pwned=1}")
    tab(page, "Curves")
    drawn(page, "curves").to_be_visible()
    expect(page.locator("#curve-group input")).to_have_value(re.compile("pwned"))
    stand_ins(page)
    drawn(page, "pairs_map").to_be_visible()
    assert page.evaluate("window.pwned") is None
