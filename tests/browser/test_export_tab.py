"""The Export tab in a real Chromium, on the fake engine: checks arrive, the file comes down."""

from __future__ import annotations

import pytest
from pages import PAST_THE_EDGE, Gate, Hold, filled, tab
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
SLOW = pytest.mark.slow("ui")

PLAN = "?remove=7.attn,18.attn,18.mlp"


def opened(visit, served, query="", **options):
    page = visit(served, query, **options)
    tab(page, "Export")
    return page


@pytest.mark.parametrize("width", [1440, pytest.param(390, marks=SLOW)])
def test_checks_arrive_one_by_one_and_then_the_file(serve, visit, width):
    # Its files lie where the page was told when it was built.
    served = serve(is_apart=True)
    gate = Gate(served.engine, 0)
    page = opened(visit, served, PLAN, viewport={"width": width, "height": 900})
    expect(page.locator("#start-export")).to_have_text("Write and check without 3 blocks")
    expect(page.locator("#export-mode")).to_contain_text("With a modelling file (−3.3")
    expect(page.locator("#export-checks")).to_be_hidden()
    expect(page.locator("#export-file")).to_be_hidden()
    page.locator("#start-export").click()
    expect(page.locator("#export-note")).to_contain_text("Writing: the file is offered once")
    expect(page.locator("#export-checks li").first).to_contain_text("passed")
    expect(page.locator("#export-file")).to_be_disabled()
    gate.open()
    expect(page.locator("#export-checks")).to_contain_text("10 of 10 checks passed")
    expect(page.locator("#export-file")).to_have_text("Download ZIP, 100 B")
    with page.expect_download() as download:
        page.locator("#export-file").click()
    assert download.value.suggested_filename == "blockviz-demo-3of60.zip"
    # What it is called says nothing of where the server keeps it.
    assert "/gradio_api/file=exports/" in download.value.url
    assert download.value.path().read_bytes() == b"PK" + bytes(98)
    # A field in which nothing can be written does not look like the others.
    expect(page.locator("#model-card textarea")).to_have_css("border-top-style", "dashed")
    assert page.evaluate(PAST_THE_EDGE) == []


def test_another_plan_makes_the_file_stale_and_it_stays(serve, visit):
    page = opened(visit, serve(), PLAN)
    page.locator("#start-export").click()
    expect(page.locator("#export-file")).to_be_enabled()
    tab(page, "Map")
    page.locator('[data-block="12.mlp"]').click()
    tab(page, "Export")
    expect(page.locator("#export-note")).to_contain_text("another set is off on the Map now")
    expect(page.locator("#export-file")).to_be_enabled()
    expect(page.locator("#start-export")).to_have_text("Write and check without 4 blocks")


def test_without_cuts_nothing_can_be_written(serve, visit):
    page = opened(visit, serve(), "?remove=")
    expect(page.locator("#start-export")).to_be_disabled()


def test_hostile_words_stay_text(serve, visit):
    page = opened(visit, serve(is_hostile=True), PLAN)
    page.locator("#start-export").click()
    expect(page.locator("#export-checks")).to_contain_text("10 of 10 checks passed")
    assert page.evaluate("window.pwned") is None


def test_what_is_begun_before_the_page_has_opened_is_followed(serve, visit, monkeypatch):
    served = serve(is_ready=False, load_seconds=0.1)
    opening = Hold(monkeypatch, served.engine, "start_demo")
    gate = Gate(served.engine, -1, only="export")
    page = opened(visit, served, "?remove=18.attn")
    opening.wait(page)
    expect(page.locator("#score")).to_contain_text("58 of 60")
    page.locator("#start-export").click()
    expect(page.locator("#job")).to_contain_text("Exporting")
    opening.let_go()
    expect(page.locator("#score")).to_contain_text("59 of 60")
    gate.step = 0
    expect(page.locator("#export-checks")).to_contain_text("1 of 1 checks passed")
    gate.open()
    expect(page.locator("#export-checks")).to_contain_text("10 of 10 checks passed")


@pytest.mark.parametrize("width", [pytest.param(1440, marks=SLOW), 390])
def test_a_recipe_is_saved_opened_and_followed(serve, visit, width, tmp_path):
    page = opened(visit, serve(), PLAN, viewport={"width": width, "height": 900})
    expect(page.locator("#start-export")).to_have_text("Write and check without 3 blocks")
    page.get_by_text("Model, text and metrics").click()
    filled(page.locator("#seed input"), "7", over="42")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the recipe").click()
    path = tmp_path / "blockviz_recipe.json"
    download.value.save_as(path)
    page.locator("#reset").click()
    expect(page.locator("#start-export")).to_have_text("Nothing is removed yet")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open a recipe").click()
    chooser.value.set_files(path)
    expect(page.locator("#recipe-says")).to_contain_text("without 3 blocks")
    expect(page.locator("#recipe-says")).to_contain_text("scored on 32 × 128 tokens")
    # Nothing has changed before it is confirmed.
    expect(page.locator("#seed input")).to_have_value("7")
    expect(page.locator("#start-export")).to_have_text("Nothing is removed yet")
    page.locator("#recipe-use").click()
    expect(page.locator("#start-export")).to_have_text("Write and check without 3 blocks")
    expect(page.locator("#recipe-use")).to_be_hidden()
    expect(page.locator("#seed input")).to_have_value("42")
    assert page.evaluate(PAST_THE_EDGE) == []
