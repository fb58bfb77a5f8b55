"""What browser tests do on more than one screen."""

from __future__ import annotations

from typing import Any


def tab(page: Any, name: str) -> None:
    """Opens a tab; on a narrow screen it may be in the menu of those that have no room."""
    page.get_by_role("tab").first.wait_for()
    found = page.get_by_role("tab", name=name, exact=True)
    if found.is_visible():
        found.click()
        return
    page.locator("#tabs .overflow-menu > button").click()
    page.locator("#tabs .overflow-dropdown").get_by_text(name, exact=True).click()
