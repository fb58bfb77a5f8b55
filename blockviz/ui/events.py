"""Which trigger calls which handler. The only list of its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import gradio as gr

from blockviz.ui.insight_cards import PAGES
from blockviz.ui.insight_handlers import InsightHandlers, card_outputs
from blockviz.ui.job_handlers import JobHandlers
from blockviz.ui.live_handlers import LiveHandlers
from blockviz.ui.map_handlers import MapHandlers
from blockviz.ui.screen import Screen
from blockviz.ui.turns import Turns

if TYPE_CHECKING:
    from blockviz.session import Engine

LOOK = ("metric", "shade")
PLAN = ("visitor", "picked", "score", "grid", "twin", "ranking", "link", "block", "live", "undo",
        "redo", "reset")  # fmt: skip
MAP = ("readings", "heat", "table", "csv")
EVERYTHING = (*PLAN, *MAP, "header", "legend", "metric", "chat", "texts")
LIVE = ("score", "work", "texts", "live")
WRITE_INPUTS = ("visitor", "prompt", "n_new", "chat")
SCORE_INPUTS = ("metrics", "source", "upload", "n_samples", "seq_len", "seed", "mode", "unit",
                "tasks", "task_rows")  # fmt: skip
# All model work of all visitors shares one place in the queue; the session has the real lock.
COMPUTE = {"concurrency_id": "compute", "concurrency_limit": 1, "trigger_mode": "always_last"}


def wire(app: gr.Blocks, screen: Screen, engine: Engine, turns: Turns, jobs: JobHandlers) -> None:
    """Joins every control to its handler."""
    live = LiveHandlers(engine, turns)
    changes = _plan_events(screen, MapHandlers(engine, turns))
    opened = _job_events(app, screen, jobs)
    wishes = [change.then for change in (*changes, opened)]
    follow = {"inputs": (*WRITE_INPUTS, "shade"), "outputs": (*LIVE, "heat"), **COMPUTE}
    for trigger in (*wishes, screen["job"].settled):
        screen.listen(trigger, live.follow, **follow)
    screen.listen(screen["score"].measure, live.measure, **follow)
    screen.listen(
        screen["import_scores"].upload, jobs.add_scores,
        inputs=("visitor", "import_scores", *LOOK), outputs=EVERYTHING,
    )  # fmt: skip
    _insight_events(screen, InsightHandlers(engine), jobs)
    for trigger in (screen["write"].click, screen["prompt"].submit):
        screen.listen(trigger, live.write, inputs=WRITE_INPUTS, outputs=LIVE, **COMPUTE)


def _insight_events(screen: Screen, insights: InsightHandlers, jobs: JobHandlers) -> None:
    """A page of figures is drawn when it is opened, and again when its subject changes."""
    cards, settings = card_outputs(), ("judged_metric", "line_metric", "log_scale", "lens")
    asked = ("page", "visitor", *settings)
    pages, last = tuple(f"page_{page}" for page in PAGES), {"trigger_mode": "always_last"}
    screen.listen(
        screen["page"].input, insights.turn, inputs=asked, outputs=(*cards, *pages), **last
    )
    settings_changed = (screen[n].input for n in ("judged_metric", "line_metric", "log_scale"))
    for trigger in (screen["insights"].select, *settings_changed):
        screen.listen(trigger, insights.draw, inputs=asked, outputs=cards, **last)
    screen.listen(
        screen["job"].settled, insights.redraw, inputs=asked,
        outputs=(*cards, "judged_metric", "line_metric"),
    )  # fmt: skip
    screen.listen(
        screen["start_judge"].click, jobs.judge, inputs=("visitor", "jobs"),
        outputs=("jobs", "browser", "job", "timer"),
    )  # fmt: skip
    screen.listen(
        screen["read_lens"].click, insights.read,
        inputs=("visitor", "lens_text", "lens_position"), outputs=(*cards, "lens", "work"),
        **COMPUTE,
    )  # fmt: skip


def _plan_events(screen: Screen, plan: MapHandlers) -> list[gr.events.Dependency]:
    """Light handlers, out of the queue: they answer even when it is full."""
    last = {"trigger_mode": "always_last"}
    inputs, out = ("visitor", *LOOK), PLAN
    changes = [
        screen.listen(screen["grid"].toggle, plan.toggle, inputs=inputs, outputs=out, **last),
        screen.listen(
            screen["twin"].input, plan.twin, inputs=("visitor", "twin", *LOOK), outputs=out, **last
        ),
    ]
    for name in ("undo", "reset"):
        changes += [
            screen.listen(trigger, getattr(plan, name), inputs=inputs, outputs=out)
            for trigger in (screen[name].click, getattr(screen["grid"], name))
        ]
    changes.append(screen.listen(screen["redo"].click, plan.redo, inputs=inputs, outputs=out))
    for source in ("grid", "ranking", "heat_clicks"):
        screen.listen(
            screen[source].pick, plan.pick, inputs=("visitor",), outputs=("picked", "block"), **last
        )
    colour_out = ("legend", "grid", "ranking", "link", "block")
    colour_in = ("visitor", *LOOK, "picked")
    for name in LOOK:
        screen.listen(screen[name].input, plan.colour, inputs=colour_in, outputs=colour_out, **last)
    screen.listen(
        screen["shade"].input, plan.reshade, inputs=("visitor", "shade"), outputs=MAP, **last
    )
    return changes


def _job_events(app: gr.Blocks, screen: Screen, jobs: JobHandlers) -> gr.events.Dependency:
    started = ("jobs", "browser", "job", "timer")
    screen.listen(
        screen["timer"].tick, jobs.poll,
        inputs=("visitor", "jobs", *LOOK),
        outputs=(*EVERYTHING, "jobs", "job", "timer"),
    )  # fmt: skip
    screen.listen(
        screen["check"].click, jobs.check, inputs=("model", "revision"),
        outputs=("verdict", "load"), queue=True, show_progress="minimal",
    )  # fmt: skip
    screen.listen(
        screen["example"].input, jobs.exemplified, inputs=("example",),
        outputs=("model", "revision", "verdict", "load"),
    )  # fmt: skip
    for name in ("model", "revision"):
        screen.listen(screen[name].input, jobs.unchecked, outputs=("verdict", "load"))
    screen.listen(
        screen["load"].click, jobs.load, inputs=("jobs", "model", "revision", "dtype"),
        outputs=started,
    )  # fmt: skip
    screen.listen(
        screen["start_score"].click, jobs.score, inputs=("jobs", *SCORE_INPUTS), outputs=started
    )
    screen.listen(
        screen["cancel"].click, jobs.cancel, inputs=("visitor", "jobs"),
        outputs=("score", "work", "job"),
    )  # fmt: skip
    app.unload(_leaving(screen, jobs))
    return screen.listen(
        app.load, jobs.open, inputs=("visitor", "browser", "shade"),
        outputs=(*EVERYTHING, "jobs", "job", "timer"),
    )  # fmt: skip


def _leaving(screen: Screen, jobs: JobHandlers) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        jobs.leave(request.session_hash or "")
        screen.visitors.forget(request.session_hash or "")

    return leave
