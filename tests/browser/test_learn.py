"""The tour in a real Chromium: every stop drives the control it speaks of; and the method cards."""

from __future__ import annotations

import re

import pytest
from fake_engine import BASELINE, HOSTILE
from pages import tab
from playwright.sync_api import expect

from blockviz.types import BlockId, PruningPlan
from blockviz.ui.words import short

pytestmark = pytest.mark.browser
EXAMPLE = ("7.attn", "18.attn")
SLOW = pytest.mark.slow("ui")
WIDE = pytest.mark.parametrize("width", [1440, pytest.param(390, marks=SLOW)])
NARROW = pytest.mark.parametrize("width", [pytest.param(1440, marks=SLOW), 390])
# Of the control that the tour outlines: what of it is on the screen, and what lies over that.
SEEN = """() => {
  const node = document.querySelector("[data-toured]");
  if (!node) return "nothing is outlined";
  const box = node.getBoundingClientRect(), board = document.querySelector("#board");
  const tour = document.querySelector(".bv-tour").getBoundingClientRect();
  const isBelow = getComputedStyle(document.querySelector("#tour")).position === "fixed";
  const top = board.contains(node) ? 0 : board.getBoundingClientRect().bottom - (isBelow ? 1 : 0);
  const bottom = isBelow ? tour.top : innerHeight;
  const from = Math.max(box.top, top), to = Math.min(box.bottom, bottom);
  if (box.left < 0 || box.right > innerWidth) return "beyond the side";
  if (to - from < Math.min(box.height, 80) - 1) return `hidden: ${box.top} to ${box.bottom}`;
  const over = document.elementFromPoint((box.left + box.right) / 2, (from + to) / 2);
  return node.contains(over) || over?.contains(node) ? "" : `below ${over?.outerHTML.slice(0, 90)}`;
}"""
STYLES = """() => {
  const of = (found) => getComputedStyle(document.querySelector(found));
  return [of("main").padding, of("html").scrollPadding, of(".bv-block").transitionDuration];
}"""


def tour(page):
    return page.locator("#tour")


def press(page, name):
    tour(page).get_by_role("button", name=name, exact=True).click()


def at_stop(page, n, title):
    expect(tour(page).locator(".bv-count")).to_have_text(f"Tour, stop {n} of 7")
    expect(tour(page).get_by_role("heading")).to_have_text(title)
    expect(tour(page).get_by_role("heading")).to_be_focused()
    in_sight(page)


def in_sight(page):
    """What the tour speaks of is outlined and can be seen, once the page has come to rest."""
    page.wait_for_function(f"() => ({SEEN})() === ''")


def done(page, text):
    expect(tour(page).locator("#tour-after")).to_contain_text(text)
    expect(page.get_by_role("button", name="Do it for me")).to_be_disabled()


def expect_cuts(page, names):
    """Exactly these blocks are off, once the server has answered."""
    off = page.locator('#grid .bv-block:not(.layer)[aria-checked="false"]')
    expect(off).to_have_count(len(names))
    assert {b.get_attribute("data-block") for b in off.all()} == set(names)


def first_to_go(served):
    values = served.engine.table("example").metrics["ppl"].values
    return str(min(values, key=values.__getitem__))


def perplexity_of(served, *names):
    plan = PruningPlan(removed=tuple(BlockId.parse(n) for n in names))
    return short(served.engine._live(plan, "measured").perplexity)


def choose(page, label, option):
    page.get_by_label(label).click()
    page.get_by_role("option", name=option, exact=True).click()


@NARROW
def test_the_tour_does_it_all_by_itself_while_the_model_still_loads(serve, visit, width):
    served = serve(is_ready=False, load_seconds=600.0, step=0.5)
    page = visit(served, viewport={"width": width, "height": 844},
                 permissions=["clipboard-read", "clipboard-write"])  # fmt: skip
    block = first_to_go(served)
    page.get_by_role("button", name="Take the tour").click()

    at_stop(page, 1, "A finished example")
    whole, cut = short(BASELINE), perplexity_of(served, *EXAMPLE)
    expect(tour(page)).to_contain_text(f"perplexity went from {whole} to {cut}")
    expect(page.get_by_role("button", name="Do it for me")).to_be_hidden()
    expect(page.locator("#texts[data-toured] mark").first).to_be_visible()

    press(page, "Next")
    at_stop(page, 2, "Switch everything on")
    press(page, "Do it for me")
    done(page, f"perplexity {whole}")
    expect(page.locator("#score")).to_contain_text("60 of 60")
    expect(tour(page).get_by_role("button", name="Next")).to_be_focused()

    press(page, "Next")
    at_stop(page, 3, "Switch one block off")
    expect(page.locator("[data-toured]")).to_have_attribute("data-block", block)
    press(page, "Do it for me")
    done(page, f"{block} is off")
    expect(page.locator("#score")).to_contain_text("59 of 60")
    expect(page.locator("#score .bv-wide")).to_contain_text(perplexity_of(served, block))
    expect(page.locator("#score .bv-state")).to_have_text("bundled")
    expect_cuts(page, {block})

    press(page, "Next")
    at_stop(page, 4, "Did the metrics foretell it?")
    press(page, "Do it for me")
    done(page, "Block influence puts")
    expect(page.get_by_label("Colour by")).to_have_value("Block influence")
    expect(page.locator("#legend")).to_contain_text("by rank of Block influence")

    press(page, "Next")
    at_stop(page, 5, "Who is right?")
    press(page, "Do it for me")
    done(page, "Nearest to the truth")
    expect(page.locator("#verdict-card")).to_be_visible()
    in_sight(page)

    press(page, "Next")
    at_stop(page, 6, "Cut more, then repair")
    press(page, "Do it for me")
    done(page, "Choose corrections")
    expect(page.locator("#repair-form")).to_be_visible()

    press(page, "Next")
    at_stop(page, 7, "Pass it on")
    expect(page.locator("#map-main")).to_be_visible()
    press(page, "Do it for me")
    done(page, "ready to be pasted")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.endswith(f"?remove={block}&metric=bi")

    press(page, "Finish")
    expect(tour(page).get_by_role("heading")).to_have_text("That was the tour")
    expect(page.locator("[data-toured]")).to_have_count(0)
    press(page, "Put back as it was")
    expect(page.locator("#score")).to_contain_text("58 of 60")
    expect(page.get_by_label("Colour by")).to_have_value("Perplexity if cut")
    expect(page.locator("#legend")).to_contain_text("by rank of Perplexity if cut")
    expect_cuts(page, {*EXAMPLE})
    expect(tour(page)).to_be_hidden()
    page.locator("#undo").click()
    expect(page.locator("#score")).to_contain_text("59 of 60")
    assert served.engine.calls == []


@WIDE
def test_every_stop_can_be_done_by_hand(serve, visit, width):
    served = serve()
    page = visit(served, viewport={"width": width, "height": 844})
    tab(page, "Learn")
    page.get_by_role("button", name="Start the tour").click()
    at_stop(page, 1, "A finished example")
    press(page, "Next")
    page.locator("#reset").click()
    done(page, "The whole model")
    press(page, "Next")
    at_stop(page, 3, "Switch one block off")
    page.locator("[data-toured]").click()
    done(page, "is off")
    expect(page.locator("#score")).to_contain_text("59 of 60")
    # A hand keeps its focus on what it pressed.
    expect(page.locator("[data-toured]")).to_be_focused()
    page.locator("[data-toured]").click()
    expect(tour(page).locator("#tour-after")).to_be_hidden()
    expect(page.get_by_role("button", name="Do it for me")).to_be_enabled()
    expect(page.locator("#score")).to_contain_text("60 of 60")
    press(page, "Next")
    at_stop(page, 4, "Did the metrics foretell it?")
    choose(page, "Colour by", "Block influence")
    done(page, "Block influence puts")
    press(page, "Next")
    at_stop(page, 5, "Who is right?")
    tab(page, "Insights")
    done(page, "Nearest to the truth")
    press(page, "Back")
    at_stop(page, 4, "Did the metrics foretell it?")
    press(page, "End")
    press(page, "Keep it")
    expect(tour(page)).to_be_hidden()
    expect(page.get_by_label("Colour by")).to_have_value("Block influence")
    expect_cuts(page, [])


def test_the_keyboard_alone_walks_it_and_comes_back_to_where_it_began(serve, visit):
    served = serve()
    page = visit(served)
    opener = page.get_by_role("button", name="Take the tour")
    opener.focus()
    page.keyboard.press("Enter")
    at_stop(page, 1, "A finished example")
    page.keyboard.press("Tab")
    expect(tour(page).get_by_role("button", name="Next")).to_be_focused()
    page.keyboard.press("Enter")
    at_stop(page, 2, "Switch everything on")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Do it for me")).to_be_focused()
    page.keyboard.press("Space")
    done(page, "The whole model")
    expect(tour(page).get_by_role("button", name="Next")).to_be_focused()
    page.keyboard.press("Enter")
    at_stop(page, 3, "Switch one block off")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    done(page, "is off")
    page.keyboard.press("Enter")
    at_stop(page, 4, "Did the metrics foretell it?")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    done(page, "Block influence puts")
    page.keyboard.press("Escape")
    expect(tour(page).get_by_role("heading")).to_have_text("The tour has ended")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Put back as it was")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#score")).to_contain_text("58 of 60")
    expect(tour(page)).to_be_hidden()
    expect(opener).to_be_focused()


def test_escape_ends_a_tour_that_changed_nothing_and_leaves_all_as_it_was(serve, visit):
    page = visit(serve(), "?remove=3.attn,9.mlp,9.attn&metric=lds")
    expect(page.locator("#score")).to_contain_text("57 of 60")
    expect(page.get_by_label("Colour by")).to_have_value("Logit disruption")
    page.get_by_role("button", name="Take the tour").click()
    at_stop(page, 1, "Where you are")
    box = page.get_by_label("Prompt")
    box.focus()
    page.keyboard.press("Escape")
    expect(tour(page)).to_be_visible()
    page.locator('[data-block="0.attn"]').focus()
    page.keyboard.press("Escape")
    expect(tour(page)).to_be_hidden()
    expect(page.locator("[data-toured]")).to_have_count(0)
    expect_cuts(page, {"3.attn", "9.mlp", "9.attn"})
    expect(page.get_by_label("Colour by")).to_have_value("Logit disruption")


def test_the_page_can_be_used_beside_the_tour_and_what_a_hand_did_stays(serve, visit):
    served = serve()
    page = visit(served)
    page.get_by_role("button", name="Take the tour").click()
    at_stop(page, 1, "A finished example")
    page.locator('[data-block="12.mlp"]').click()
    expect(page.locator("#score")).to_contain_text("57 of 60")
    page.keyboard.press("Escape")
    press(page, "Keep it")
    expect_cuts(page, {*EXAMPLE, "12.mlp"})
    # A second tour begins with what is there now.
    page.get_by_role("button", name="Take the tour").click()
    expect(tour(page)).to_contain_text("without 3 of its 60 blocks")


def test_hostile_names_in_the_tour_and_on_cards_stay_text(serve, visit):
    page = visit(serve(is_hostile=True))
    page.get_by_role("button", name="Take the tour").click()
    expect(tour(page)).to_contain_text("window.pwned")
    page.keyboard.press("Escape")
    tab(page, "Learn")
    expect(page.locator("#method .bv-here h4")).to_contain_text(HOSTILE[:30])
    expect(page.locator("#method .bv-equation")).to_contain_text("window.pwned")
    choose(page, "Metric or correction", re.compile("^Correction: Ridge map"))
    expect(page.locator("#method h3")).to_contain_text("Ridge map")
    assert page.locator("#method :is(img, script), #tour :is(img, script)").count() == 0
    assert page.evaluate("window.pwned") is None


def test_where_there_is_no_room_for_the_link_its_stop_is_left_out(serve, visit):
    page = visit(serve(), viewport={"width": 320, "height": 640})
    page.get_by_role("button", name="Take the tour").click()
    expect(tour(page).locator(".bv-count")).to_have_text("Tour, stop 1 of 6")
    in_sight(page)
    overflow = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) <= 0
    # Rules of narrow screens and of those who want no motion reach what is outside of `main`, too.
    assert page.evaluate(STYLES) == ["0px 12px 294.4px", "180px 0px 294.4px", "0.08s"]
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(STYLES)[2] == "0s"


@NARROW
def test_a_card_shows_the_formula_the_limits_and_what_this_model_made_of_it(serve, visit, width):
    served = serve()
    page = visit(served, viewport={"width": width, "height": 844})
    tab(page, "Learn")
    card = page.locator("#method")
    expect(card.locator("h3")).to_have_text("Perplexity if cut Metric")
    choose(page, "Metric or correction", "Metric: Relative magnitude")
    expect(card.locator("h3")).to_have_text("Relative magnitude Metric")
    expect(card.locator(".bv-equation sub").first).to_have_text("t")
    for name in ("Sees", "Misses", "Removes first", "Foretold"):
        expect(card.get_by_text(name, exact=True)).to_be_visible()
    expect(card.get_by_role("link")).to_have_attribute("href", re.compile("^https://arxiv.org/"))
    overflow = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) <= 0
    card.get_by_role("button", name="Colour the Map by it").click()
    expect(page.locator("#map-main")).to_be_visible()
    expect(page.get_by_label("Colour by")).to_have_value("Relative magnitude")
    expect(page.locator("#legend")).to_contain_text("by rank of Relative magnitude")
    tab(page, "Learn")
    choose(page, "Metric or correction", "Correction: Ridge map")
    here = card.locator(".bv-here")
    expect(here).to_contain_text("Not tried on this model yet")
    tab(page, "Repair")
    page.locator("#start-repair").click()
    expect(page.locator("#job")).to_contain_text("done")
    tab(page, "Learn")
    expect(here).to_contain_text("Without 2 blocks")
    expect(here).to_contain_text("closes 34.5\u202f% of the gap")
