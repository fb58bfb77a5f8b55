"""The visitors of the bench speak to the page as a browser does, and notice what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio.utils
import httpx2
import pytest
from fake_engine import FakeEngine
from serving import Slot, launch

from blockviz.bench.visitors import _Page, _Site


def _engine() -> FakeEngine:
    return FakeEngine(step=0.01, is_ready=True)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Any, Slot, str]]:
    """(app, the place of its engine, address) of one app for all tests."""
    slot = Slot(_engine())
    app, served = launch(slot)
    yield app, slot, served.url.rstrip("/")
    app.close()


@pytest.fixture
def site(served: tuple[Any, Slot, str]) -> tuple[_Site, FakeEngine]:
    _, slot, url = served
    engine = _engine()
    slot.put(engine)
    return _Site(url), engine


def test_pages_toggle_plans_of_their_own(site):
    site, engine = site
    pages = [_Page(site), _Page(site)]
    pages[0].toggle(("7.attn", "18.mlp"))
    pages[1].toggle(("9.mlp", "9.attn"))
    pages[0].toggle(("7.attn", "18.mlp", "3.attn"))
    for page, n in zip(pages, (2, 1), strict=True):
        page.leave()
        assert (page.mixed, page.refused) == (0, [])
        assert len(page.drawn) == len(page.measured) == len(page.written) == n
        assert all(m < w for m, w in zip(page.measured, page.written, strict=True))
        assert all(0 < d <= m for d, m in zip(page.drawn, page.measured, strict=True))
    assert sum(call.startswith("measure") for call in engine.calls) == 3
    assert sum(call.startswith("write") for call in engine.calls) == 3


def test_a_search_runs_to_its_end(site):
    site, engine = site
    site.search()
    assert site.searched == "complete" and any(c.startswith("search") for c in engine.calls)


def test_what_shows_another_plan_or_a_refusal_is_counted(site, monkeypatch):
    site, engine = site
    page = _Page(site)
    page.toggle(("99.attn",))
    assert page.mixed and any("99" in said for said in page.refused)
    monkeypatch.setattr(engine, "known", lambda plan: None)
    monkeypatch.setattr(engine, "measure", lambda plan: iter(()))
    page.toggle(("7.attn",))
    assert any("no perplexity" in said for said in page.refused)
    page.leave()


def test_a_page_is_held_by_its_plan_alone_and_can_come_back(served, site):
    app, page = served[0], _Page(site[0])
    page.toggle(("7.attn",))
    held = app.state_holder.session_data[page.session]
    assert not held.config_values and held.state_data
    page.leave()
    until = time.monotonic() + 30
    while not held.is_closed and time.monotonic() < until:
        time.sleep(0.02)
    assert held.is_closed and not held.config_values and held.state_data
    page.client = httpx2.Client(timeout=60)
    page.toggle(("7.attn", "18.mlp"))
    assert (page.mixed, page.refused) == (0, []) and len(page.written) == 2
    assert app.state_holder.session_data[page.session] is held
    page.client.close()


def test_a_page_leaves_at_once_and_not_with_the_next_beat(site, monkeypatch):
    monkeypatch.setattr(gradio.utils, "get_heartbeat_rate", lambda: 3600)
    page = _Page(site[0])
    assert page.heart.is_alive()
    page.leave()
    assert not page.heart.is_alive()
