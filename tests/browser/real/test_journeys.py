"""What people come for, from the first click to the last, on the real demo model."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pages import PAST_THE_EDGE, filled, tab
from playwright.sync_api import expect
from serving import launch

from blockviz.session import Engine

pytestmark = [pytest.mark.browser, pytest.mark.network]
WORK_MS = 240_000
SLOW = pytest.mark.slow("session", "ui")
# Loaded as the model card says, by a process that has never seen blockviz.
ELSEWHERE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer("The sea at night", return_tensors="pt")
text = model.generate(**ids, max_new_tokens=8, do_sample=False)
print(model.config.num_hidden_layers, len(tokenizer.decode(text[0])))
"""


def size(width: int, theme: str) -> dict:
    return {"viewport": {"width": width, "height": 900}, "color_scheme": theme}


def dressed(query: str, theme: str) -> str:
    mark = "&" if "?" in query else "?"
    return f"{query}{mark}__theme=dark" if theme == "dark" else query


def written(page, **numbers: object) -> None:
    for name, value in numbers.items():
        field = page.locator(f"#{name.replace('_', '-')} input")
        filled(field, str(value), over=re.compile("."))
        page.keyboard.press("Tab")


def saved(page, folder: Path, press) -> Path:
    with page.expect_download(timeout=WORK_MS) as download:
        press()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@pytest.mark.parametrize(
    ("width", "theme"), [(1440, "light"), pytest.param(390, "dark", marks=SLOW)]
)
def test_a_teacher_takes_the_tour_switches_a_block_and_shares_the_view(real, visit, width, theme):
    page = visit(real, dressed("", theme), **size(width, theme))
    score, writes = page.locator("#score"), page.locator("#texts")
    expect(score).to_contain_text("57 of 60")
    before = writes.text_content()
    page.get_by_role("button", name="Take the tour").first.click()
    tour = page.locator("#tour")
    expect(tour).to_contain_text("stop 1 of")
    stop, onward = 1, tour.get_by_role("button", name="Next")
    while onward.is_visible():
        onward.click()
        stop += 1
        expect(tour).to_contain_text(f"stop {stop} of")
    expect(tour).to_contain_text(re.compile(r"stop (\d) of \1"))
    page.keyboard.press("Escape")
    expect(tour.get_by_role("button")).to_have_count(0)
    tab(page, "Map")
    page.locator('[data-block="12.mlp"]').click()
    expect(score).to_contain_text("56 of 60")
    expect(page.locator("#score .bv-state")).to_have_text("measured", timeout=WORK_MS)
    expect(page.locator("#work")).to_contain_text("Writing: done", timeout=WORK_MS)
    assert writes.text_content() != before
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#link")).to_contain_text("opied")
    page.locator("#reset").click()
    expect(score).to_contain_text("60 of 60")
    plan = ",".join((*real.engine.example_removed, "12.mlp"))
    shared = visit(real, dressed(f"?remove={plan}", theme), **size(width, theme))
    expect(shared.locator("#score")).to_contain_text("56 of 60")
    assert page.evaluate(PAST_THE_EDGE) == []


@pytest.mark.parametrize(
    ("width", "theme"), [pytest.param(1440, "dark", marks=SLOW), (390, "light")]
)
def test_a_researcher_scores_reads_and_repeats(real, visit, width, theme, tmp_path):
    page = visit(real, dressed("", theme), **size(width, theme))
    tables = []
    for n in range(2):
        if not page.locator("#start-score").is_visible():
            page.locator("#drawer > button").click()
        page.locator("#source input").first.click()
        page.get_by_role("option", name="Our own short essays").click()
        # Another text every time round the sizes, so that nothing of an earlier test is met again.
        written(page, n_samples=3, seq_len=32 + width % 7, seed=7)
        page.locator("#start-score").click()
        expect(page.locator("#job")).to_contain_text("Score done", timeout=WORK_MS)
        expect(page.locator("#header")).to_contain_text("own")
        tab(page, "Map")
        if not page.locator("#csv").get_by_role("button").is_visible():
            page.locator("#numbers > button").click()
        folder = tmp_path / str(n)
        folder.mkdir()
        found = saved(page, folder, page.locator("#csv").get_by_role("button").click)
        tables.append(list(csv.reader(found.open(newline=""))))
    assert tables[0] == tables[1] and len(tables[0]) == 61
    tab(page, "Insights")
    page.get_by_text("Agreement", exact=True).first.click()
    heads = page.locator("#page-agreement .bv-figure h2:visible")
    expect(heads.first).not_to_be_empty()
    html = saved(page, tmp_path, page.get_by_role("button", name="HTML").first.click)
    assert "plotly" in html.read_text("utf-8").lower()
    report = saved(page, tmp_path, page.get_by_role("button", name="Save a report").click)
    assert "seed 7" in report.read_text("utf-8")
    tab(page, "Curves")
    expect(page.locator(".bv-figure h2:visible").first).not_to_be_empty()
    assert page.evaluate(PAST_THE_EDGE) == []


@pytest.mark.parametrize(
    ("width", "theme"), [(1440, "dark"), pytest.param(390, "light", marks=SLOW)]
)
def test_an_engineer_gets_a_smaller_model_that_loads_elsewhere(real, visit, width, theme, tmp_path):
    page = visit(real, dressed("?remove=", theme), **size(width, theme))
    tab(page, "Search")
    page.locator("#search-advanced > button").click()
    written(page, search_amount=2, search_samples=4, search_seq_len=32 + width % 7)
    page.locator("#start-search").click()
    expect(page.locator("#job")).to_contain_text("Search done", timeout=WORK_MS)
    expect(page.locator("#candidates tbody tr")).to_have_count(2)
    page.locator("#candidates").get_by_role("button", name="Apply").first.click()
    expect(page.locator("#score")).to_contain_text("58 of 60")

    tab(page, "Compare")
    page.locator("#compare-advanced > button").click()
    written(page, compare_new=8, compare_samples=4, compare_seq_len=64, compare_held=0,
            against_samples=3, against_seq_len=64)  # fmt: skip
    page.locator("#start-compare").click()
    expect(page.locator("#job")).to_contain_text("Compare done", timeout=WORK_MS)
    expect(page.locator("#compare-table thead th")).to_have_count(4)
    expect(page.locator("#compare-table .texts .bv-model-text")).to_have_count(4)
    expect(page.locator("#hurt-words .bv-losses span").first).to_be_visible()

    assert page.evaluate(PAST_THE_EDGE) == []
    tab(page, "Export")
    page.locator("#export-advanced > button").click()
    written(page, export_samples=4, export_seq_len=64, shown_samples=3, shown_seq_len=64)
    page.locator("#start-export").click()
    expect(page.locator("#export-checks")).to_contain_text(
        "10 of 10 checks passed", timeout=WORK_MS
    )
    expect(page.locator("#model-card textarea")).to_have_value(
        re.compile("without 2 of its blocks")
    )
    archive = saved(page, tmp_path, page.locator("#export-file").click)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    (config,) = tmp_path.rglob("config.json")
    recipe = json.loads((config.parent / "blockviz_recipe.json").read_text("utf-8"))
    assert len(recipe["plan"]["removed"]) == 2
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    told = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(config.parent)],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=env,
    )  # fmt: skip
    n_layers, n_chars = map(int, told.stdout.split()[-2:])
    assert n_layers in (29, 30) and n_chars > len("The sea at night")
    assert page.evaluate(PAST_THE_EDGE) == []


@pytest.fixture
def hosted():
    engine = Engine(mode="hosted")
    app, served = launch(engine)
    yield served
    app.close()
    engine.close()


@pytest.mark.parametrize(
    ("width", "theme"), [pytest.param(1440, "light", marks=SLOW), (390, "dark")]
)
def test_a_host_sees_the_limits_and_a_visitor_is_told_them(hosted, visit, width, theme):
    page = visit(hosted, dressed("", theme), **size(width, theme))
    expect(page.locator("#header")).to_contain_text("hosted")
    page.locator("#drawer > button").click()
    expect(page.locator("#model input")).to_be_disabled()
    expect(page.locator("#load")).to_be_disabled()
    written(page, n_samples=65, seq_len=512)
    page.locator("#start-score").click()
    expect(page.locator("#error")).to_contain_text("between 1 and 64")
    assert not any(option in page.content() for option in ("C4 (Hub)", "Uploaded file"))
    assert page.evaluate(PAST_THE_EDGE) == []
