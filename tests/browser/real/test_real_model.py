"""The app on the real demo model: blocks switched by mouse and keyboard, and what is measured."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from blockviz.session import Engine
from blockviz.types import BlockId, PruningPlan
from blockviz.ui.words import short

pytestmark = [pytest.mark.browser, pytest.mark.network]
MEASURE_MS = 60_000


def measured(engine: Engine, *names: str) -> str:
    result = engine.known(PruningPlan(removed=tuple(BlockId.parse(n) for n in names)))
    return short(result.perplexity)


def test_a_real_block_is_switched_by_mouse_and_by_keyboard(real, visit):
    page, engine = visit(real, "?remove=18.attn,7.attn"), real.engine
    expect(page.locator("#score")).to_contain_text("58 of 60")
    assert engine.is_ready, page.locator("#error").text_content()
    state = page.locator("#score .bv-state")

    page.locator('[data-block="12.mlp"]').click()
    expect(page.locator('[data-block="12.mlp"]')).to_have_attribute("aria-checked", "false")
    expect(page.locator("#score")).to_contain_text("57 of 60")
    expect(state).to_have_text("measured", timeout=MEASURE_MS)
    by_mouse = measured(engine, "18.attn", "7.attn", "12.mlp")
    expect(page.locator("#score .bv-wide b")).to_contain_text(re.compile(f"→ {by_mouse}$"))
    expect(page.locator("#work")).to_contain_text("Writing: done", timeout=MEASURE_MS)
    expect(page.locator("#texts mark").first).to_be_visible()

    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.locator('[data-block="13.mlp"]')).to_be_focused()
    expect(page.locator("#score")).to_contain_text("56 of 60")
    expect(state).to_have_text("measured", timeout=MEASURE_MS)
    by_keyboard = measured(engine, "18.attn", "7.attn", "12.mlp", "13.mlp")
    expect(page.locator("#score .bv-wide b")).to_contain_text(re.compile(f"→ {by_keyboard}$"))
    assert by_keyboard != by_mouse
