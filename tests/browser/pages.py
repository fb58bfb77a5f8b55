"""What browser tests do on more than one screen."""

from __future__ import annotations

import threading
import time
from typing import Any

WIDTHS = (1440, 390, 320)
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
        until = time.monotonic() + 10
        while (out := page.evaluate(PAST_THE_EDGE)) and time.monotonic() < until:
            page.wait_for_timeout(100)
        found |= {width: out} if out else {}
    page.set_viewport_size(before)
    return found


def drawn_late(monkeypatch: Any, cards: Any) -> tuple[threading.Event, threading.Event]:
    """(set once `cards.drawn` has begun, to be set for it to answer), from here on."""
    draws, begun, released = cards.drawn, threading.Event(), threading.Event()

    def late(*args: Any) -> Any:
        found = draws(*args)
        begun.set()
        released.wait(60)
        return found

    monkeypatch.setattr(cards, "drawn", late)
    return begun, released
