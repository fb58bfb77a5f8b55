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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_no_screen_adds_to_what_an_empty_page_has(serve, visit, empty, scheme, width):
    theme = "&__theme=dark" if scheme == "dark" else ""
    page = visit(serve(), f"{PLAN}{theme}", viewport={"width": width, "height": 900},
                 color_scheme=scheme)  # fmt: skip
    for name, start, told in (
        ("Repair", "#start-repair", "#repair-rows tbody tr"),
        ("Compare", "#start-compare", "#compare-table tbody tr"),
        ("Export", "#start-export", "#export-checks li"),
    ):
        tab(page, name)
        page.locator(start).click()
        expect(page.locator(told).first).to_be_visible()
        expect(page.locator("#job")).to_contain_text("done")
    wrong = {}
    for name in TABS:
        tab(page, name)
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
    assert not wrong, json.dumps(wrong, indent=1)
