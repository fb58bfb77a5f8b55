"""A figure on a page: its four files, made by keyboard in a real browser, hold the figure."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import gradio as gr
import plotly.graph_objects as go
import pytest
from serving import serve as serve_app

from blockviz.plots import FigureCard, label
from blockviz.ui.figure_card import build_card, card_update
from blockviz.ui.screen import Screen

HOSTILE = "<b>${window.pwned=1}</b></script><script>window.pwned=2</script>&lt;"


def card() -> FigureCard:
    figure = go.Figure(go.Heatmap(z=[[1, 2]], text=[[label(HOSTILE, 90), "plain"]]))
    figure.update_traces(texttemplate="%{text}").update_layout(height=220)
    rows = ((HOSTILE, 1), ("=1+1", 2))
    source = ("A paper", "https://example.org/paper")
    return FigureCard(
        "two-cells", f"Two {HOSTILE}", "Low = removable.", (source,), figure, ("text", "n"), rows
    )


@dataclass(frozen=True)
class Opened:
    page: Any
    asked: list[str]


@pytest.fixture(scope="module")
def opened(browser: Any) -> Iterator[Opened]:
    screen, update = Screen(), card_update("two", card())
    with gr.Blocks(analytics_enabled=False) as app:
        build_card(screen, "two")
        outputs = [screen[name] for name in update]
        app.load(lambda: list(update.values()), outputs=outputs, api_visibility="private")
    url = serve_app(app, quiet=True, ssr_mode=False, share=False)
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(60_000)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.locator("#two-plot .main-svg").first.wait_for()
    yield Opened(page, asked)
    context.close()
    app.close()


def saved(opened: Opened, word: str, folder: Path) -> Path:
    with opened.page.expect_download() as download:
        button = opened.page.get_by_role("button", name=re.compile(f"^{word} of Two"))
        button.focus()
        opened.page.keyboard.press("Enter")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_the_four_files_hold_the_figure_and_nothing_foreign_is_asked(opened, tmp_path):
    png = saved(opened, "PNG", tmp_path)
    data = png.read_bytes()
    assert (png.name, data[:8]) == ("two-cells.png", b"\x89PNG\r\n\x1a\n")
    # Twice 220 pixels high: the height stands in bytes 20 to 24.
    assert int.from_bytes(data[20:24], "big") == 440

    svg = ElementTree.parse(saved(opened, "SVG", tmp_path)).getroot()
    drawn = [node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert HOSTILE.replace("&", "&\u2060") in drawn
    assert not list(svg.iter("{http://www.w3.org/2000/svg}script"))

    rows = list(csv.reader(saved(opened, "CSV", tmp_path).open(newline="")))
    assert rows[1:] == [[HOSTILE, "1"], ["'=1+1", "2"]]

    page = opened.page.context.new_page()
    page.on("request", lambda request: opened.asked.append(request.url))
    page.goto(saved(opened, "HTML", tmp_path).as_uri())
    page.locator("#figure .main-svg").first.wait_for()
    assert page.locator("h1").inner_text() == card().title
    assert page.locator("tbody th").first.inner_text() == HOSTILE
    assert page.evaluate("window.pwned") is None
    assert opened.page.evaluate("window.pwned") is None
    local = ("http://127.0.0.1", "file:", "data:", "blob:")
    assert [url for url in opened.asked if not url.startswith(local)] == []


def test_the_table_opens_by_keyboard_and_holds_text(opened):
    page = opened.page
    page.locator("#two-foot summary").focus()
    page.keyboard.press("Enter")
    page.locator("#two-foot tbody tr").first.wait_for()
    assert page.locator("#two-foot tbody th").all_inner_texts() == [HOSTILE, "=1+1"]
    link = page.get_by_role("link", name="A paper")
    assert (link.get_attribute("href"), link.get_attribute("rel")) == (
        "https://example.org/paper", "noopener noreferrer",
    )  # fmt: skip
