"""A page that is loaded again, gone back to, or cut off from its server is as it was left."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pages import filled, quiet, tab
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def block(page: Any, name: str) -> Any:
    return page.locator(f'[data-block="{name}"]')


def cut(page: Any) -> set[str]:
    """The blocks that the grid shows as removed."""
    found = page.locator('.bv-block[aria-checked="false"]:not(.layer)')
    return {one.get_attribute("data-block") for one in found.all()}


def test_a_reload_brings_back_plan_undo_fields_tab_and_results(serve, visit):
    page = visit(serve())
    # One by one: what is pressed before an answer comes is one step back.
    page.locator("#reset").click()
    expect(page).to_have_url(re.compile(r"\?remove=$"))
    block(page, "3.mlp").click()
    expect(page).to_have_url(re.compile(r"remove=3\.mlp$"))
    block(page, "5.attn").click()
    expect(page).to_have_url(re.compile(r"remove=3\.mlp,5\.attn$"))
    filled(page.locator("#prompt textarea"), "Two roads", over=re.compile(".+"))
    page.locator("#prompt textarea").blur()
    tab(page, "Search")
    filled(page.locator("#search-samples input"), "6", over="16")
    page.locator("#start-search").click()
    expect(page.locator("#job")).to_contain_text("Search done")
    expect(page.locator("#search-shown input")).to_be_visible()
    shown = page.locator("#search-shown input").input_value()
    assert "tab=search" in page.url and "prompt=Two%20roads" in page.url
    page.reload()
    expect(page.locator("#search-samples input")).to_have_value("6")
    expect(page.locator("#search-shown input")).to_have_value(shown)
    tab(page, "Map")
    assert cut(page) == {"3.mlp", "5.attn"}
    expect(page.locator("#prompt textarea")).to_have_value("Two roads")
    page.locator("#undo").click()
    expect(block(page, "5.attn")).to_have_attribute("aria-checked", "true")
    assert cut(page) == {"3.mlp"}


def test_back_and_forward_walk_through_the_plans_and_nothing_is_lost_offline(serve, visit):
    page = visit(serve())
    first = cut(page)
    page.locator("#reset").click()
    expect(page).to_have_url(re.compile(r"\?remove=$"))
    block(page, "3.mlp").click()
    expect(page).to_have_url(re.compile(r"\?remove=3\.mlp$"))
    page.go_back()
    expect(block(page, "3.mlp")).to_have_attribute("aria-checked", "true")
    page.go_back()
    quiet(page)
    assert cut(page) == first
    page.go_forward()
    page.go_forward()
    expect(block(page, "3.mlp")).to_have_attribute("aria-checked", "false")
    expect(page).to_have_url(re.compile(r"\?remove=3\.mlp$"))
    assert cut(page) == {"3.mlp"}
    quiet(page)
    page.context.set_offline(True)
    block(page, "7.attn").click()
    block(page, "5.attn").click()
    page.context.set_offline(False)
    page.reload()
    expect(page).to_have_url(re.compile(r"5\.attn"))
    assert cut(page) == {"3.mlp", "7.attn", "5.attn"}
