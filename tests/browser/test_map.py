"""The page in a real Chromium, on the fake engine: mouse, keyboard, reload, two visitors."""

from __future__ import annotations

import csv
import re
import threading

import pytest
from fake_engine import BASELINE, HOSTILE
from pages import WIDTHS, Gate, Hold, filled, past_the_edge, quiet
from playwright.sync_api import expect

from blockviz.types import BlockId, Progress, PruningPlan
from blockviz.ui.words import short

pytestmark = pytest.mark.browser
SLOW = pytest.mark.slow("ui")
REMOVED = re.compile("removed$")
KEPT = re.compile("kept$")


def block(page, name):
    return page.locator(f'[data-block="{name}"]')


def perplexity_of(served, *names):
    plan = PruningPlan(removed=tuple(BlockId.parse(n) for n in names))
    return short(served.engine._live(plan, "measured").perplexity)


def expect_board(page, *, kept, perplexity, state):
    expect(page.locator("#score")).to_contain_text(kept)
    expect(page.locator("#score .bv-wide")).to_contain_text(perplexity)
    expect(page.locator("#score .bv-state")).to_have_text(state)


def opened(page, kept):
    """Waits until the page shows the view of its link."""
    expect(page.locator("#score")).to_contain_text(f"{kept} of ")


def test_the_page_opens_on_the_finished_example(serve, visit):
    served = serve(is_ready=False, load_seconds=600.0, step=0.2)
    page = visit(served)
    expect_board(page, kept="58 of 60", state="bundled",
                 perplexity=perplexity_of(served, "18.attn", "7.attn"))  # fmt: skip
    expect(block(page, "18.attn")).to_have_attribute("aria-checked", "false")
    expect(page.locator("#texts mark").first).to_have_text("largest")
    expect(page.locator("#heat .js-plotly-plot")).to_be_visible()
    expect(page.locator("#job")).to_contain_text("Loading")
    # A bundled single cut is answered while the weights still load; another plan says it waits.
    page.locator("#reset").click()
    expect(page.locator("#score")).to_contain_text("60 of 60")
    block(page, "3.attn").click()
    expect_board(page, kept="59 of 60", state="bundled",
                 perplexity=perplexity_of(served, "3.attn"))  # fmt: skip
    block(page, "4.mlp").click()
    expect(page.locator("#score .bv-state")).to_have_text("measuring when the model is ready")
    assert served.engine.calls == []


def test_what_waited_for_the_model_is_measured_when_it_is_ready(serve, visit):
    served = serve(is_ready=False, load_seconds=0.1)
    gate = Gate(served.engine, 0)
    page = visit(served)
    block(page, "4.mlp").click()
    expect(page.locator("#score .bv-state")).to_have_text("measuring when the model is ready")
    gate.open()
    expect_board(page, kept="57 of 60", state="measured",
                 perplexity=perplexity_of(served, "18.attn", "7.attn", "4.mlp"))  # fmt: skip


def test_a_click_switches_a_block_and_shows_the_new_perplexity_and_text(serve, visit):
    served = serve()
    page = visit(served)
    name = block(page, "12.mlp").get_attribute("aria-label")
    assert re.fullmatch(r"Block 12\.mlp, perplexity if cut [\d.]+, rank \d+ of 60, kept", name)
    block(page, "12.mlp").click()
    assert block(page, "12.mlp").get_attribute("aria-checked") == "false"
    value = perplexity_of(served, "18.attn", "7.attn", "12.mlp")
    expect_board(page, kept="57 of 60", perplexity=value, state="measured")
    expect(block(page, "12.mlp")).to_have_attribute("aria-label", REMOVED)
    expect(page.locator("#score")).to_contain_text("2 attention, 1 MLP cut")
    expect(page.locator("#live [role=status]")).to_have_text(f"3 of 60 removed, perplexity {value}")
    expect(page.locator("#block")).to_contain_text("12.mlp")
    expect(page.locator("#twin")).to_contain_text("12.mlp")
    expect(page.locator("#texts .pruned")).to_contain_text("without 18.attn, 7.attn, 12.mlp")
    expect(page.locator("#work")).to_contain_text("Writing: done")


def test_the_keyboard_alone_does_everything_and_keeps_its_focus(serve, visit):
    served = serve()
    page = visit(served, "?remove=")
    opened(page, 60)
    assert page.locator('#grid button[tabindex="0"]').count() == 1
    block(page, "0.attn").focus()
    for key in ("End", "ArrowLeft", "ArrowDown", "Home", "ArrowRight", "ArrowRight", "Space"):
        page.keyboard.press(key)
    expect_board(page, kept="59 of 60", state="bundled",
                 perplexity=perplexity_of(served, "2.mlp"))  # fmt: skip
    expect(block(page, "2.mlp")).to_be_focused()
    expect(page.locator("#block")).to_contain_text("2.mlp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect_board(page, kept="58 of 60", state="measured",
                 perplexity=perplexity_of(served, "2.mlp", "2.attn"))  # fmt: skip
    expect(block(page, "2.attn")).to_be_focused()
    expect(page.locator("#block")).to_contain_text("2.attn")
    page.keyboard.press("u")
    expect(block(page, "2.attn")).to_have_attribute("aria-checked", "true")
    page.keyboard.press("r")
    expect_board(page, kept="60 of 60", perplexity=short(BASELINE), state="bundled")
    expect(block(page, "2.attn")).to_be_focused()
    hint = page.locator("#bv-grid-keys")
    expect(hint).to_be_hidden()
    page.keyboard.press("?")
    expect(hint).to_be_visible()
    page.locator("#undo").click()
    expect(page.locator("#score")).to_contain_text("59 of 60")
    # In the prompt they are letters: with these, nothing is undone or reset, nor the hint put away.
    prompt = page.locator("#prompt textarea")
    filled(prompt, "", over="The capital of France is")
    prompt.press_sequentially("u r ?")
    expect(prompt).to_have_value("u r ?")
    quiet(page)
    expect(page.locator("#score")).to_contain_text("59 of 60")
    expect(hint).to_be_visible()
    page.locator("#redo").click()
    expect(page.locator("#score")).to_contain_text("60 of 60")


def test_what_is_pressed_while_an_answer_is_late_is_taken_as_it_was_pressed(
    serve, visit, monkeypatch
):
    """Gradio runs an event that waited again with what the first one carried."""
    served = serve()
    page = visit(served, "?remove=")
    opened(page, 60)
    # Sizes are told of the plan that is answered with, and of no other.
    first = Hold(monkeypatch, served.engine, "sizes", lambda plan: bool(plan.removed))
    block(page, "2.mlp").click()
    first.wait(page)
    block(page, "5.attn").click()
    expect(page.locator("#score")).to_contain_text("58 of 60")
    first.let_go()
    quiet(page)
    expect(page.locator("#score")).to_contain_text("58 of 60")
    expect(page.locator("#block")).to_contain_text("5.attn")
    expect(page.locator("#twin")).to_contain_text("5.attn")
    for name in ("2.mlp", "5.attn"):
        expect(block(page, name)).to_have_attribute("aria-checked", "false")


def test_a_block_pressed_before_resets_answer_is_cut_out_of_the_whole_model(
    serve, visit, monkeypatch
):
    served = serve()
    page = visit(served, "?remove=7.attn,18.attn")
    opened(page, 58)
    reset = Hold(monkeypatch, served.engine, "sizes", lambda plan: not plan.removed)
    page.locator("#reset").click()
    reset.wait(page)
    expect(block(page, "18.attn")).to_have_attribute("aria-checked", "true")
    block(page, "2.mlp").click()
    expect(page.locator("#score")).to_contain_text("59 of 60")
    expect(block(page, "2.mlp")).to_have_attribute("aria-checked", "false")
    expect(block(page, "18.attn")).to_have_attribute("aria-checked", "true")
    reset.let_go()
    quiet(page)
    expect(page.locator("#score")).to_contain_text("59 of 60")
    expect(block(page, "2.mlp")).to_have_attribute("aria-checked", "false")


def test_many_quick_toggles_lose_none_and_end_on_the_last(serve, visit):
    served = serve(step=0.05)
    page = visit(served, "?remove=")
    opened(page, 60)
    names = [f"{i}.attn" for i in range(3, 11)]
    for name in names:
        block(page, name).click()
    expect_board(page, kept="52 of 60", state="measured",
                 perplexity=perplexity_of(served, *names))  # fmt: skip
    for name in names:
        expect(block(page, name)).to_have_attribute("aria-checked", "false")
    assert served.engine.calls.count("measure 8") <= 1
    page.locator("#reset").click()
    expect_board(page, kept="60 of 60", perplexity=short(BASELINE), state="bundled")


def test_the_list_of_removed_blocks_and_a_layer_button_are_twins_of_the_grid(serve, visit):
    page = visit(serve(), "?remove=5.attn")
    opened(page, 59)
    box = page.get_by_label("Removed blocks")
    box.fill("9.mlp")
    # Which of them Enter takes is settled after they are drawn.
    expect(page.locator("[role=option].active")).to_have_text(re.compile(r"(^|\s)9\.mlp\s*$"))
    box.press("Enter")
    box.press("Escape")
    expect(block(page, "9.mlp")).to_have_attribute("aria-checked", "false")
    expect(page.locator("#score")).to_contain_text("58 of 60")
    # Not by its number among the choices.
    expect(page.locator("#twin .token > .token-remove").last).to_have_attribute(
        "title", "Remove 9.mlp"
    )
    block(page, "9.mlp").click()
    expect(page.locator("#twin")).not_to_contain_text("9.mlp")
    layer = block(page, "5.layer")
    expect(layer).to_have_attribute("aria-label", "Layer 5, both blocks, half removed")
    layer.click()
    expect(block(page, "5.mlp")).to_have_attribute("aria-checked", "false")
    expect(page.locator("#score")).to_contain_text("58 of 60")
    layer.click()
    expect(page.locator("#score")).to_contain_text("60 of 60")


def test_removing_every_block_is_refused_and_nothing_is_lost(serve, visit):
    names = ",".join([*(f"{i}.layer" for i in range(3)), "3.attn"])
    page = visit(serve(n_layers=4), f"?remove={names}")
    opened(page, 1)
    block(page, "3.mlp").click()
    expect(page.locator("#error")).to_contain_text("Keep at least one block.")
    expect(block(page, "3.mlp")).to_have_attribute("aria-checked", "true")
    expect(page.locator("#score")).to_contain_text("1 of 8")
    page.locator("#error button").click()
    expect(page.locator("#error .bv-error")).to_be_hidden()
    block(page, "3.mlp").click()
    expect(page.locator("#error")).to_contain_text("Keep at least one block.")


def test_a_link_restores_a_view_and_starts_nothing(serve, visit):
    served = serve(is_ready=False, load_seconds=600.0, step=0.2)
    page = visit(served, "?remove=3.layer,7.mlp&metric=lds")
    expect(page.locator("#score")).to_contain_text("57 of 60")
    expect(page.locator("#legend")).to_contain_text("Logit disruption")
    expect(page.get_by_label("Colour by")).to_have_value("Logit disruption")
    assert served.engine.calls == []
    assert [job.kind for job in served.engine._jobs.values()] == ["load"]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Link copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{served.url}?remove=3.layer,7.mlp&metric=lds"


def test_a_reload_finds_the_running_job_again_and_then_its_result(serve, visit):
    served = serve()
    gate = Gate(served.engine, 20)
    page = visit(served)
    page.get_by_role("button", name="Model, text and metrics").click()
    filled(page.get_by_label("Seed"), "7", over="42")
    page.locator("#start-score").click()
    expect(page.locator("#job")).to_contain_text("Scoreing")
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.reload()
    expect(page.locator("#job")).to_contain_text(re.compile(r"Scoreing, \d+ of 60"))
    gate.open()
    expect(page.locator("#job")).to_contain_text("Score done")
    best = min(served.engine.table("scores1").metrics["ppl"].values.items(), key=lambda kv: kv[1])
    expect(page.locator("#ranking li button").first).to_have_text(str(best[0]))
    page.reload()
    expect(page.locator("#ranking li button").first).to_have_text(str(best[0]))


def test_a_refusal_is_seen_beside_the_settings_until_a_job_runs_that_cancel_stops(serve, visit):
    served = serve()
    Gate(served.engine, 20)
    page = visit(served, viewport={"width": 1440, "height": 900})
    expect(page.locator("#cancel")).to_be_hidden()
    page.get_by_text("Model, text and metrics").click()
    filled(page.locator("#n-samples input"), "8.5", over="32")
    button = page.locator("#start-score")
    button.click()
    expect(page.locator("#error")).to_contain_text("was set to '8.5'")
    expect(page.locator("#error .bv-error")).to_be_in_viewport()
    expect(button).to_be_in_viewport()
    page.locator("#n-samples input").fill("8")
    button.click()
    expect(page.locator("#job")).to_contain_text("about")
    expect(page.locator("#job")).to_be_in_viewport()
    expect(page.locator("#error .bv-error")).to_be_hidden()
    page.locator("#cancel").click()
    expect(page.locator("#job")).to_contain_text("cancelled")
    expect(page.locator("#cancel")).to_be_hidden()


def test_cancel_stops_a_measurement_and_offers_it_again(serve, visit, monkeypatch):
    served = serve()
    measure, may_end = served.engine.measure, threading.Event()

    def long(plan):
        while not may_end.wait(0.2):
            yield Progress("Measuring perplexity", 0, 8)
        yield from measure(plan)

    monkeypatch.setattr(served.engine, "measure", long)
    page = visit(served)
    block(page, "12.mlp").click()
    expect(page.locator("#work")).to_contain_text("Measuring perplexity")
    page.locator("#cancel").click()
    expect(page.locator("#score .bv-state")).to_have_text("stale")
    may_end.set()
    page.get_by_role("button", name="Measure now").click()
    expect(page.locator("#score .bv-state")).to_have_text("measured")


def test_a_model_is_checked_before_it_can_be_loaded(serve, visit):
    served = serve()
    page = visit(served)
    page.get_by_role("button", name="Model, text and metrics").click()
    filled(page.get_by_label("Model id"), "nobody/nothing", over="demo")
    page.locator("#check").click()
    expect(page.locator("#error")).to_contain_text("Check the spelling")
    expect(page.locator("#load")).to_be_disabled()
    page.get_by_label("Model id").fill("owner/small")
    page.locator("#check").click()
    expect(page.locator("#verdict")).to_contain_text("apache-2.0")
    page.locator("#load").click()
    expect(page.locator("#header")).to_contain_text("owner/small")
    expect(page.locator("#score")).to_contain_text("24 of 24")
    assert page.locator("#grid .bv-block").count() == 36
    block(page, "11.mlp").click()
    expect(page.locator("#score")).to_contain_text("23 of 24")


def test_two_visitors_do_not_mix(serve, visit):
    served = serve()
    one, two = visit(served, "?remove="), visit(served, "?remove=")
    opened(one, 60)
    opened(two, 60)
    block(one, "3.attn").click()
    block(two, "9.mlp").click()
    block(two, "10.mlp").click()
    expect(one.locator("#score")).to_contain_text("59 of 60")
    expect(two.locator("#score")).to_contain_text("58 of 60")
    expect(block(one, "9.mlp")).to_have_attribute("aria-label", KEPT)
    expect(block(two, "3.attn")).to_have_attribute("aria-label", KEPT)


def test_the_heat_map_picks_a_block_and_its_numbers_come_as_a_file(serve, visit, tmp_path):
    page = visit(serve())
    # First column of the last row: 0.attn.
    plot = page.locator("#heat .nsewdrag")
    plot.click(position={"x": 3, "y": plot.bounding_box()["height"] - 8})
    expect(page.locator("#block h2")).to_have_text("0.attn")
    page.locator("#ranking li button").first.click()
    expect(page.locator("#block h2")).not_to_have_text("0.attn")
    page.get_by_role("button", name="The same numbers as a table").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 61
    assert rows[0][:2] == ["block", "parameters"]
    assert rows[1][0] == "0.attn"


def test_text_that_bites_is_only_text(serve, visit):
    page = visit(serve(is_hostile=True))
    expect(page.locator("#texts .pruned")).to_contain_text("onerror=")
    expect(page.locator("#header")).to_contain_text("${window.pwned=1}")
    filled(page.locator("#prompt textarea"), HOSTILE, over="The capital of France is")
    page.locator("#write").click()
    expect(page.locator("#work")).to_contain_text("Writing: done")
    expect(page.locator("#texts .pruned")).to_contain_text("</script>")
    block(page, "12.mlp").click()
    expect(page.locator("#score .bv-state")).to_have_text("measured")
    page.get_by_role("button", name="Model, text and metrics").click()
    model = page.get_by_label("Model id")
    filled(model, f"nobody/{HOSTILE}"[:150], over="demo")
    expect(model).to_have_value(re.compile("^nobody/"))
    page.locator("#check").click()
    expect(page.locator("#error")).to_contain_text("nobody/")
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x]").count() == 0


def test_hosted_mode_has_the_demo_only(serve, visit):
    page = visit(serve(mode="hosted"))
    expect(page.locator("#header")).to_contain_text("hosted")
    page.get_by_role("button", name="Model, text and metrics").click()
    expect(page.get_by_label("Model id")).to_be_disabled()
    expect(page.locator("#upload")).to_have_count(0)
    page.locator("#source input").click()
    expect(page.get_by_role("option")).to_have_count(2)


@pytest.mark.parametrize(
    ("theme", "paper"),
    [pytest.param("light", "rgb(251, 250, 247)", marks=SLOW), ("dark", "rgb(20, 23, 26)")],
)
def test_the_page_fits_its_window_in_both_themes(serve, visit, theme, paper):
    page = visit(serve(n_layers=80), f"?__theme={theme}")
    page.get_by_role("button", name="Model, text and metrics").click()
    expect(page.locator("#check")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    assert past_the_edge(page) == {}
    board = page.locator("#board")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_function(f"document.documentElement.scrollWidth === {width}")
        grid = page.locator("#grid .bv-scroll")
        assert grid.evaluate("e => e.scrollWidth > e.clientWidth")
        # The scoreboard stays, and leaves most of a phone to the page.
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        expect(board).to_be_in_viewport(ratio=1)
        assert board.bounding_box()["height"] < 844 / 4


def test_closing_the_page_is_told_to_the_engine(serve, visit):
    served = serve(is_apart=True)
    page = visit(served)
    page.close()
    other = visit(served)
    for _ in range(600):
        if served.engine.forgotten:
            break
        other.wait_for_timeout(100)
    assert len(served.engine.forgotten) == 1
