"""A served app and pages that fail their test on a script error, a foreign host or something that
their own policy forbids."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from fake_engine import FakeEngine
from pages import watch
from playwright.sync_api import expect
from serving import Served, Slot, launch

from blockviz.session import Engine

WAIT_MS = 60_000
LOAD_SECONDS = 300
expect.set_options(timeout=WAIT_MS)


# What the page is built from; the rest of an engine's settings can change under it.
BUILT_FROM = ("mode", "n_layers", "is_hostile", "is_ready")


@pytest.fixture(scope="session")
def share() -> Iterator[Callable[..., Served]]:
    """Serves an engine by the app that all engines share whose pages are built alike."""
    running: dict[tuple[Any, ...], tuple[Any, Served, Slot]] = {}

    def start(engine: FakeEngine) -> Served:
        key = tuple(getattr(engine, name) for name in BUILT_FROM)
        if key not in running:
            slot = Slot(engine)
            running[key] = (*launch(slot), slot)
        _, served, slot = running[key]
        slot.put(engine)
        return replace(served, engine=engine)

    yield start
    for app, _, _ in running.values():
        app.close()


@pytest.fixture
def serve(share: Callable[..., Served]) -> Iterator[Callable[..., Served]]:
    """A fake engine of its own, on a shared app unless it is asked for apart."""
    apart = []

    def start(*, is_apart: bool = False, **settings: Any) -> Served:
        engine = FakeEngine(**{"step": 0.01, "is_ready": True, **settings})
        if not is_apart:
            return share(engine)
        app, served = launch(engine)
        apart.append(app)
        return served

    yield start
    for app in apart:
        app.close()


@pytest.fixture(scope="session")
def real() -> Iterator[Served]:
    """The app on the real demo model, loaded once for all tests."""
    engine = Engine(mode="local")
    app, served = launch(engine)
    engine.start_demo()
    until = time.monotonic() + LOAD_SECONDS
    while not engine.is_ready and time.monotonic() < until:
        time.sleep(0.5)
    yield served
    app.close()
    engine.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address in a context of its own; `context` reuses another page's."""
    contexts, problems = [], []

    def open_page(served: Served, query: str = "", *, context: Any = None, **options: Any) -> Any:
        if context is None:
            options = {"viewport": {"width": 1440, "height": 900}, **options}
            # The headless shell asks nobody and would refuse.
            options.setdefault("permissions", ["clipboard-read", "clipboard-write"])
            context = browser.new_context(**options)
            context.set_default_timeout(WAIT_MS)
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("console", lambda message: _check_console(message.text, problems))
        watch(page)
        page.on("request", lambda request: _check_host(request.url, problems))
        page.goto(served.url + query)
        page.locator('[data-block="0.attn"]').wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def _check_console(said: str, problems: list[str]) -> None:
    """The page needs nothing that its own Content-Security-Policy keeps from it, and no choice of
    ours goes by a name that gradio has for its own texts."""
    if "Content Security Policy" in said or "svelte-i18n" in said:
        problems.append(said)


def _check_host(url: str, problems: list[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
        problems.append(f"foreign host: {parts.hostname}")
