"""Every screen, read by axe-core: nothing that an empty Gradio page does not have."""

from __future__ import annotations

import json

import gradio as gr
import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import tab
from playwright.sync_api import expect
from serving import serve as serve_app

pytestmark = pytest.mark.browser

PLAN = "?remove=7.attn,18.attn,18.mlp"
TABS = ("Map", "Curves", "Insights", "Search", "Repair", "Compare", "Export", "Learn")
# Tab -> where its result is.
WITH_RESULT = {
    "Repair": "#repair-rows tbody tr",
    "Compare": "#compare-table tbody tr",
    "Export": "#export-checks li",
}


def found(page) -> dict[str, list[str]]:
    """Rule -> where it is broken."""
    violations = Axe().run(page).response["violations"]
    return {v["id"]: [f"{n['target']}: {n['html'][:200]}" for n in v["nodes"]] for v in violations}


@pytest.fixture(scope="module")
def empty(browser) -> set[str]:
    """The rules that a page with nothing on it breaks."""
    with gr.Blocks(title="empty") as app:
        gr.Markdown("# Nothing")
    url = serve_app(app, quiet=True, ssr_mode=False)
    page = browser.new_page()
    page.goto(url)
    expect(page.get_by_role("heading")).to_have_text("Nothing")
    rules = set(found(page))
    page.close()
    app.close()
    return rules


def test_no_screen_adds_to_what_an_empty_page_has(serve, visit, empty):
    page = visit(serve(), PLAN)
    for name, told in WITH_RESULT.items():
        tab(page, name)
        page.locator(f"#start-{name.lower()}").click()
        expect(page.locator(told).first).to_be_visible()
        expect(page.locator("#job")).to_contain_text("done")
    wrong = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(page.url.split("?")[0] + PLAN + ("&__theme=dark" if scheme == "dark" else ""))
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            wrong |= {f"{scheme}, {width}, {k}": v for k, v in wrong_on(page, empty).items()}
    assert not wrong, json.dumps(wrong, indent=1)


def wrong_on(page, empty: set[str]) -> dict[str, list[str]]:
    """Screen: rule -> where it is broken, over all tabs with their results and the tour."""
    wrong = {}
    for name in TABS:
        tab(page, name)
        if name in WITH_RESULT:
            expect(page.locator(WITH_RESULT[name]).first).to_be_visible()
        page.wait_for_timeout(700)
        wrong |= {f"{name}: {rule}": where for rule, where in found(page).items()
                  if rule not in empty}  # fmt: skip
    page.get_by_role("button", name="Take the tour").click()
    for stop in ("first", "second"):
        expect(page.locator("[data-toured]")).to_be_visible()
        page.wait_for_timeout(700)
        wrong |= {f"Tour, {stop} stop: {rule}": where for rule, where in found(page).items()
                  if rule not in empty}  # fmt: skip
        page.locator("#tour").get_by_role("button", name="Next").click()
    page.keyboard.press("Escape")
    return wrong
