"""What the Search tab does: settings to a request, its time ahead, its start, and Apply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BadInput, BlockvizError
from blockviz.session import Visitor
from blockviz.session.search_target import too_few
from blockviz.types import UNITS, BlockId, Done
from blockviz.ui import inputs, search_cards
from blockviz.ui.drawing import Drawing
from blockviz.ui.job_handlers import JobHandlers
from blockviz.ui.screen import Call, Update
from blockviz.ui.search_form import FORM, TARGETS, aimed, filled, narrowed, request_of
from blockviz.ui.turns import Turns

if TYPE_CHECKING:
    from blockviz.session import Engine

NOT_READY = "The model is still loading. Press Estimate time once it is ready."
TIMING = "Timing a moment of work…"


class SearchHandlers:
    """Handlers get the form's values in the order of `search_form.FORM`."""

    def __init__(self, engine: Engine, jobs: JobHandlers, turns: Turns) -> None:
        self.engine, self.jobs, self.turns, self.drawing = engine, jobs, turns, Drawing(engine)

    def fill(self, call: Call, preset: Any) -> Update:
        """A recipe was chosen: the settings that it makes."""
        recipes = ("", *(card.name for card in self.engine.presets()))
        name = inputs.choice(preset or "", "The recipe", recipes)
        return filled(self.engine, name) if name else {}

    def aim(self, call: Call, target: Any) -> Update:
        """Another kind of target was chosen: the number's box asks for that."""
        return aimed(inputs.choice(target, "The target", TARGETS))

    def narrow(self, call: Call, strategy: Any, unit: Any) -> Update:
        """Another strategy was chosen: the units that it can search."""
        names = [card.name for card in self.engine.strategies()]
        strategy = inputs.choice(strategy, "The strategy", names)
        return narrowed(self.engine, strategy, inputs.choice(unit, "The unit", UNITS))

    def reopen(self, call: Call, target: Any, strategy: Any, unit: Any) -> Update:
        """The tab was opened: its fields may have come back from before a reload, and what they are
        called and offer follows them."""
        kind = TARGETS[inputs.choice(target, "The target", TARGETS)]
        return {"search_amount": gr.update(label=kind.label), **self.narrow(call, strategy, unit)}

    def describe(self, call: Call, *form: Any) -> Update:
        """What is chosen, in words. Settings that left their recipe are not called by its name."""
        preset, strategy = form[0], form[3]
        cards = {card.name: card for card in self.engine.strategies()}
        presets = {card.name: card for card in self.engine.presets()}
        try:
            request = request_of(self.engine, *_able(form))
            name, caution = request.preset, too_few(request)
        except BlockvizError:
            name = caution = ""
        text = search_cards.about(cards.get(str(strategy)), presets.get(name), caution)
        left = {"search_preset": ""} if preset and not name else {}
        return {"search_about": text, **left}

    def estimate(self, call: Call, visitor: Visitor, *form: Any) -> Iterator[Update]:
        """How long the search would take. What is wrong with the settings is said in its place."""
        if not self.engine.is_ready:
            yield {"search_time": {"text": NOT_READY}}
            return
        yield {"search_time": {"text": TIMING}}
        try:
            request = request_of(self.engine, *form)
            with closing(self.engine.estimate_search(request)) as events:
                (found,) = (event.result for event in events if isinstance(event, Done))
        except BlockvizError as error:
            yield {"search_time": {"text": str(error)}}
            return
        limit = self.engine.limits.job_seconds
        yield {"search_time": {"text": search_cards.guessed(found, limit)}}

    def start(self, call: Call, visitor: Visitor, jobs: Any, *form: Any) -> Update:
        """The Start search button."""
        self.drawing.check_model(visitor)
        request = request_of(self.engine, *form)
        who = {"owner": call.session, "address": call.address}
        started = self.jobs.begin(call, jobs, lambda: self.engine.start_search(request, **who))
        said = search_cards.state_of(
            self.engine, visitor, None, self.jobs.own_job(call, started["jobs"])
        )
        return {**started, "search_note": {"text": said}}

    def draw(self, call: Call, visitor: Visitor, jobs: Any, chosen: Any) -> Update:
        """The search that is chosen, or the newest."""
        offered = search_cards.choices(self.engine, visitor)
        keys = [key for _, key in offered]
        key = chosen if isinstance(chosen, str) and chosen in keys else (keys or [""])[0]
        job = self.jobs.own_job(call, jobs)
        return {
            "search_shown": gr.update(choices=offered, value=key or None, visible=len(keys) > 1),
            **search_cards.drawn(self.engine, visitor, key, job),
        }

    def newest(self, call: Call, visitor: Visitor, jobs: Any) -> Update:
        """A decision was made, or a job has ended: the newest search."""
        return self.draw(call, visitor, jobs, None)

    def mark(self, call: Call, visitor: Visitor, chosen: Any) -> Update:
        """The plan has changed: which of the decisions it is."""
        run = self.engine.search_run(chosen) if isinstance(chosen, str) else None
        if run is None:
            return {}
        return {"candidates": search_cards.candidates(self.engine.info, visitor, chosen, run)}

    def apply(self, call: Call, visitor: Visitor, metric: Any, shade: Any) -> Update:
        """An Apply button of the candidates: that set becomes the plan on the Map."""
        key, step = call.data.get("key"), call.data.get("step")
        run = self.engine.search_run(key) if key in visitor.searches else None
        if run is None:
            raise BadInput(
                "A set that a search found was to be applied.",
                "That search is no longer kept.",
                "Start it again; what was measured is reused.",
            )
        place = inputs.whole(step, "The row", low=0, high=len(run.steps) - 1)
        return applied(self.drawing, self.turns, call, visitor, run.steps[place].removed,
                       metric, shade)  # fmt: skip


def applied(
    drawing: Drawing,
    turns: Turns,
    call: Call,
    visitor: Visitor,
    removed: tuple[BlockId, ...],
    metric: Any,
    shade: Any,
) -> Update:
    """The screen with this set as its plan; the earlier plan is one Undo away."""
    drawing.check_model(visitor)
    parts = [str(part) for block in removed for part in block.parts]
    blocks = inputs.removed_blocks(parts, drawing.engine.info)
    changed = visitor.with_removed(blocks)
    turns.begin(call.session)
    return {
        **drawing.plan(changed),
        **drawing.grid(changed, metric, shade, ""),
        "picked": "",
    }


def _able(form: Sequence[Any]) -> list[Any]:
    """The same with an amount that can be asked for: no recipe is left by a number out of range."""
    raw = dict(zip(FORM, form, strict=True))
    kind = inputs.choice(raw["search_target"], "The target", TARGETS)
    return list({**raw, "search_amount": TARGETS[kind].low}.values())
