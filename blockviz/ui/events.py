"""Which trigger calls which handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import gradio as gr

from blockviz.ui.compare_events import wire_compare
from blockviz.ui.compare_handlers import CompareHandlers
from blockviz.ui.curves_handlers import OUTPUTS as CURVES
from blockviz.ui.curves_handlers import CurvesHandlers
from blockviz.ui.export_events import wire_export, wire_recipes
from blockviz.ui.export_handlers import ExportHandlers
from blockviz.ui.insight_cards import PAGES
from blockviz.ui.insight_handlers import InsightHandlers, card_outputs
from blockviz.ui.job_handlers import JobHandlers
from blockviz.ui.learn_events import wire_learn
from blockviz.ui.live_handlers import LiveHandlers
from blockviz.ui.map_handlers import MapHandlers
from blockviz.ui.recipe_handlers import RecipeHandlers
from blockviz.ui.remembered import arrival, wire_fields
from blockviz.ui.repair_events import wire_repair
from blockviz.ui.repair_handlers import RepairHandlers
from blockviz.ui.report_handlers import ReportHandlers, wire_report
from blockviz.ui.screen import EACH, Screen
from blockviz.ui.search_cards import card_outputs as search_outputs
from blockviz.ui.search_form import FORM
from blockviz.ui.search_handlers import SearchHandlers
from blockviz.ui.turns import Turns

if TYPE_CHECKING:
    from blockviz.session import Engine
    from blockviz.ui.page import Page

LOOK = ("metric", "shade")
PLAN = ("visitor", "picked", "score", "grid", "twin", "ranking", "link", "block", "live", "undo",
        "redo", "reset")  # fmt: skip
MAP = ("readings", "heat", "table", "csv")
EVERYTHING = (*PLAN, *MAP, "header", "legend", "metric", "chat", "texts")
LIVE = ("score", "work", "live")
TEXT = ("score", "work", "texts")
WRITE_INPUTS = ("visitor", "prompt", "n_new", "chat")
SCORE_INPUTS = ("metrics", "source", "upload", "n_samples", "seq_len", "seed", "mode", "unit",
                "tasks", "task_rows")  # fmt: skip
STARTED = ("jobs", "browser", "job", "timer")
# All model work of all visitors shares one place in the queue; the session has the real lock.
COMPUTE = {"concurrency_id": "compute", "concurrency_limit": 1, "trigger_mode": "always_last"}
# What the model writes has another, and the lock behind everything that is measured.
WRITING = {**COMPUTE, "concurrency_id": "writing"}


def wire(app: Page, screen: Screen, engine: Engine, turns: Turns, jobs: JobHandlers) -> None:
    """Joins every control to its handler."""
    live = LiveHandlers(engine, turns)
    plan, insights = MapHandlers(engine, turns), InsightHandlers(engine)
    followed = wire_recipes(screen, RecipeHandlers(engine, turns), LOOK, PLAN)
    history = [*_history_events(screen, plan), followed]
    search, curves = SearchHandlers(engine, jobs, turns), CurvesHandlers(engine, turns)
    applies = _search_events(screen, search, curves, history)
    restored = wire_learn(screen, engine, plan, LOOK, (*PLAN, "metric", "legend"))
    changes = [*_plan_events(screen, plan), restored, *history, *applies]
    for change in (*history, *applies):
        screen.listen(change.then, insights.foretell, inputs=("visitor",), outputs=("foretold",))
    opened = _job_events(app, screen, jobs)
    wire_repair(screen, RepairHandlers(engine, jobs), [*changes, opened], STARTED)
    wire_compare(screen, CompareHandlers(engine, jobs), [*changes, opened], STARTED)
    wire_export(screen, ExportHandlers(engine, jobs), [*changes, opened], STARTED)
    wire_report(screen, ReportHandlers(engine))
    wishes = [change.then for change in (*changes, opened)]
    follow = {"inputs": ("visitor", "shade"), "outputs": (*LIVE, "heat"), **COMPUTE}
    write = {"inputs": WRITE_INPUTS, "outputs": TEXT, **WRITING}
    again = screen.listen(screen["score"].measure, live.ask_measure, outputs=("work",))
    for trigger in (*wishes, screen["job"].settled, again.then):
        measured = screen.listen(trigger, live.follow, **follow)
        screen.listen(measured.then, live.text, **write)
    screen.listen(
        screen["import_scores"].upload, jobs.add_scores,
        inputs=("visitor", "import_scores", *LOOK), outputs=EVERYTHING,
    )  # fmt: skip
    _insight_events(screen, insights, jobs)
    pressed = (screen["write"].click, screen["prompt"].submit)
    screen.listen(
        screen.listen(pressed, live.ask_write, outputs=("work",)).then, live.write, **write
    )


def _insight_events(screen: Screen, insights: InsightHandlers, jobs: JobHandlers) -> None:
    """A page of figures is drawn when it is opened, and again when its subject changes."""
    cards = card_outputs()
    settings = ("judged_metric", "line_metric", "log_scale", "lens", "pair_order")
    asked = ("page", "visitor", *settings)
    pages = tuple(f"{part}_{page}" for part in ("page", "note") for page in PAGES)
    redrawn = (*cards, "judged_metric", "line_metric")
    last = {"trigger_mode": "always_last"}
    # One event, so that opening the tab, answered late, does not bring back the page before.
    turned = screen.listen(
        (screen["page"].input, screen["insights"].select), insights.turn, inputs=("page",),
        outputs=pages, **last,
    )  # fmt: skip
    screen.listen(turned.then, insights.redraw, inputs=asked, outputs=redrawn, **last)
    drawn_by = ("judged_metric", "line_metric", "log_scale", "pair_order")
    settings_changed = (screen[name].input for name in drawn_by)
    screen.listen(
        (screen["job"].paired, *settings_changed), insights.draw, inputs=asked, outputs=cards,
        **last,
    )  # fmt: skip
    screen.listen(screen["job"].settled, insights.redraw, inputs=asked, outputs=redrawn, **last)
    for name, start in (("start_judge", jobs.judge), ("start_pairs", jobs.pairs)):
        screen.listen(screen[name].click, start, inputs=("visitor", "jobs"), outputs=STARTED)
    screen.listen(
        screen["read_lens"].click, insights.read,
        inputs=("visitor", "lens_text", "lens_position"), outputs=(*cards, "lens", "work"),
        **COMPUTE,
    )  # fmt: skip


def _search_events(
    screen: Screen,
    search: SearchHandlers,
    curves: CurvesHandlers,
    history: Sequence[gr.events.Dependency],
) -> list[gr.events.Dependency]:
    """Search and Curves; the dependencies are those that put a set on the Map."""
    last, shown = {"trigger_mode": "always_last"}, ("visitor", "jobs", "search_shown")
    _search_settings(screen, search)
    screen.listen(
        screen["start_search"].click, search.start, inputs=("visitor", "jobs", *FORM),
        outputs=(*STARTED, "search_note"),
    )  # fmt: skip
    found = {"outputs": (*search_outputs(), "search_shown"), **last}
    asked = (screen["search"].select, screen["search_shown"].input)
    screen.listen(asked, search.draw, inputs=shown, **found)
    arrived = (screen["job"].searched, screen["job"].settled)
    screen.listen(arrived, search.newest, inputs=shown[:2], **found)
    drawn = {"inputs": ("visitor", "curve_group", "curve_log", "curve_point", "points_sent"),
             "outputs": CURVES, **last}  # fmt: skip
    own = (screen["curve_group"].input, screen["curve_log"].input, screen["curves"].select)
    screen.listen((*own, screen["job"].settled), curves.draw, **drawn)
    screen.listen(screen["job"].searched, curves.newest, **drawn)
    look = {"inputs": ("visitor", *LOOK), "outputs": PLAN}
    changes = [
        screen.listen(screen["candidates"].apply, search.apply, **look, **EACH),
        screen.listen(screen["curve_clicks"].pick, curves.pick, **look, **EACH),
        screen.listen(
            screen["apply_point"].click, curves.apply, inputs=("visitor", "curve_point", *LOOK),
            outputs=PLAN,
        ),
    ]  # fmt: skip
    for change in (*history, *changes):
        screen.listen(
            change.then, search.mark, inputs=("visitor", "search_shown"), outputs=("candidates",)
        )
        screen.listen(change.then, curves.draw, **drawn)
    return changes


def _search_settings(screen: Screen, search: SearchHandlers) -> None:
    """A choice is described and timed at once, a number when it has been written."""
    last = {"trigger_mode": "always_last"}
    filled = screen.listen(
        screen["search_preset"].input, search.fill, inputs=("search_preset",),
        outputs=FORM[1:],
    )  # fmt: skip
    aimed = screen.listen(
        screen["search_target"].input, search.aim, inputs=("search_target",),
        outputs=("search_amount",),
    )  # fmt: skip
    narrowed = screen.listen(
        screen["search_strategy"].input, search.narrow, inputs=("search_strategy", "search_unit"),
        outputs=("search_unit",),
    )  # fmt: skip
    followed = ("search_preset", "search_target", "search_strategy")
    written = [n for n in FORM if isinstance(screen[n], (gr.Number, gr.Textbox))]
    chosen = [n for n in FORM if n not in (*written, *followed)]
    settled = (
        *(screen[name].blur for name in written), *(screen[name].submit for name in written),
        *(screen[name].input for name in chosen),
    )  # fmt: skip
    followed_by = (filled.then, aimed.then, narrowed.then)
    about = {"inputs": FORM, "outputs": ("search_about", "search_preset"), **last}
    timed = {"inputs": ("visitor", *FORM), "outputs": ("search_time",), **COMPUTE}
    opened = screen.listen(
        screen["search"].select, search.reopen,
        inputs=("search_target", "search_strategy", "search_unit"),
        outputs=("search_amount", "search_unit"),
    )  # fmt: skip
    for trigger in (settled, opened.then, *followed_by):
        screen.listen(trigger, search.describe, **about)
    asked = (*settled, screen["estimate_search"].click, screen["search"].select)
    for trigger in (asked, *followed_by):
        screen.listen(trigger, search.estimate, **timed)


def _plan_events(screen: Screen, plan: MapHandlers) -> list[gr.events.Dependency]:
    """Light handlers, out of the queue: they answer even when it is full."""
    last = {"trigger_mode": "always_last"}
    inputs, out = ("visitor", *LOOK), PLAN
    changes = [
        screen.listen(screen["grid"].toggle, plan.toggle, inputs=inputs, outputs=out, **EACH),
        screen.listen(
            screen["twin"].input, plan.twin, inputs=("visitor", "twin", *LOOK), outputs=out, **last
        ),
    ]
    screen.listen(
        tuple(screen[source].pick for source in ("grid", "ranking", "heat_clicks")),
        plan.pick, inputs=("visitor",), outputs=("picked", "block"), **EACH,
    )  # fmt: skip
    colour_out = ("legend", "grid", "ranking", "link", "block")
    colour_in = ("visitor", *LOOK, "picked")
    looks = tuple(screen[name].input for name in LOOK)
    screen.listen(looks, plan.colour, inputs=colour_in, outputs=colour_out, **last)
    screen.listen(
        screen["shade"].input, plan.reshade, inputs=("visitor", "shade"), outputs=MAP, **last
    )
    return changes


def _history_events(screen: Screen, plan: MapHandlers) -> list[gr.events.Dependency]:
    """Undo, Redo and Reset, which stand on every tab; the grid sends Reset, numbered as its own."""
    look = {"inputs": ("visitor", *LOOK), "outputs": PLAN}
    undo = (screen["undo"].click, screen["grid"].undo)
    return [
        screen.listen(undo, plan.undo, **look),
        screen.listen(screen["grid"].reset, plan.reset, **look, **EACH),
        screen.listen(screen["redo"].click, plan.redo, **look),
        screen.listen(screen["link"].walk, plan.walk, **look, **EACH),
    ]


def _job_events(app: Page, screen: Screen, jobs: JobHandlers) -> gr.events.Dependency:
    screen.listen(
        screen["timer"].tick, jobs.poll,
        inputs=("visitor", "jobs", *LOOK),
        outputs=(*EVERYTHING, "job", "timer"),
    )  # fmt: skip
    screen.listen(
        screen["check"].click, jobs.check, inputs=("model", "revision"),
        outputs=("verdict", "load"), queue=True, show_progress="minimal",
        show_progress_on=[screen["verdict"]],
    )  # fmt: skip
    screen.listen(
        screen["example"].input, jobs.exemplified, inputs=("example",),
        outputs=("model", "revision", "verdict", "load"),
    )  # fmt: skip
    named = (screen["model"].input, screen["revision"].input)
    screen.listen(named, jobs.unchecked, outputs=("verdict", "load"))
    screen.listen(
        screen["load"].click, jobs.load, inputs=("jobs", "model", "revision", "dtype"),
        outputs=STARTED,
    )  # fmt: skip
    screen.listen(
        screen["start_score"].click, jobs.score, inputs=("jobs", *SCORE_INPUTS), outputs=STARTED
    )
    screen.listen(
        screen["cancel"].click, jobs.cancel, inputs=("visitor", "jobs"),
        outputs=("score", "work", "job"),
    )  # fmt: skip
    opened = ("curves", "insights", "search", "repair", "compare", "export")
    screen.listen(
        tuple(screen[tab].select for tab in opened), jobs.look, inputs=("visitor", *LOOK),
        outputs=EVERYTHING,
    )  # fmt: skip
    app.unload(_leaving(screen, jobs))
    # In this order: what is opened is drawn by the fields as they were.
    wire_fields(app, screen)
    return screen.listen(
        app.load, jobs.open, inputs=("visitor", "browser", "shade"),
        outputs=(*EVERYTHING, "jobs", "job", "timer"), js=arrival(),
    )  # fmt: skip


def _leaving(screen: Screen, jobs: JobHandlers) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        session = request.session_hash or ""
        screen.visitors.forget(session)
        jobs.leave(session)

    return leave
