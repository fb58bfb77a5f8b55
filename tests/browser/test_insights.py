"""The Insights tab in a real Chromium, on the fake engine: every page, jobs, files, the lens."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest
from fake_engine import HOSTILE
from pages import Hold, filled, past_the_edge, tab
from playwright.sync_api import expect

from blockviz.ui.insight_handlers import DRAWING, InsightHandlers
from blockviz.ui.insight_tab import TITLES
from blockviz.ui.launch import build_app

pytestmark = pytest.mark.browser
SLOW = pytest.mark.slow("ui", "plots")

# Page -> the cards that the fake engine's table can fill.
FILLED = {
    "right": ("verdict", "cumulative", "singles"),
    "metrics": ("lines", "multiples", "ranks", "values"),
    "agreement": ("agreement",),
    "steady": ("stability",),
    "lens": ("lens", "lens_tokens"),
}


def insights(page, name="right"):
    page.get_by_role("tab", name="Insights", exact=True).click()
    page.locator("#page").wait_for()
    page.get_by_role("radio", name=TITLES[name], exact=True).check()


def upload(page, path):
    with page.expect_file_chooser() as chooser:
        page.locator("#import-scores").click()
    chooser.value.set_files(path)


def drawn(page, card):
    return expect(page.locator(f"#{card}-plot .main-svg").first)


def test_every_page_shows_its_figures_and_hands_them_out_or_says_what_to_do(serve, visit):
    """Each with what to read, the same numbers as a table, sources, and one saved as a file."""
    page = visit(serve())
    for name, cards in FILLED.items():
        insights(page, name)
        for card in cards:
            shows(page, name, card)
    insights(page, "layers")
    expect(page.locator("#note-layers")).to_contain_text("Score Angular distance")
    expect(page.locator("#cka-card")).to_be_hidden()
    insights(page, "right")
    with page.expect_download() as saved:
        page.get_by_role("button", name=re.compile("^CSV of Who is right")).click()
    rows = list(csv.reader(saved.value.path().read_text("utf-8").splitlines()))
    assert saved.value.suggested_filename.endswith(".csv")
    assert len(rows) == 1 + 4


def shows(page, name, card):
    """A card is there whole; `name`: of its page, for the message where it is not."""
    box, where = page.locator(f"#{card}-card"), f"{card} on the page {name}"
    expect(page.locator(f"#{card}-plot .main-svg").first, where).to_be_visible()
    expect(box.locator("h2"), where).to_have_text(re.compile(r"\w"))
    expect(box.locator(".bv-lead"), where).to_have_text(re.compile(r"\.$"))
    source = box.locator(".bv-sources a").first
    expect(source, where).to_have_attribute("href", re.compile("^https"))
    box.get_by_text("The same numbers as a table").click()
    expect(box.locator("tbody tr").first, where).to_be_visible()


def test_pages_are_reached_by_keyboard_and_say_that_they_are_being_drawn(serve, visit, monkeypatch):
    late = Hold(
        monkeypatch, InsightHandlers, "_drawn", lambda self, page, *rest: page == "agreement"
    )
    page = visit(serve())
    page.get_by_role("tab", name="Insights", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_role("radio", name=TITLES["right"], exact=True).focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#page-metrics")).to_be_visible()
    page.keyboard.press("ArrowRight")
    late.wait(page)
    expect(page.locator("#page-metrics")).to_be_hidden()
    expect(page.locator("#note-agreement")).to_have_text(DRAWING)
    late.let_go()
    drawn(page, "agreement").to_be_visible()
    # One stop of Tab, at the page that is chosen.
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("tab", name="Learn", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("radio", name=TITLES["agreement"], exact=True)).to_be_focused()
    expect(page.locator("#note-agreement")).to_contain_text(
        re.compile(r"They disagree most at \d+\.(attn|mlp) and \d+\.(attn|mlp)\.")
    )


def test_what_cuts_cost_is_measured_by_a_job_and_drawn(serve, visit):
    served = serve()
    served.engine._judgements.clear()
    page = visit(served)
    insights(page)
    expect(page.locator("#note-right")).to_contain_text("Press Measure what cuts cost")
    expect(page.locator("#verdict-card")).to_be_hidden()
    page.locator("#start-judge").click()
    drawn(page, "verdict").to_be_visible()
    expect(page.locator("#note-right")).to_be_hidden()


def test_a_measurement_that_was_stopped_and_new_scores_say_what_is_missing(serve, visit):
    served = serve()
    judgements = served.engine._judgements
    whole = judgements["example"]
    few = dict(list(whole.singles.items())[:18])
    judgements["example"] = replace(whole, singles=few, is_partial=True)
    page = visit(served)
    insights(page)
    note = page.locator("#note-right")
    expect(note).to_contain_text("Partial: 18 of 60 single cuts, and tau is of those alone.")
    expect(note).to_contain_text(re.compile(r"measures the \d+ missing sets\."))
    kept = {name: curve for name, curve in whole.curves.items() if name != "rm"}
    judgements["example"] = replace(whole, curves=kept)
    tab(page, "Map")
    insights(page)
    expect(note).to_contain_text("Not yet cut one block after another: Relative magnitude.")
    expect(note).not_to_contain_text("Partial")
    judgements["example"] = whole
    tab(page, "Map")
    insights(page)
    expect(note).to_be_hidden()


def test_a_metric_is_chosen_and_scores_without_it_are_drawn_all_the_same(serve, visit):
    served = serve()
    engine = served.engine
    page = visit(served)
    insights(page)
    expect(page.locator("#singles-card h2")).to_contain_text("Block influence")
    page.locator("#judged-metric input").click()
    page.get_by_role("option", name="Relative magnitude").click()
    expect(page.locator("#singles-card h2")).to_contain_text("Relative magnitude")
    example = engine._tables["example"]
    few = {name: example.metrics[name] for name in ("bi", "ppl")}
    engine._tables["example"] = replace(example, metrics=few)
    tab(page, "Map")
    insights(page)
    expect(page.locator("#singles-card h2")).to_contain_text("Block influence")
    expect(page.locator("#judged-metric input")).to_have_value("Block influence")
    expect(page.locator("#error")).to_be_hidden()
    # A page that has not heard of it may still send the metric that is gone.
    chosen = [b for b in build_app(engine).blocks.values() if b.elem_id == "judged-metric"]
    assert [box.preprocess("gone") for box in chosen] == ["gone"]


def test_two_runs_are_compared_once_there_are_two(serve, visit):
    page = visit(serve())
    insights(page, "steady")
    drawn(page, "stability").to_be_visible()
    expect(page.locator("#note-steady")).to_contain_text("the runs are compared here")
    page.get_by_text("Model, text and metrics").click()
    filled(page.locator("#seed input"), "7", over="42")
    page.locator("#start-score").click()
    drawn(page, "between").to_be_visible()


def test_imported_scores_are_an_extra_row_and_bad_ones_are_refused(serve, visit, tmp_path):
    served = serve()
    page = visit(served)
    page.get_by_text("The same numbers as a table").first.click()
    values = {str(b.id): float(i) for i, b in enumerate(served.engine.info.blocks)}
    good, bad = tmp_path / "mine.json", tmp_path / "bad.json"
    good.write_text(json.dumps({"metrics": {"mine": {"title": HOSTILE, "values": values}}}))
    bad.write_text(json.dumps({"0.attn": 1.0}))
    upload(page, bad)
    expect(page.locator("#error")).to_contain_text(re.compile("missing|lack|block", re.I))
    upload(page, good)
    expect(page.locator("#readings")).to_be_visible()
    # Links of one text lead to different papers: heard alone, each says whose.
    links = page.locator("#readings a").filter(has_text=re.compile("^paper$"))
    names = links.evaluate_all("(all) => all.map((a) => a.getAttribute('aria-label'))")
    assert len(set(names)) == len(names) > 3
    assert "Block influence: paper" in names
    expect(page.locator("#table")).to_contain_text("rank by ${window")
    assert page.evaluate("window.pwned") is None


def test_the_lens_reads_a_text_and_shows_what_the_model_made_of_it(serve, visit):
    page = visit(serve(is_hostile=True))
    insights(page, "lens")
    box = page.locator("#lens-text textarea")
    filled(box, "The capital", over="The capital")
    page.locator("#read-lens").click()
    expect(page.locator("#work")).to_contain_text("done")
    drawn(page, "lens_tokens").to_be_visible()
    assert page.evaluate("window.pwned") is None


@pytest.mark.parametrize("n_layers", [pytest.param(4, marks=SLOW), 80])
def test_no_page_is_wider_than_the_window(serve, visit, n_layers):
    page = visit(serve(n_layers=n_layers))
    for name, cards in FILLED.items():
        insights(page, name)
        drawn(page, cards[0]).to_be_visible()
        assert past_the_edge(page) == {}
