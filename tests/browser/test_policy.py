"""The page's Content-Security-Policy, as a browser keeps it."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser
INJECTED = """() => {
  const box = document.createElement("div");
  document.body.append(box);
  box.innerHTML = `<img src="data:," onerror="window.pwned = 1">`;
  const script = document.createElement("script");
  script.textContent = "window.pwned = 2";
  document.body.append(script);
  const foreign = document.createElement("script");
  foreign.src = "http://127.0.0.1:9/x.js";
  document.body.append(foreign);
  return fetch("http://127.0.0.1:9/").then(() => "sent", () => "kept");
}"""


def test_markup_that_got_into_the_page_runs_nothing_and_sends_nothing(browser: Any, serve: Any):
    context = browser.new_context()
    page, forbidden = context.new_page(), []
    page.on("console", lambda message: forbidden.append(message.text))
    page.goto(serve().url)
    page.locator('[data-block="0.attn"]').wait_for()
    forbidden.clear()
    assert page.evaluate(INJECTED) == "kept"
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    rules = ("inline event handler", "inline script", "Loading the script", "Connecting to")
    assert [rule for rule in rules if not any(rule in text for text in forbidden)] == []
    context.close()
