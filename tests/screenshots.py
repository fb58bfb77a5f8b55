"""The pictures of the README, taken of the app on the demo model: part of `make assets`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import chromium
from playwright.sync_api import expect, sync_playwright
from serving import launch

from blockviz.session import Engine

ASSETS = Path(__file__).parents[1] / "assets"
SIZE = {"width": 1440, "height": 900}
WORK_MS = 900_000
# Four layers' worth of blocks, as a greedy search by perplexity takes them.
PLAN = "?remove=7.attn,29.attn,18.attn,4.attn,26.attn,6.attn,8.attn,17.mlp"


def main() -> int:
    """Loads the model, compares a plan with its repair, and saves three pictures."""
    found = chromium.find()
    if found is None:
        sys.stderr.write(f"{chromium.HOW}\n")
        return 1
    engine = Engine(mode="local")
    app, served = launch(engine)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(chromium.ARGS))
        page = browser.new_page(viewport=SIZE, device_scale_factor=1)
        page.goto(served.url)
        while not engine.is_ready:
            page.wait_for_timeout(1000)
        page.goto(served.url)
        page.locator("#texts mark").first.wait_for()
        page.wait_for_timeout(3000)
        page.screenshot(path=ASSETS / "screenshot.png")
        page.goto(served.url + PLAN)
        page.get_by_role("tab", name="Compare", exact=True).click()
        expect(page.locator("#score .bv-state")).to_have_text("measured", timeout=WORK_MS)
        # A picture of words shows text that is ours to show.
        page.locator("#compare-advanced > button").click()
        page.locator("#against-text input").click()
        page.get_by_role("option", name="Our own short essays").click()
        for name, value in (("samples", 8), ("seq-len", 256)):
            page.locator(f"#against-{name} input").fill(str(value))
        page.locator("#start-compare").click()
        expect(page.locator("#job")).to_contain_text("Compare done", timeout=WORK_MS)
        _taken(page, "#hurt-words-card", "words.png")
        _taken(page, "#compare-card", "compare.png")
        browser.close()
    app.close()
    engine.close()
    return 0


def _taken(page: Any, selector: str, name: str) -> None:
    """A card by itself, without the scoreboard that sticks to the top of the window."""
    page.add_style_tag(content="#board { position: static !important; }")
    card = page.locator(selector)
    card.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    card.screenshot(path=ASSETS / name)


if __name__ == "__main__":
    sys.exit(main())
