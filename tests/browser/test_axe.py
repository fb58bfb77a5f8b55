"""Every screen, read by axe-core: nothing that an empty Gradio page does not have."""

from __future__ import annotations

import gradio as gr
import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import quiet, tab
from playwright.sync_api import expect
from serving import serve as serve_app

pytestmark = pytest.mark.browser

PLAN = "?remove=7.attn,18.attn,18.mlp"
TABS = ("Map", "Curves", "Insights", "Search", "Repair", "Compare", "Export", "Learn")
# Tab -> where its figures are.
DRAWN = {
    "Map": "#heat .js-plotly-plot",
    "Curves": "[id$=-plot] .js-plotly-plot",
    "Insights": "[id$=-plot] .js-plotly-plot",
}
# Tab -> where its result is.
WITH_RESULT = {
    "Repair": "#repair-rows tbody tr",
    "Compare": "#compare-table tbody tr",
    "Export": "#export-checks li",
}


def found(page) -> set[tuple[str, str, str]]:
    """What is wrong on the page: rule, where, element."""
    violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return {(v["id"], str(n["target"]), n["html"][:200]) for v in violations for n in v["nodes"]}


@pytest.fixture(scope="module")
def empty(browser) -> set[tuple[str, str]]:
    """What is wrong on a page with nothing on it: rule and element."""
    with gr.Blocks(title="empty") as app:
        gr.Markdown("# Nothing")
    url = serve_app(app, quiet=True, ssr_mode=False)
    page = browser.new_page()
    page.goto(url)
    expect(page.get_by_role("heading")).to_have_text("Nothing")
    wrong = {(rule, html) for rule, _, html in found(page)}
    page.close()
    app.close()
    return wrong


@pytest.mark.parametrize(
    ("scheme", "width"),
    [("light", 1440), pytest.param("dark", 390, marks=pytest.mark.slow("ui", "plots"))],
)
def test_no_screen_adds_to_what_an_empty_page_has(serve, visit, empty, scheme, width):
    """Every screen light and dark, wide and narrow; contrast does not change with the width."""
    page = visit(
        serve(),
        PLAN + ("&__theme=dark" if scheme == "dark" else ""),
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    for name, told in WITH_RESULT.items():
        tab(page, name)
        page.locator(f"#start-{name.lower()}").click()
        expect(page.locator(told).first).to_be_visible()
        expect(page.locator("#job")).to_contain_text(f"{name} done")
    wrong = {place for place in screens(page) if place[1::2] not in empty}
    assert not wrong, "\n".join(map(str, sorted(wrong)))


def screens(page) -> set[tuple[str, str, str, str]]:
    """Screen, and what is wrong there: all tabs, unfolded, with their results, and the tour."""
    wrong, folded = set(), page.locator(".label-wrap:not(.open):visible")
    for name in TABS:
        tab(page, name)
        for told in (of.get(name) for of in (DRAWN, WITH_RESULT)):
            if told:
                expect(page.locator(f"{told}:visible").first).to_be_visible()
        while folded.count():
            folded.first.click()
        # Gradio's own stand-in for a figure that is still on its way.
        expect(page.locator("[aria-label='Empty value']:visible")).to_have_count(0)
        quiet(page)
        wrong |= {(name, *place) for place in found(page)}
    page.get_by_role("button", name="Take the tour").click()
    for stop in ("first stop", "second stop"):
        expect(page.locator("[data-toured]")).to_be_visible()
        quiet(page)
        wrong |= {(f"Tour, {stop}", *place) for place in found(page)}
        page.locator("#tour").get_by_role("button", name="Next").click()
    page.keyboard.press("Escape")
    return wrong
