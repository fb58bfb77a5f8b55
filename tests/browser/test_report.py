"""The report, saved by its button in a real Chromium and opened from disk without a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fake_engine import FakeEngine
from pages import PAST_THE_EDGE, tab
from playwright.sync_api import expect
from test_compare_tab import to_compare

from blockviz.errors import BadInput
from blockviz.ui import report_handlers

pytestmark = pytest.mark.browser
SLOW = pytest.mark.slow("ui", "plots")

PLAN = "?remove=7.attn,18.attn,18.mlp"
SECTIONS = ["plan", "model", "texts", "scores", "curves", "right", "agreement", "steady", "pairs",
            "search", "recipe"]  # fmt: skip
N_FIGURES = 13
IDS = "sections => sections.map(s => s.id)"
# What is wider than the screen and lies in no box that scrolls.
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((e) => !e.closest(".scroll, svg g"))
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => e.outerHTML.slice(0, 90))"""
TOPS = "cells => cells.map(cell => cell.getBoundingClientRect().top)"
# Width and height of every figure and of what is drawn in it.
DRAWN = """() => [...document.querySelectorAll(".figure")].map((box) => {
  const svg = box.querySelector(".main-svg").getBoundingClientRect();
  return [svg.width - box.getBoundingClientRect().width, svg.height > 80];
})"""


def saved(page: Any, folder: Path) -> Path:
    """The report of what the page shows; by keyboard."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save a report").focus()
        page.keyboard.press("Enter")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    expect(page.get_by_role("status").filter(has_text=f"Saved {path.name}")).to_have_count(1)
    return path


@pytest.fixture(scope="module")
def report_file(
    browser: Any, share: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the button saves of a page that shows the example without three blocks."""
    served = share(FakeEngine(step=0.01, is_ready=True))
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{served.url}{PLAN}")
    expect(page.locator("#score")).to_contain_text("36.")
    expect(page.locator("#work")).to_contain_text("Writing: done")
    expect(page.locator(".bv-texts")).to_contain_text("first difference marked")
    path = saved(page, tmp_path_factory.mktemp("report"))
    page.close()
    return path


@pytest.fixture
def offline(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file in a browser that reaches nothing but files; fails on errors and requests."""
    contexts, problems = [], []

    def open_file(path: Path, *, width: int = 1440, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("console", lambda said: said.type == "error" and problems.append(said.text))
        page.on("request", lambda request: _check(request.url, problems))
        page.goto(path.as_uri())
        page.locator("body[data-drawn]").wait_for()
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert problems == []


def _check(url: str, problems: list[str]) -> None:
    if not url.startswith(("file:", "data:", "blob:")):
        problems.append(f"asked for {url}")


def test_the_button_saves_one_file_that_opens_offline(report_file, offline):
    assert report_file.name == "blockviz-report-smollm2-135m-instruct-3of60.html"
    report = offline(report_file)
    assert report.title() == "blockviz report: SmolLM2-135M-Instruct without 3 of 60 blocks"
    assert report.locator("section").evaluate_all(IDS) == SECTIONS
    assert report.locator("body").get_attribute("data-drawn") == str(N_FIGURES)
    assert report.evaluate(DRAWN) == [[0, True]] * N_FIGURES
    expect(report.locator("#plan")).to_contain_text("57 of 60")
    expect(report.locator("#texts mark").first).to_be_visible()
    report.get_by_role("link", name="Recipe", exact=True).click()
    assert report.url.endswith("#recipe")
    expect(report.locator("#recipe pre")).to_be_in_viewport()
    with report.expect_download() as download:
        report.get_by_role("link", name="Save blockviz_recipe.json").click()
    assert download.value.path().read_text("utf-8") == report.locator("#recipe pre").inner_text()
    numbers = report.locator("#scores details").first
    numbers.locator("summary").focus()
    report.keyboard.press("Enter")
    expect(numbers.locator("tbody tr")).to_have_count(60)
    report.set_viewport_size({"width": 800, "height": 900})
    curve = report.locator("#curves .main-svg").first
    expect(curve).to_have_attribute("width", re.compile(r"^[67]\d\d(\.|$)"))


@pytest.mark.parametrize(
    ("width", "scheme"), [pytest.param(1440, "light", marks=SLOW), (390, "dark")]
)
def test_with_every_result_and_hostile_text_it_stays_a_page(
    serve, visit, offline, tmp_path, width, scheme
):
    page = visit(serve(is_hostile=True), PLAN)
    for turn, start in ((tab, "Repair"), (None, "Compare"), (tab, "Export")):
        turn(page, start) if turn else to_compare(page)
        page.locator(f"#start-{start.lower()}").click()
        expect(page.locator("#job")).to_contain_text(f"{start} done")
    report = offline(saved(page, tmp_path), width=width, scheme=scheme)
    shown = report.locator("section").evaluate_all(IDS)
    assert shown[-4:] == ["repair", "comparison", "export", "recipe"]
    assert report.evaluate("window.pwned") is None
    assert report.evaluate("document.documentElement.scrollWidth") == width
    assert report.evaluate(TOO_WIDE) == []
    expect(report.locator("#comparison .texts td").first).to_contain_text("${window.pwned=1}")
    # The texts stand side by side under their columns.
    tops = report.locator("#comparison .texts td").evaluate_all(TOPS)
    assert len(tops) == 4 and len(set(tops)) == 1
    expect(report.locator("#export li")).to_have_count(10)
    found = Axe().run(report).response["violations"]
    assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found] == []


def test_what_somebody_writes_into_the_file_does_not_run(report_file, browser, tmp_path):
    """Foreign text is escaped; if it were not, the policy of the file would still hold."""
    bad = "<img src=x onerror='window.pwned=1'><script>window.pwned=2</script>"
    text = report_file.read_text("utf-8")
    assert text.count('<main id="main">') == 1
    path = tmp_path / "changed.html"
    path.write_text(text.replace('<main id="main">', f'<main id="main">{bad}'), "utf-8")
    report = browser.new_page()
    report.goto(path.as_uri())
    report.locator("body[data-drawn]").wait_for(timeout=60_000)
    assert report.evaluate("window.pwned") is None
    report.close()


def test_printed_it_is_light_and_fits_the_paper(report_file, offline):
    report = offline(report_file, width=690, scheme="dark")
    assert report.pdf(format="A4")[:5] == b"%PDF-"
    report.emulate_media(media="print")
    report.evaluate("dispatchEvent(new Event('beforeprint'))")
    curve = report.locator("#curves .main-svg").first
    expect(curve).to_have_attribute("width", "640")
    assert (
        report.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    assert report.evaluate("document.documentElement.scrollWidth") <= 690
    report.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(curve).not_to_have_attribute("width", "640")


def test_the_button_has_its_place_on_every_width(serve, visit):
    page = visit(serve(is_hostile=True), PLAN)
    for width in (1440, 390, 320):
        page.set_viewport_size({"width": width, "height": 900})
        button = page.get_by_role("button", name="Save a report").bounding_box()
        right, below = button["x"] + button["width"], button["y"] + button["height"]
        assert right <= width
        for other in ("h1", ".bv-mode", ".bv-chip"):
            for one in page.locator(f"#header {other}").all():
                box = one.bounding_box()
                assert box["x"] + box["width"] <= button["x"] or box["y"] >= below, other
        assert page.evaluate(PAST_THE_EDGE) == []


def test_a_refusal_is_told_and_the_button_can_be_pressed_again(serve, visit, tmp_path, monkeypatch):
    def refuse(*_: Any) -> None:
        raise BadInput("A report was to be saved.", "It cannot be.", "Try again.")

    page = visit(serve(), PLAN)
    with monkeypatch.context() as patch:
        patch.setattr(report_handlers, "report_of", refuse)
        page.get_by_role("button", name="Save a report").click()
        expect(page.locator("#error")).to_contain_text("It cannot be.")
    expect(page.get_by_role("button", name="Save a report")).to_have_count(1)
    assert saved(page, tmp_path).stat().st_size > 4_000_000
