"""What browser tests do on more than one screen."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

WIDTHS = (1440, 390, 320)
# Long enough for a page that is not busy to ask for what follows from an answer.
A_MOMENT = "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))"
# What stands out on the right of the window, and is not in a box that scrolls.
PAST_THE_EDGE = """() => [...document.querySelectorAll("main *")]
  .filter((e) => !e.closest(".bv-scroll, #table, .bv-chip, .bv-foot, .bv-numbers"))
  .filter((e) => !e.closest(".visually-hidden"))
  .map((e) => [e.getBoundingClientRect(), e.outerHTML.slice(0, 90)])
  .filter(([box]) => box.width && box.right > innerWidth + 1)
  .map(([, markup]) => markup)"""


def tab(page: Any, name: str) -> None:
    """Opens a tab; on a narrow screen it may be in the menu of those that have no room."""
    page.get_by_role("tab").first.wait_for()
    found = page.get_by_role("tab", name=name, exact=True)
    if found.is_visible():
        found.click()
        return
    page.locator("#tabs .overflow-menu > button").click()
    page.locator("#tabs .overflow-dropdown").get_by_text(name, exact=True).click()


def past_the_edge(page: Any) -> dict[int, list[str]]:
    """Width of the window -> what stands out there once the figures have taken that width.

    The window has its first size again afterwards."""
    before, found = page.viewport_size, {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        until = time.monotonic() + 60
        while (out := page.evaluate(PAST_THE_EDGE)) and time.monotonic() < until:
            page.wait_for_timeout(100)
        found |= {width: out} if out else {}
    page.set_viewport_size(before)
    return found


def filled(field: Any, text: str, *, over: str | re.Pattern[str]) -> None:
    """Writes into a field once its first value is there to stay: that would come over what was
    written sooner."""
    expect(field).to_have_value(over)
    field.page.evaluate(A_MOMENT)
    field.fill(text)


def watch(page: Any) -> None:
    """Notes from here on what the page has asked and is not answered yet; for `quiet`."""
    page.asked = asked = set()
    page.on("request", lambda request: request.method == "POST" and asked.add(request))
    for end in ("requestfinished", "requestfailed"):
        page.on(end, lambda request: asked.discard(request))


def quiet(page: Any) -> None:
    """Until all that the page asked is answered and shown, and it asks for nothing more."""
    n_quiet, until = 0, time.monotonic() + 60
    while n_quiet < 2:
        assert time.monotonic() < until, f"still asked for: {[r.url for r in page.asked]}"
        page.evaluate(A_MOMENT)
        n_quiet = 0 if page.asked else n_quiet + 1


class Gate:
    """The jobs of a fake engine, or those of one kind, go no further than this step, until it is
    opened or they are cancelled."""

    def __init__(self, engine: Any, step: int, only: str = "") -> None:
        self.step: float = step
        start = engine._start

        def begin(kind: str, steps: int, finish: Any, so_far: Any = lambda i: None) -> str:
            def reach(i: int) -> Any:
                while only in ("", kind) and i > self.step and not engine._cancelled:
                    time.sleep(0.01)
                return so_far(i)

            return start(kind, steps, finish, reach)

        engine._start = begin

    def open(self) -> None:
        self.step = math.inf


class Hold:
    """The first call of a function, or the first that `is_meant`, has its result ready and gives it
    out when it is let go."""

    def __init__(
        self, monkeypatch: Any, owner: Any, name: str, is_meant: Callable[..., bool] | None = None
    ) -> None:
        call, is_taken = getattr(owner, name), threading.Lock()
        self._begun, self._released = threading.Event(), threading.Event()

        def late(*args: Any) -> Any:
            found = call(*args)
            if (is_meant is None or is_meant(*args)) and is_taken.acquire(blocking=False):
                self._begun.set()
                self._released.wait(60)
            return found

        monkeypatch.setattr(owner, name, late)

    def wait(self, page: Any) -> None:
        """Until the call has come."""
        until = time.monotonic() + 60
        while not self._begun.is_set():
            assert time.monotonic() < until, "what is to be held has not come"
            page.wait_for_timeout(50)

    def let_go(self) -> None:
        self._released.set()
