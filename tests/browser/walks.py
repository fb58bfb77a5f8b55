"""Whatever somebody does in whatever order, the page ends as a fresh one of its address begins.

By hand, minutes a walk: pytest tests/browser/walks.py. Seed 1 still ends on another plan at times.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from pages import quiet, tab
from playwright.sync_api import expect

from blockviz.session import Visitor
from blockviz.ui.link import TABS

pytestmark = pytest.mark.browser

N_ACTIONS, N_LAYERS = 50, 30
CUT = """() => [...document.querySelectorAll('.bv-block[aria-checked="false"]:not(.layer)')]
  .map((block) => block.dataset.block)"""
PRESS_CANCEL = """() => {
  const button = document.querySelector("#cancel");
  if (button?.offsetParent) button.click();
}"""


class Walk:
    """Random actions on a page, and the plan and the history that they are to come to."""

    def __init__(self, page: Any, seed: int) -> None:
        self.page, self.draw = page, random.Random(seed)
        self.visitor = Visitor(removed=tuple(page.evaluate(CUT)))
        self.entries, self.at = [self.visitor.removed], 0

    def step(self) -> None:
        able = [self.switch] * 5 + [self.open_tab] * 3 + [self.search, self.cancel, self.write]
        able += [self.reload, self.offline]
        able += [self.undo] * 2 if self.visitor.past else []
        able += [self.redo] if self.visitor.future else []
        able += [self.back] * 2 if self.at > 0 else []
        able += [self.forward] if self.at + 1 < len(self.entries) else []
        action = self.draw.choice(able)
        print(action.__name__, end=" ")  # noqa: T201
        action()
        if self.draw.random() < 0.5:
            quiet(self.page)

    def switch(self) -> None:
        tab(self.page, "Map")
        self._switch()
        quiet(self.page)
        self._came_to(self.visitor)

    def _switch(self) -> None:
        name = f"{self.draw.randrange(N_LAYERS)}.{self.draw.choice(('attn', 'mlp'))}"
        # One by one: what is pressed before an answer comes is one step back.
        quiet(self.page)
        self.page.locator(f'[data-block="{name}"]').click()
        gone = [block for block in self.visitor.removed if block != name]
        gone += [name] if len(gone) == len(self.visitor.removed) else []
        self.visitor = self.visitor.with_removed(gone)

    def _came_to(self, visitor: Visitor) -> None:
        self.visitor = visitor
        if visitor.removed != self.entries[self.at]:
            self.entries[self.at + 1 :] = [visitor.removed]
            self.at += 1

    def undo(self) -> None:
        self._press("#undo", self.visitor.undo())

    def redo(self) -> None:
        self._press("#redo", self.visitor.redo())

    def _press(self, button: str, visitor: Visitor) -> None:
        quiet(self.page)
        self.page.locator(button).click()
        quiet(self.page)
        self._came_to(visitor)

    def back(self) -> None:
        self._walk(-1)

    def forward(self) -> None:
        self._walk(1)

    def _walk(self, by: int) -> None:
        quiet(self.page)
        (self.page.go_back if by < 0 else self.page.go_forward)()
        quiet(self.page)
        self.at += by
        self.visitor = self.visitor.went_to(self.entries[self.at])

    def reload(self) -> None:
        self.page.reload()
        self.page.locator('[data-block="0.attn"]').wait_for(state="attached")

    def offline(self) -> None:
        """Away from its server for two presses of a block, then loaded again."""
        tab(self.page, "Map")
        quiet(self.page)
        before = self.visitor
        self.page.context.set_offline(True)
        self._switch()
        self._switch()
        self.page.context.set_offline(False)
        self.reload()
        quiet(self.page)
        self._came_to(before.with_removed(self.visitor.removed))

    def open_tab(self) -> None:
        tab(self.page, self.draw.choice(TABS).capitalize())

    def search(self) -> None:
        tab(self.page, "Search")
        self.page.locator("#start-search").click()

    def write(self) -> None:
        tab(self.page, "Map")
        self.page.locator("#write").click()

    def cancel(self) -> None:
        self.page.evaluate(PRESS_CANCEL)


def shown(page: Any) -> tuple[set[str], str]:
    """The plan and the scoreboard of a page at rest; no line of it goes on for good."""
    expect(
        page.locator('#lanes [data-state="running"], #lanes [data-state="queued"]')
    ).to_have_count(0)
    quiet(page)
    return set(page.evaluate(CUT)), page.locator("#score").inner_text()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["local", "hosted"])
def test_after_many_actions_a_fresh_page_of_the_same_address_shows_the_same(
    serve, visit, mode, seed
):
    served = serve(mode=mode)
    page = visit(served)
    print(f"{mode}, seed {seed}:", end=" ")  # noqa: T201
    walk = Walk(page, seed)
    for _ in range(N_ACTIONS):
        walk.step()
    quiet(page)
    found = shown(page)
    assert found[0] == set(walk.visitor.removed)
    fresh = visit(served, page.url.removeprefix(served.url))
    assert shown(fresh) == found
    page.reload()
    assert shown(page) == found
